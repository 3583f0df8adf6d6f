"""Two sets of labelled documents beside each other."""

import math

import pytest

from tamis.corpus.data_diff import EXAMPLES, TRANSITIONS, DataDiff, decode, diff
from tamis.errors import DataError
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget
from tests.tiny import labelled

SCALE = OrdinalTarget(kind="ordinal", keep_at_least=3.0)
YES_NO = BinaryTarget(kind="binary", negative="bad", positive="good")
KINDS = ClassesTarget(kind="classes", classes=("article", "forum", "shop"), keep=("article",))


def of(rows, sources=None):
    """A dataset of (id, text, label) rows."""
    ids, texts, labels = zip(*rows, strict=True)
    return labelled(list(texts), list(labels), ids=list(ids), sources=sources)


def numbers(found):
    return {name: change.documents for name, change in found.changes().items() if change.documents}


def balanced(found):
    return (
        found.old.documents == found.both + found.removed.documents
        and found.new.documents == found.both + found.added.documents
    )


OLD = of(
    [("a", "one", 1.0), ("b", "two", 2.0), ("c", "three", 3.0), ("d", "four", None),
     ("e", "five", 5.0), ("f", "six", 0.0)],
    ["web", "web", "book", "book", "web", "web"],
)  # fmt: skip
NEW = of(
    [("a", "one", 1.0), ("b", "two", 4.0), ("c", "three!", 3.0), ("d", "four", 2.0),
     ("e", "five", None), ("z", "seven", 1.0)],
    ["web", "web", "book", "book", "web", "news"],
)  # fmt: skip


def test_every_kind_of_change_is_told_apart():
    found = diff(OLD, NEW, SCALE)
    assert numbers(found) == {
        "added": 1,
        "removed": 1,
        "relabelled": 1,
        "labelled for the first time": 1,
        "label taken away": 1,
        "text changed": 1,
    }
    assert balanced(found) and found.both == 5 and found.unchanged == 1
    assert found.added.sources == {"news": 1} and found.removed.sources == {"web": 1}
    assert found.added.examples[0].id == "z" and found.removed.examples[0].id == "f"
    assert found.text_changed.sources == {"book": 1}
    assert found.text_changed.examples[0].id == "c"
    (example,) = found.relabelled.examples
    assert (example.id, example.old, example.new) == ("b", "2", "4")
    assert found.relabelled.mean_change == found.relabelled.mean_size == 2.0
    assert found.labelled.examples[0].new == "2" and found.labelled.examples[0].old == ""
    assert found.unlabelled.examples[0].old == "5"


def test_nothing_changed_whatever_the_order():
    rows = [(f"d{n}", f"text {n}", float(n % 6) if n % 4 else None) for n in range(40)]
    found = diff(of(rows), of(rows[::-1]), SCALE)
    assert numbers(found) == {} and found.unchanged == found.both == 40
    assert found.relabelled.mean_change is None and found.relabelled.transitions == ()
    assert found.old.fingerprint == found.new.fingerprint


def test_rows_that_moved_are_the_same_documents():
    """The ids of a file without a column of ids hold the row, which moves."""
    before = [(f"x#{n}@{n}", f"text {n}", 1.0) for n in range(5)]
    after = [("x#0@new", "put in above", 0.0)]
    after += [(f"x#{n + 1}@{n}", f"text {n}", 4.0 if n == 2 else 1.0) for n in range(5)]
    found = diff(of(before), of(after), SCALE)
    assert numbers(found) == {"added": 1, "relabelled": 1, "same text, another id": 5}
    assert found.added.examples[0].id == "x#0@new"
    moved = found.renamed.examples[0]
    assert (moved.old, moved.new) == ("x#0@0", "x#1@0")
    assert balanced(found) and found.unchanged == 0


def test_a_document_that_comes_several_times_is_paired_as_often_as_both_have_it():
    before = [("a", "same", 1.0), ("a", "same", 2.0), ("b", "same", 3.0)]
    after = [("a", "same", 2.0), ("b", "same", 3.0), ("c", "same", 1.0), ("c", "same", 5.0)]
    found = diff(of(before), of(after), SCALE)
    assert found.both == 3 and balanced(found)
    assert numbers(found) == {"added": 1, "same text, another id": 1}
    assert found.added.examples[0].id == "c"


def test_changes_of_sign_cancel_in_the_mean_and_not_in_the_size():
    before = [(f"d{n}", f"t{n}", 2.0) for n in range(4)]
    after = [(f"d{n}", f"t{n}", 5.0 if n == 3 else 1.0) for n in range(4)]
    found = diff(of(before), of(after), SCALE).relabelled
    assert found.mean_change == 0.0 and found.mean_size == 1.5
    assert found.examples[0].id == "d3", "the largest change comes first"
    assert [(t.old, t.new, t.documents) for t in found.transitions] == [
        ("2", "1", 3),
        ("2", "5", 1),
    ]


@pytest.mark.parametrize(
    ("target", "told"), [(YES_NO, ("bad", "good")), (KINDS, ("article", "forum"))]
)
def test_classes_go_by_their_names_and_have_no_mean(target, told):
    found = diff(of([("a", "x", 0.0)]), of([("a", "x", 1.0)]), target).relabelled
    assert (found.transitions[0].old, found.transitions[0].new) == told
    assert found.mean_change is None and found.mean_size is None


def test_what_is_listed_is_bounded():
    before = [(f"d{n}", f"t{n}", n / 100) for n in range(300)]
    after = [(f"d{n}", f"t{n}", n / 100 + 1) for n in range(300)]
    found = diff(of(before), of(after), SCALE).relabelled
    assert found.documents == 300
    assert len(found.transitions) == TRANSITIONS and len(found.examples) == EXAMPLES


def test_the_page_is_whole_and_escapes_what_the_data_say():
    rows = [("<script>alert(1)</script>", "x", 1.0)]
    page = diff(of([("a", "y", 1.0)]), of(rows, ["<b>web</b>"]), SCALE).to_html()
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert "<script" not in page and "<b>web" not in page
    assert "&lt;script&gt;" in page
    assert "Relabelled" not in page
    assert "Mean change +2.000, mean size 2.000." in diff(OLD, NEW, SCALE).to_html()


def test_the_report_survives_its_json():
    found = diff(OLD, NEW, SCALE)
    assert DataDiff.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("target", "label"), [(SCALE, 6.0), (YES_NO, 2.0), (YES_NO, 0.5), (KINDS, -1.0)]
)
def test_a_label_of_another_target_is_refused(target, label):
    with pytest.raises(DataError, match="ingested under another one"):
        decode(target, label)


@pytest.mark.parametrize("target", [SCALE, YES_NO, KINDS])
def test_a_label_is_decoded_to_what_encodes_to_it(target):
    for label in (0.0, 1.0):
        assert target.encode(decode(target, label)) == label
    assert not math.isnan(target.encode(decode(target, 1.0)))
