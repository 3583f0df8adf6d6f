import numpy as np
import pytest

from tamis.errors import DataError
from tamis.evaluation.bootstrap import difference, interval, resample, sample
from tests.evaluation.examples import BINARY, ORDINAL, noisy


def correlated(rng, n, rho=0.7):
    x = rng.normal(size=n)
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=n)
    # A monotone map onto the scale changes no rank.
    return tuple(5 / (1 + np.exp(-values)) for values in (x, y))


def names(n, size=1):
    return [f"g{i // size}" for i in range(n)]


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman of a bivariate normal
    hits, trials = 0, 200
    for trial in range(trials):
        labels, scores = correlated(rng, 150)
        drawn = resample(names(150), seed=trial, count=300)
        found = interval(sample(ORDINAL, labels, scores, 2.5, drawn)["spearman"])
        hits += found.low <= truth <= found.high
    assert 0.89 <= hits / trials <= 0.99


def test_interval_covers_where_documents_come_in_groups_and_the_naive_one_does_not():
    rng = np.random.default_rng(1)
    clustered = naive = 0
    trials, groups, size = 150, 40, 5
    for trial in range(trials):
        # Whole groups are right or wrong together, 70% of them right.
        right = np.repeat(rng.random(groups) < 0.7, size)
        labels = np.ones(groups * size)
        scores = np.where(right, 0.9, 0.1)
        for by, membership in (("g", names(groups * size, size)), ("d", names(groups * size))):
            drawn = resample(membership, seed=trial, count=300)
            found = interval(sample(BINARY, labels, scores, 0.5, drawn)["accuracy"])
            covered = found.low <= 0.7 <= found.high
            clustered += by == "g" and covered
            naive += by == "d" and covered
    assert clustered / trials >= 0.87
    assert naive / trials <= 0.75


def test_duplicated_documents_in_one_group_do_not_narrow_the_interval():
    labels, scores = correlated(np.random.default_rng(2), 60)
    alone = sample(ORDINAL, labels, scores, 2.5, resample(names(60), 0))["spearman"]
    labels, scores = np.repeat(labels, 4), np.repeat(scores, 4)
    grouped = sample(ORDINAL, labels, scores, 2.5, resample(names(240, 4), 0))["spearman"]
    naive = sample(ORDINAL, labels, scores, 2.5, resample(names(240), 0))["spearman"]

    def width(sampled):
        return interval(sampled).high - interval(sampled).low

    assert width(grouped) == pytest.approx(width(alone), rel=0.15)
    assert width(grouped) > 1.6 * width(naive)
    assert interval(grouped).groups == 60
    assert interval(grouped).n == 240


def test_paired_difference_is_tighter_than_the_two_intervals():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 6, 150).astype(float)
    shared = noisy(labels, 1.2, 4)
    drawn = resample(names(150), 0)
    a = sample(ORDINAL, labels, shared + rng.normal(0, 0.1, 150), 3.0, drawn)["spearman"]
    b = sample(ORDINAL, labels, shared + rng.normal(0, 0.1, 150), 3.0, drawn)["spearman"]
    paired = difference(a, b)
    unpaired = np.hypot(*((interval(s).high - interval(s).low) for s in (a, b)))
    assert paired.high - paired.low < 0.5 * unpaired
    assert paired.value == pytest.approx(a.value - b.value)


def test_difference_is_a_gain_in_both_directions():
    labels = np.random.default_rng(5).integers(0, 6, 100).astype(float)
    drawn = resample(names(100), 0)
    good = sample(ORDINAL, labels, noisy(labels, 0.3, 1), 3.0, drawn)
    bad = sample(ORDINAL, labels, noisy(labels, 2.0, 2), 3.0, drawn)
    for metric in ("spearman", "mae"):
        assert difference(good[metric], bad[metric]).low > 0
        assert difference(bad[metric], good[metric]).high < 0
        assert difference(good[metric], good[metric]).value == 0


def test_only_comparable_samples_are_subtracted():
    labels = np.arange(6.0) % 6
    found = sample(ORDINAL, labels, labels, 3.0, resample(names(6), 0))
    fewer = sample(ORDINAL, labels, labels, 3.0, resample(names(6), 0, count=10))
    with pytest.raises(ValueError, match="paired"):
        difference(found["mae"], found["f1"])
    with pytest.raises(ValueError, match="paired"):
        difference(found["mae"], fewer["mae"])


def test_seed_decides_and_order_does_not():
    labels, scores = correlated(np.random.default_rng(6), 80)
    groups = names(80, 2)

    def found(order, seed):
        chosen = [groups[i] for i in order]
        return interval(
            sample(ORDINAL, labels[order], scores[order], 2.5, resample(chosen, seed))["spearman"]
        )

    forward, shuffled = np.arange(80), np.random.default_rng(7).permutation(80)
    assert found(forward, 1) == found(forward, 1)
    assert found(forward, 1) != found(forward, 2)
    a, b = found(forward, 1), found(shuffled, 1)
    assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=1e-12)


def test_blocks_do_not_change_the_figures(monkeypatch):
    labels, scores = correlated(np.random.default_rng(8), 50)
    drawn = resample(names(50), 0, count=100)
    whole = sample(ORDINAL, labels, scores, 2.5, drawn)
    monkeypatch.setattr("tamis.evaluation.bootstrap.CELLS_AT_ONCE", 350)
    blocks = sample(ORDINAL, labels, scores, 2.5, drawn)
    for metric in whole:
        assert np.allclose(whole[metric].draws, blocks[metric].draws)


def test_unusable_input_is_refused():
    with pytest.raises(DataError):
        resample([], 0)
    with pytest.raises(DataError, match="groups"):
        sample(ORDINAL, np.ones(3), np.ones(3), 1.0, resample(names(4), 0))
