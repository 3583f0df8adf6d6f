"""Windows that come one after the other, some of them with what was there before."""

import pytest

from tamis.corpus.periods import carried, join_periods, no_documents, of_windows
from tamis.corpus.split import SIDES, split, split_keeping
from tamis.target import OrdinalTarget
from tamis.task import Split
from tests.tiny import labelled

TARGET = OrdinalTarget(kind="ordinal", keep_at_least=3.0)


def text(number):
    return " ".join(f"v{60 * number + k}" for k in range(60))


def window(name, numbers, tail=""):
    """Documents of a file: a row's id holds the file's name."""
    texts = [text(number) + tail for number in numbers]
    labels = [float(number % 6) for number in numbers]
    ids = [f"{name}#{row}" for row in range(len(texts))]
    return labelled(texts, labels, ids, ids=ids, origins=ids)


def ids_of(data):
    return data.strings("id").tolist()


def test_a_document_comes_once_and_keeps_the_id_that_it_had_first():
    old = window("old", range(10))
    earlier = window("monday", range(20, 26))
    late = window("tuesday", range(24, 30))
    joined = join_periods(old, late, earlier)
    assert len(joined) == 10 + 6 + 4
    assert sorted(joined.texts()) == sorted(text(i) for i in [*range(10), *range(20, 30)])
    assert {"monday#4", "monday#5"} < set(ids_of(joined))
    assert not {"tuesday#0", "tuesday#1"} & set(ids_of(joined))


def test_the_window_says_what_the_label_is_now():
    earlier = window("monday", range(4))
    late = labelled([text(2)], [5.0], ids=["tuesday#0"])
    joined = join_periods(window("old", range(10, 14)), late, earlier)
    label = dict(zip(ids_of(joined), joined.labels.tolist(), strict=True))
    assert label["monday#2"] == 5.0
    assert len(joined) == 8


def test_documents_of_the_sources_win_over_windows_of_the_same_id():
    old = labelled([text(0)], [1.0], ids=["a"])
    late = labelled([text(1), text(2)], [2.0, 2.0], ids=["a", "b"])
    joined = join_periods(old, late, no_documents("toy"))
    assert joined.texts() == [text(0), text(2)]
    assert of_windows(old, late, ["a", "c"]) == {"b", "c"}


def test_without_earlier_windows_old_and_new_stand_together():
    old, late = window("old", range(5)), window("new", range(5, 8))
    joined = join_periods(old, late, no_documents("toy"))
    assert ids_of(joined) == ids_of(old) + ids_of(late)
    assert len(carried(joined, ["new#1", "gone"])) == 1


@pytest.mark.parametrize(
    "promoted", [(True, True, True), (False, False, False), (True, False, True)]
)
def test_what_tested_once_is_never_trained_on_over_several_retrainings(promoted):
    """Overlapping windows, exported anew, with near-duplicates of what came before."""
    old = window("old", range(60))
    first = split(old, TARGET, Split(), 0)
    champion, data, ever = first, old, {}
    windows = [range(100, 180), range(140, 220), range(120, 260)]
    for turn, (numbers, taken) in enumerate(zip(windows, promoted, strict=True)):
        near = range(100, 120) if champion.window else range(0, 20)
        parts = window(f"w{turn}", numbers), window(f"near{turn}", near, " tail")
        late = join_periods(parts[0], parts[1], no_documents("toy"))
        earlier = carried(data, champion.window)
        joined = join_periods(old, late, earlier)
        known = {name: side for side in SIDES for name in champion.sides[side]}
        new = of_windows(old, late, champion.window)
        found = split_keeping(joined, Split(), 0, known, new, 0.4)
        words = dict(zip(ids_of(joined), joined.texts(), strict=True))
        tested = {words[name].removesuffix(" tail") for name in found.sides["test"]}
        fitted = {
            words[name].removesuffix(" tail")
            for name in (*found.sides["train"], *found.sides["validation"])
        }
        assert not tested & fitted
        assert not set(ever) & fitted
        ever |= dict.fromkeys(tested)
        assert set(first.sides["test"]) <= set(found.sides["test"])
        if taken:
            champion, data = found, joined
    assert len(ever) > 60


def test_what_the_sources_hold_word_for_word_is_no_new_document():
    old = window("old", range(20))
    again = labelled([*old.texts()[:5], text(90)], [0.0] * 5 + [1.0],
                     ids=[f"served{row}" for row in range(6)])  # fmt: skip
    joined = join_periods(old, again, no_documents("toy"))
    assert joined.strings("id").tolist() == [*old.strings("id").tolist(), "served5"]
