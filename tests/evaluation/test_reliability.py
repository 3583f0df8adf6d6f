import numpy as np
import pytest

from tamis.evaluation.figures import Reliability
from tamis.evaluation.reliability import reliability
from tests.evaluation.examples import BINARY, CLASSES, ORDINAL


def alone(n):
    return [f"page{i}" for i in range(n)]


def honest(n, seed):
    """Probabilities, and outcomes that come true as often as they say."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, n)
    return (rng.random(n) < scores).astype(float), scores


def test_bins_hold_means_of_neighbouring_scores():
    scores = np.random.default_rng(0).permutation(np.linspace(0, 5, 100))
    labels = np.clip(scores - 0.5, 0, 5)
    found = reliability(ORDINAL, labels, scores, alone(100))
    assert [part.label.n for part in found.bins] == [20] * 5
    ordered = np.sort(scores).reshape(5, 20)
    np.testing.assert_allclose([part.score for part in found.bins], ordered.mean(axis=1))
    np.testing.assert_allclose(
        [part.label.value for part in found.bins], np.clip(ordered - 0.5, 0, 5).mean(axis=1)
    )
    assert found.n == 100
    assert found.gap == pytest.approx((scores - labels).mean())


def test_a_gap_either_way_counts():
    scores = np.repeat([1.0, 4.0], 40)
    found = reliability(ORDINAL, np.repeat([2.0, 3.0], 40), scores, alone(80))
    assert found.gap == pytest.approx(1.0)
    assert len(found.bins) == 2  # equal scores are never parted


def test_the_gap_before_is_told_where_something_was_calibrated():
    scores = np.linspace(1, 4, 80)
    found = reliability(ORDINAL, scores, scores, alone(80), scores - 1)
    assert found.gap == pytest.approx(0)
    assert found.raw_gap == pytest.approx(1)
    assert "0.000 apart on average, 1.000 before calibration; on 80 documents" in found.sentence()
    for raw in (scores.copy(), None):
        same = reliability(ORDINAL, scores, scores, alone(80), raw)
        assert same.raw_gap is None
        assert "before" not in same.sentence()
    assert Reliability.model_validate_json(found.model_dump_json()) == found


def test_scores_that_are_right_have_the_gap_that_chance_gives():
    """Over many sets: the expected gap is neither promised too small nor too large."""
    found = [reliability(BINARY, *honest(400, seed), alone(400)) for seed in range(60)]
    gap, chance = (np.mean([getattr(f, name) for f in found]) for name in ("gap", "chance"))
    assert gap == pytest.approx(chance, rel=0.1)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        scores = rng.uniform(1, 4, 300)
        labels = scores + rng.normal(0, 0.7, 300)
        found.append(reliability(ORDINAL, labels, scores, alone(300)))
    gap, chance = (np.mean([getattr(f, name) for f in found]) for name in ("gap", "chance"))
    assert gap == pytest.approx(chance, rel=0.15)


@pytest.mark.parametrize("kind", ["ordinal", "binary"])
def test_intervals_hold_the_truth_as_often_as_they_say(kind):
    inside = []
    rng = np.random.default_rng(0)
    for seed in range(80):
        if kind == "binary":
            labels, scores = honest(200, seed)
            bins = reliability(BINARY, labels, scores, alone(200)).bins
        else:
            scores = rng.uniform(1, 4, 200)
            labels = scores + rng.normal(0, 0.7, 200)
            bins = reliability(ORDINAL, labels, scores, alone(200)).bins
        inside += [part.label.low <= part.score <= part.label.high for part in bins]
    assert 0.92 <= np.mean(inside) <= 0.98


def test_a_bin_where_all_are_kept_is_not_certain():
    labels, scores = np.repeat([0.0, 1.0], 20), np.linspace(0, 1, 40)
    low, high = reliability(BINARY, labels, scores, alone(40)).bins
    assert (low.label.value, high.label.value) == (0, 1)
    assert low.label.low == 0
    assert high.label.high == 1
    assert low.label.high == pytest.approx(1 - high.label.low)
    assert 0.1 < low.label.high < 0.25  # Wilson, of 0 in 20: 0.161


def test_copies_of_a_page_are_one_observation():
    labels, scores = honest(60, 0)
    one = reliability(BINARY, labels, scores, alone(60))
    copies = [np.repeat(values, 5) for values in (labels, scores)]
    five = reliability(BINARY, *copies, np.repeat(alone(60), 5).tolist())
    assert {part.label.groups for part in one.bins} == {20}
    widths = [np.mean([part.label.high - part.label.low for part in f.bins]) for f in (one, five)]
    assert widths[1] > 0.9 * widths[0]
    assert five.chance > 0.9 * one.chance


def test_classes_are_kept_or_not():
    labels = np.tile([0.0, 1.0, 2.0, 2.0], 20)
    found = reliability(CLASSES, labels, np.full(80, 0.75), alone(80))
    assert found.gap == pytest.approx(0)
    assert found.bins[0].label.value == 0.75


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_handful_of_documents_is_one_bin(n):
    found = reliability(ORDINAL, np.arange(n) % 6.0, np.linspace(0, 5, n), alone(n))
    assert len(found.bins) == 1
    assert np.isfinite([found.gap, found.chance, found.bins[0].label.high]).all()
