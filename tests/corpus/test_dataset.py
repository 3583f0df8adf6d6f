import numpy as np
import pytest

from tamis.corpus.dataset import LeftOut, build, concatenate, fingerprint
from tests.tiny import labelled

TEXTS = ["one", "two", "three", "four"]
LABELS = [1.0, 2.0, None, 4.0]


def test_counts_are_those_of_the_table():
    data = labelled(TEXTS, LABELS, sources=["b", "a", "b", "b"])
    assert len(data) == data.info.documents == 4
    assert data.info.labelled == 3
    assert data.info.sources == {"a": 1, "b": 3}
    assert list(data.info.sources) == ["a", "b"]
    assert np.isnan(data.labels).tolist() == [False, False, True, False]
    assert np.isnan(data.floats("second_label")).all()


def test_a_nan_label_counts_as_none():
    assert labelled(["a", "b"], [float("nan"), 1.0]).info.labelled == 1


def test_the_fingerprint_does_not_depend_on_the_order():
    data = labelled(TEXTS, LABELS)
    turned = data.take(np.array([3, 1, 0, 2]))
    assert turned.texts() == ["four", "two", "one", "three"]
    assert turned.info.fingerprint == data.info.fingerprint
    assert len(data.info.fingerprint) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"texts": ["one", "two", "three", "fourth"]},
        {"labels": [1.0, 2.0, None, 5.0]},
        {"labels": [1.0, 2.0, 0.0, 4.0]},
        {"ids": ["a", "b", "c", "d"]},
        {"texts": TEXTS[:3], "labels": LABELS[:3]},
    ],
)
def test_the_fingerprint_changes_with_text_label_and_id(change):
    same = {"texts": TEXTS, "labels": LABELS}
    assert labelled(**(same | change)).info.fingerprint != labelled(TEXTS, LABELS).info.fingerprint


def test_labels_do_not_change_places_unnoticed():
    swapped = labelled(TEXTS, [2.0, 1.0, None, 4.0])
    assert swapped.info.fingerprint != labelled(TEXTS, LABELS).info.fingerprint


def test_take_by_mask_and_by_position_gives_a_whole_dataset():
    data = labelled(TEXTS, LABELS, sources=["a", "b", "a", "c"])
    few = data.take(~np.isnan(data.labels))
    assert few.strings("id").tolist() == ["doc0", "doc1", "doc3"]
    assert few.info.documents == few.info.labelled == 3
    assert few.info.sources == {"a": 1, "b": 1, "c": 1}
    assert few.info.fingerprint == fingerprint(few.table)
    assert data.take(np.array([2, 2])).texts() == ["three", "three"]
    assert len(data.take(np.zeros(4, dtype=bool))) == 0
    assert data.info.documents == 4


def test_concatenate_keeps_the_first_of_repeated_ids():
    one = labelled(["old", "two"], [1.0, 2.0], ids=["x", "b"])
    other = labelled(["new", "three"], [5.0, 3.0], ids=["x", "a"])
    both = concatenate([one, other])
    assert both.strings("id").tolist() == ["x", "b", "a"]
    assert both.texts() == ["old", "two", "three"]
    assert both.labels.tolist() == [1, 2, 3]
    assert both.info.documents == 3
    assert both.info.fingerprint == fingerprint(both.table)
    assert concatenate([other, one]).texts() == ["new", "three", "two"]


def test_concatenate_unites_what_is_known():
    bad = LeftOut(origin="file.csv#9", reason="bad_label", detail="label 'x' is not a number")
    one = labelled(["one"], [1.0], ids=["a"], left_out=[bad])
    other = labelled(["two"], [2.0], ids=["b"], left_out=[bad])
    one = build(one.table, one.info.model_copy(update={"licences": {"web": "MIT"}}))
    update = {"licences": {"book": "CC0"}, "labels_by": "people"}
    other = build(other.table, other.info.model_copy(update=update))
    info = concatenate([one, other, one]).info
    assert info.licences == {"web": "MIT", "book": "CC0"}
    assert info.labels_by == "a test; people"
    assert len(info.left_out) == 3
