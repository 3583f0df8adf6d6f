import random
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from tamis.corpus.dataset import Dataset, LeftOut
from tamis.corpus.validate import Check, ValidationReport, detect_languages, validate
from tamis.errors import DataError
from tamis.target import OrdinalTarget
from tamis.task import PackagesSource, Task, ValidationPolicy
from tests.tiny import labelled

NAMES = [
    "schema", "documents", "usable", "empty", "exact_duplicates", "near_duplicates",
    "conflicting_labels", "classes", "language",
]  # fmt: skip
COMMON = [
    *("the", "river", "water", "people", "city", "house", "morning", "evening", "garden"),
    *("history", "village", "market", "teacher", "student", "winter", "summer", "mountain"),
    *("family", "country", "music", "science", "language", "painting", "kitchen"),
]
FRENCH = (
    "le conseil municipal a décidé hier soir de reconstruire le vieux pont de pierre au-dessus "
    "de la rivière parce que les habitants du village n'avaient plus aucun autre chemin"
)


@cache
def english(count=80, seed=0):
    chance = random.Random(seed)
    return tuple(
        f"Paragraph {i} is about what the people of the {chance.choice(COMMON)} have written on "
        + " and the ".join(chance.choices(COMMON, k=14))
        for i in range(count)
    )


def task(**policy):
    return Task(
        name="toy",
        target=OrdinalTarget(kind="ordinal", keep_at_least=3.0),
        sources=(PackagesSource(kind="packages"),),
        validation=ValidationPolicy(languages=("en",), **policy),
    )


def good(**changes):
    texts = list(english())
    return labelled(**({"texts": texts, "labels": [float(i % 6) for i in range(80)]} | changes))


def failed(data, **policy):
    """The checks that failed, by name."""
    report = validate(data, task(**policy))
    assert [check.name for check in report.checks] == NAMES
    return {check.name: check for check in report.checks if not check.passed}


def test_good_documents_pass_every_check():
    data = good()
    report = validate(data, task())
    assert failed(data) == {}
    report.require()
    assert report.fingerprint == data.info.fingerprint
    assert report.documents == 80
    assert report.labels == {"0": 14, "1": 14, "2": 13, "3": 13, "4": 13, "5": 13}
    assert report.languages["en"] >= 78
    assert report.left_out == {}


def test_repeated_ids_and_other_columns_fail_the_schema():
    ids = [f"doc{i}" for i in range(80)]
    ids[41] = "doc3"
    check = failed(good(ids=ids))["schema"]
    assert check.rows == ("file.csv#41",)
    assert "1 repeated ids" in check.detail
    data = good()
    wide = Dataset(data.table.append_column("more", pa.array(["x"] * 80)), data.info)
    assert "differ" in failed(wide)["schema"].detail


def test_too_few_labelled_documents_fail():
    labels = [float(i % 6) for i in range(80)]
    labels[:31] = [None] * 31
    found = failed(good(labels=labels))
    assert list(found) == ["documents"]
    assert "49 labelled documents; at least 50" in found["documents"].detail
    assert "documents" not in failed(good(labels=labels), min_documents=49)


@pytest.mark.parametrize(("bad", "fails"), [(8, False), (9, True)])
def test_more_than_a_tenth_that_could_not_be_used_fail(bad, fails):
    left_out = [
        LeftOut(origin=f"other.csv#{i}", reason="bad_label", detail=f"label 'x{i}' is no number")
        for i in range(bad)
    ]
    data = good(left_out=left_out)
    check = failed(data).get("usable")
    assert (check is not None) == fails
    if check:
        assert check.rows[0] == "other.csv#0 (label 'x0' is no number)"
        assert len(check.rows) == 5
    assert validate(data, task()).left_out == {"bad_label": bad}


def test_what_is_not_installed_is_not_held_against_the_documents():
    absent = [LeftOut(origin="p", reason="not_installed", detail="not there")] * 60
    assert failed(good(left_out=absent)) == {}


def test_empty_texts_fail():
    texts = list(english())
    texts[12] = ""
    check = failed(good(texts=texts))["empty"]
    assert check.rows == ("file.csv#12",)
    assert "1 of 80" in check.detail
    assert "empty" not in failed(good(texts=texts), max_empty=0.05)


