import numpy as np
import pytest

from tamis.comparison import folds as module
from tamis.comparison.folds import Folds
from tamis.comparison.trial import task_of
from tamis.corpus.split import SIDES
from tamis.errors import DataError
from tamis.models.settings import RecurrentSettings
from tests.comparison.examples import documents, folds_of, linear_task, variant
from tests.tiny import BINARY, easy_set, labelled


@pytest.fixture(scope="module")
def data():
    return documents()


@pytest.fixture(scope="module")
def folds(data):
    return folds_of(linear_task(), data)


def test_no_fold_holds_a_test_document(folds):
    tested = set(folds.final.sides["test"])
    assert tested
    for fold in folds.folds:
        assert not tested & {name for side in SIDES for name in fold.sides[side]}


def test_every_other_document_is_in_the_test_of_one_fold(data, folds):
    developed = [name for side in ("train", "validation") for name in folds.final.sides[side]]
    assert len(folds.folds) == 3
    tests = [name for fold in folds.folds for name in fold.sides["test"]]
    assert sorted(tests) == sorted(developed)
    for fold in folds.folds:
        assert sorted(name for side in SIDES for name in fold.sides[side]) == sorted(developed)
        assert all(fold.sides.values())
    unlabelled = {"doc92", "doc93"}
    assert unlabelled <= set(data.strings("id").tolist())
    assert not unlabelled & set(tests)


def test_no_leak_group_is_in_two_folds_or_two_sides(folds):
    groups = folds.final.groups
    assert groups["doc0"] == groups["doc90"]  # one text on two pages
    assert groups["doc40"] == groups["doc91"]
    fold_of = {}
    for number, fold in enumerate(folds.folds):
        side_of = {}
        for side in SIDES:
            for name in fold.sides[side]:
                assert side_of.setdefault(groups[name], side) == side
        for name in fold.sides["test"]:
            assert fold_of.setdefault(groups[name], number) == number
    assert len(set(fold_of.values())) == 3


def test_folds_are_the_same_for_every_model_and_other_for_another_seed(data, folds):
    task = linear_task()
    other = variant(settings=RecurrentSettings(family="recurrent"), steps=("normalise",))
    assert folds_of(task_of(task, other), data) == folds
    assert folds_of(linear_task(seed=5), data) != folds


def test_labels_spread_evenly():
    data = easy_set(100, BINARY)
    folds = folds_of(linear_task(target=BINARY), data, 4)
    label = dict(zip(data.strings("id").tolist(), data.labels.tolist(), strict=True))
    for fold in folds.folds:
        names = fold.sides["test"]
        assert 0.3 < sum(label[name] for name in names) / len(names) < 0.7


def test_folds_are_kept_as_json(folds):
    assert Folds.model_validate_json(folds.model_dump_json()) == folds


@pytest.mark.parametrize(("size", "groups", "count"), [(12, 12, 2), (40, 6, 5), (40, 20, 20)])
def test_too_few_documents_are_told_in_a_sentence(size, groups, count):
    easy = easy_set(size)
    names = [f"page{row % groups}" for row in range(size)]
    data = labelled(easy.texts(), easy.labels.tolist(), groups=names)
    with pytest.raises(DataError, match=rf"are too few for {count} folds") as caught:
        folds_of(linear_task(), data, count)
    assert "\n" not in str(caught.value)


def test_a_fold_without_documents_is_too_few(data, monkeypatch):
    # Where classes and groups are uneven, a fold may be left empty.
    monkeypatch.setattr(module, "grouped_folds", lambda _, rows, folds: np.zeros(len(rows), int))
    with pytest.raises(DataError, match="are too few for 3 folds"):
        folds_of(linear_task(), data)
