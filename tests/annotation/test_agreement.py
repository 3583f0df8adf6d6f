"""Agreement of two readings."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tamis.annotation.agreement import Pair, agreement, kappas_of
from tamis.target import ClassesTarget
from tests.annotation.rounds import ORDINAL

CLASSES = ClassesTarget(kind="classes", classes=("a", "b", "c"), keep=("a",))


def pairs(first, second):
    return [
        Pair(sha256=f"{i}", id=f"doc{i}", text="t" * 1_000, first=a, second=b)
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]


def test_nothing_read_twice_is_no_agreement():
    assert agreement([], ORDINAL, 0) is None


def test_figures_of_readings_that_mostly_agree():
    first = [0, 1, 2, 3, 4, 5, 2, 2, 3, 1] * 4
    second = [0, 1, 2, 3, 4, 1, 2, 3, 3, 1] * 4
    found = agreement(pairs(first, second), ORDINAL, 0)
    assert found.kappa.value == pytest.approx(cohen_kappa_score(first, second, weights="quadratic"))
    assert found.kappa.low < found.kappa.value < found.kappa.high <= 1
    assert found.exact.value == 0.8 and found.exact.low < 0.8 < found.exact.high
    assert found.largest_gap == 4 and found.differing[0].id == "doc5"
    assert len(found.differing) == 8 and len(found.differing[0].text) == 300
    assert found.table[5][1] == 4 and np.sum(found.table) == 40


def test_over_classes_every_gap_is_the_same():
    first, second = list("aabbccabca"), list("aabbccbbcc")
    found = agreement(pairs(first, second), CLASSES, 0)
    assert found.weights == "none" and found.largest_gap == 1
    assert found.kappa.value == pytest.approx(cohen_kappa_score(first, second))


def test_readings_that_are_all_the_same_have_no_kappa():
    found = agreement(pairs([3] * 9, [3] * 9), ORDINAL, 0)
    assert found.kappa is None and found.exact.value == 1


@pytest.mark.parametrize("quadratic", [True, False])
def test_draws_are_what_sklearn_gives_under_weights(quadratic):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 40), rng.integers(0, 6, 40)
    draws = rng.integers(0, 4, (5, 40)).astype(float)
    weights = "quadratic" if quadratic else None
    expected = [
        cohen_kappa_score(first, second, labels=range(6), weights=weights, sample_weight=w)
        for w in draws
    ]
    assert kappas_of(first, second, 6, quadratic, draws) == pytest.approx(expected)
