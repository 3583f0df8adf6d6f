import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import DataError
from tamis.evaluation.metrics import (
    HIGHER_IS_BETTER,
    best_f1_threshold,
    compute,
    gain,
    metric_names,
)
from tamis.evaluation.resampled import compute_resampled
from tests.evaluation.examples import BINARY, CLASSES, ORDINAL


def test_known_values():
    labels = np.array([0.0, 1.0, 3.0, 4.0, 5.0])
    scores = np.array([0.5, 3.5, 2.0, 4.0, 4.5])
    found = compute(ORDINAL, labels, scores, 3.0)
    assert found["spearman"] == pytest.approx(0.9)
    assert found["mae"] == pytest.approx((0.5 + 2.5 + 1.0 + 0.0 + 0.5) / 5)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    # Ranked: kept, kept, dropped, kept, dropped.
    assert found["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_a_score_on_the_threshold_is_kept():
    found = compute(BINARY, np.array([0.0, 1.0]), np.array([0.2, 0.7]), 0.7)
    assert found["recall"] == 1.0


def test_a_threshold_for_each_document():
    labels, scores = np.array([1.0, 1.0, 0.0]), np.array([0.4, 0.6, 0.6])
    found = compute(BINARY, labels, scores, np.array([0.3, 0.5, 0.7]))
    assert found["accuracy"] == 1.0


@pytest.mark.parametrize("target", [BINARY, CLASSES])
def test_labels_without_order_have_no_rank_figures(target):
    found = compute(target, np.array([0.0, 1.0]), np.array([0.1, 0.9]), 0.5)
    assert set(found) == set(metric_names(target))
    assert not {"spearman", "pearson", "mae"} & set(found)
    assert found["f1"] == 1.0


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0.0, 3.0, 5.0], [2.0, 2.0, 2.0]),
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0]),
        ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]),
        ([4.0], [4.0]),
    ],
)
def test_degenerate_input_is_never_nan(labels, scores):
    found = compute(ORDINAL, np.array(labels), np.array(scores), 10.0)
    assert np.isfinite(list(found.values())).all()
    if len(set(labels)) == 1 or len(set(scores)) == 1:
        assert found["spearman"] == found["pearson"] == 0.0
    if max(labels) < 3:
        assert found["average_precision"] == found["f1"] == 0.0


@pytest.mark.parametrize(
    ("labels", "scores"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [np.nan, 1.0])]
)
def test_unusable_input_is_refused(labels, scores):
    with pytest.raises(DataError):
        compute(ORDINAL, np.array(labels), np.array(scores), 3.0)


def test_gain_is_positive_when_better():
    for metric, higher in HIGHER_IS_BETTER.items():
        assert (gain(metric, 0.8, 0.5) > 0) == higher
    assert gain("mae", 0.4, 0.9) == pytest.approx(0.5)


def test_threshold_lies_between_the_scores_it_separates():
    kept = np.array([False, False, True, True])
    assert best_f1_threshold(kept, np.array([1.0, 2.0, 3.0, 4.0])) == 2.5


def test_threshold_of_equal_f1_keeps_less():
    # Keeping the top one or the top three both give an F1 of 2/3.
    kept, scores = np.array([True, False, False, True]), np.array([4.0, 3.0, 2.0, 1.0])
    threshold = best_f1_threshold(kept, scores)
    assert threshold == 3.5


def test_threshold_fallbacks():
    constant = np.full(4, 2.0)
    assert best_f1_threshold(np.array([True, False, True, False]), constant) == 2.0
    nothing = best_f1_threshold(np.zeros(3, dtype=bool), np.array([1.0, 2.0, 5.0]))
    assert nothing > 5.0
    with pytest.raises(DataError):
        best_f1_threshold(np.array([], dtype=bool), np.array([]))


def test_threshold_between_neighbouring_floats_still_separates():
    low = 0.3
    high = float(np.nextafter(low, 1))
    threshold = best_f1_threshold(np.array([False, True]), np.array([low, high]))
    assert low < threshold <= high


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=25))
def test_no_threshold_beats_the_one_found(rows):
    kept = np.array([k for k, _ in rows])
    scores = np.array([float(s) for _, s in rows])

    def f1(threshold):
        decided = scores >= threshold
        return 2 * (kept & decided).sum() / max((kept.sum() + decided.sum()), 1)

    best = f1(best_f1_threshold(kept, scores))
    assert best == pytest.approx(max(f1(t) for t in np.arange(-0.5, 7.5, 0.5)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 10), st.integers(0, 3)),
        min_size=2,
        max_size=20,
    )
)
def test_weighted_figures_equal_those_of_the_documents_drawn(rows):
    labels, scores, times = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    scores = scores / 2
    if not times.any():
        times[0] = 1
    weights = np.stack([times, np.ones_like(times)])
    for target in (ORDINAL, BINARY):
        own = labels if target is ORDINAL else (labels > 2).astype(float)
        found = compute_resampled(target, own, scores, 2.2, weights)
        for row, repeats in enumerate(weights.astype(int)):
            drawn = compute(target, np.repeat(own, repeats), np.repeat(scores, repeats), 2.2)
            for metric, value in drawn.items():
                assert found[metric][row] == pytest.approx(value, abs=1e-9), metric