def test_exact_and_near_duplicates_fail_and_name_the_repetition():
    texts = list(english())
    for i in range(5):
        texts[60 + i] = texts[i]
    found = failed(good(texts=texts))
    assert found["exact_duplicates"].rows == tuple(f"file.csv#{60 + i}" for i in range(5))
    assert "5 of 80 (6.2%); at most 5.0%" in found["exact_duplicates"].detail
    for i in range(30):
        texts[50 + i] = texts[i] + " ."
    found = failed(good(texts=texts))
    assert "exact_duplicates" not in found
    assert len(found["near_duplicates"].rows) == 5
    assert "near_duplicates" not in failed(good(texts=texts), max_near_duplicates=0.5)


def test_one_text_with_two_labels_fails():
    texts = list(english())
    texts[7] = texts[6]
    check = failed(good(texts=texts))["conflicting_labels"]
    assert check.rows == ("file.csv#7",)
    labels = [float(i % 6) for i in range(80)]
    labels[7] = labels[6]
    assert failed(good(texts=texts, labels=labels)) == {}


def test_an_unlabelled_copy_is_no_conflict():
    texts, labels = list(english()), [float(i % 6) for i in range(80)]
    texts[7], labels[6] = texts[6], None
    assert "conflicting_labels" not in failed(good(texts=texts, labels=labels))
    labels[6], labels[7] = 3.0, None
    assert "conflicting_labels" not in failed(good(texts=texts, labels=labels))


def test_too_few_on_either_side_of_the_line_fail():
    for few, many, said in ((5.0, 1.0, "9 on the kept side"), (1.0, 5.0, "9 on the other")):
        assert said in failed(good(labels=[few] * 9 + [many] * 71))["classes"].detail
        assert "classes" not in failed(good(labels=[few] * 10 + [many] * 70))


def test_foreign_documents_fail_and_are_named():
    texts = list(english())
    for i in range(8):
        texts[70 + i] = f"{FRENCH} numéro {i} " + " ".join(f"maison{i}{k}" for k in range(9))
    data = good(texts=texts)
    check = failed(data)["language"]
    assert set(check.rows) <= {f"file.csv#{i}" for i in range(80)}
    assert "file.csv#70" in check.rows
    assert validate(data, task()).languages["fr"] == 8
    assert "language" not in failed(data, max_foreign_language=0.2)
    every = task().model_copy(update={"validation": ValidationPolicy()})
    assert validate(data, every).checks[-1].passed


def test_languages_are_told_apart():
    found = detect_languages([english()[0], FRENCH, "", " \n "])
    assert found.tolist() == ["en", "fr", "none", "none"]


def test_require_raises_one_sentence_that_names_every_failure():
    texts = list(english())
    texts[12] = ""
    report = validate(good(texts=texts, labels=[0.0] * 80), task())
    with pytest.raises(DataError) as caught:
        report.require()
    sentence = str(caught.value)
    assert sentence.startswith("toy: the documents fail validation; empty: 1 of 80")
    assert "(file.csv#12)" in sentence
    assert "classes: 0 on the kept side, 80 on the other" in sentence
    assert "\n" not in sentence


def hostile():
    bad = "<script>alert(1)</script>"
    check = Check(name=bad, passed=False, detail=bad, rows=(bad, '"><img src=x>'))
    return ValidationReport(
        task=bad,
        fingerprint="",
        documents=1,
        checks=(check,),
        languages={bad: 1},
        labels={bad: 1},
        left_out={bad: 1},
    )


def test_the_page_escapes_hostile_text():
    page = hostile().to_html()
    assert "<script" not in page
    assert "<img" not in page
    assert "alert(1)" in page


def test_the_page_has_its_tables_as_markup():
    page = hostile().to_html()
    assert page.count("<table>") == 4
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;table" not in page


def test_labels_that_are_missing_are_not_counted():
    labels = [float(i % 6) for i in range(80)]
    labels[0] = None
    report = validate(good(labels=labels), task())
    assert sum(report.labels.values()) == 79
    assert not np.isnan(list(map(float, report.labels))).any()
