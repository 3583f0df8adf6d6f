"""The band: what it decides, how its path narrows, and how often what it promises holds."""

import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom, binomtest

from tamis.config import validate
from tamis.errors import ConfigError, DataError
from tamis.scoring.band import (
    Band,
    Calibration,
    Promise,
    Sample,
    band_path,
    calibrate,
    measure,
    needed,
)

THRESHOLD = 3.0
PROMISE = Promise()


def draw(chance, n, share=0.12, noise=0.4, flips=0.0):
    """Documents with encoder scores around the threshold, and a student that sees them dimly."""
    cut = NormalDist().inv_cdf(1 - share)
    scores = THRESHOLD + chance.normal(size=n) - cut
    student = scores + noise * chance.normal(size=n)
    runtime = scores + flips * chance.normal(size=n)
    return Sample(student, scores >= THRESHOLD, runtime >= THRESHOLD)


def subset(sample, rows):
    return Sample(sample.student[rows], sample.reference[rows], sample.encoder[rows])


def rates(band, sample):
    """Recall and precision, counted plainly."""
    kept = band.keep(sample.student, sample.encoder)
    right = (kept & sample.reference).sum()
    return right / sample.reference.sum(), right / kept.sum()


def test_promises_are_shares_and_nothing_else():
    assert validate(Promise, {"recall": 0.9}, "x") == Promise(recall=0.9)
    for wrong in ({"recall": 1.0}, {"precision": 0.0}, {"confidence": "0.9"}, {"power": 0.9}):
        with pytest.raises(ConfigError):
            validate(Promise, wrong, "x")


def test_a_band_drops_below_keeps_from_its_edge_and_asks_in_between():
    band = Band(low=1.0, high=3.0)
    student = np.array([0.9, 1.0, 2.0, 2.999, 3.0, np.nan, np.inf, -np.inf])
    assert band.sent(student).tolist() == [False, True, True, True, False, True, True, True]
    encoder = np.array([True, True, False, True, False, True, False, True])
    expected = [False, True, False, True, True, True, False, True]
    assert band.keep(student, encoder).tolist() == expected
    assert band.dropped(student).nonzero()[0].tolist() == [0]
    assert band.admitted(student).nonzero()[0].tolist() == [4]
    # Single precision does not move a score over an edge that it lies below.
    edge = Band(low=0.1, high=0.1)
    assert edge.admitted(np.array([np.nextafter(np.float32(0.1), np.float32(0))])).tolist() == [
        False
    ]


def test_a_band_that_sends_everything_is_plain_json():
    band = Band()
    assert band.model_dump_json() == '{"low":null,"high":null}'
    assert Band.model_validate_json(band.model_dump_json()) == band
    assert band.sends_everything
    assert band.sent([-1e308, 0.0, 1e308]).all()
    assert not Band(low=2.0).sends_everything
    assert not Band(low=2.0, high=2.0).sent([1.9, 2.0, 2.1]).any()
    for wrong in ({"low": 3.0, "high": 2.0}, {"low": math.inf}, {"low": math.nan}, {"mid": 1.0}):
        with pytest.raises(ValidationError):
            Band(**wrong)


@pytest.mark.parametrize(
    "columns",
    [
        ([1.0, 2.0], [True], [True, False]),
        ([1.0], [True], []),
        ([[1.0]], [[True]], [[True]]),
        ([1.0], [0.7], [True]),
    ],
)
def test_a_sample_that_cannot_be_is_refused(columns):
    with pytest.raises(DataError):
        Sample(*map(np.array, columns))


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 300),
    noise=st.sampled_from([0.0, 0.3, 3.0]),
    digits=st.sampled_from([0, 1, 9]),
    odd=st.sampled_from([np.nan, np.inf, -np.inf]),
    steps=st.sampled_from([10, 50, 200]),
    share=st.sampled_from([0.0001, 0.12, 0.9999]),
)
@settings(max_examples=150, deadline=None)
def test_paths_are_nested_hold_the_threshold_and_begin_with_everything(
    seed, n, noise, digits, odd, steps, share
):
    chance = np.random.default_rng(seed)
    sample = draw(chance, n, share, noise, flips=0.1)
    student = sample.student.round(digits)
    student[: n // 20] = odd
    sample = Sample(student, sample.reference, sample.encoder)
    path = band_path(sample, PROMISE, THRESHOLD, steps)
    assert path[0] == Band()
    assert len(path) <= steps
    for before, after in pairwise(path):
        (low, high), (next_low, next_high) = before.edges, after.edges
        assert low <= next_low <= THRESHOLD <= next_high <= high
        assert before != after
    finite = np.isfinite(student)
    if sample.reference[finite].any() and not sample.reference[finite].all():
        assert path[-1] == Band(low=THRESHOLD, high=THRESHOLD)
    else:
        assert len(path) == 1
    # What is counted along the path is what the bands decide.
    found = calibrate(path, sample, Promise(recall=0.001, precision=0.001, confidence=0.001))
    band = found.band or path[0]
    kept = band.keep(student, sample.encoder)
    assert found.kept == kept.sum()
    assert found.sent is None or found.sent.value == pytest.approx(band.sent(student).mean())
    assert found.recall is None or found.recall.value == pytest.approx(
        kept[sample.reference].mean()
    )


@pytest.mark.parametrize(("recall", "precision"), [(0.95, 0.95), (0.9, 0.98), (0.99, 0.8)])
@pytest.mark.parametrize("flips", [0.0, 0.01])
def test_a_path_spends_both_risks_together(recall, precision, flips):
    chance = np.random.default_rng(3)
    promise = Promise(recall=recall, precision=precision)
    sample = draw(chance, 200_000, noise=0.5, flips=flips)
    path = band_path(sample, promise, THRESHOLD)
    found = np.array([rates(band, sample) for band in path])
    spent = (1 - found) / (1 - np.array([recall, precision]))
    # The first band that breaks either promise is where the other one is used up as well.
    at = int((spent > 1).any(axis=1).argmax())
    # (Roughly so where the encoder's mistakes and the student's fall on the same documents.)
    assert (0.8 if flips else 0.95) < spent[at].min() <= spent[at].max() < 1.05
    steps = np.diff(spent[1:], axis=0)
    near = (spent[1:-1] > 0.5).all(axis=1) & (spent[1:-1] < 1).all(axis=1)
    assert 0 < steps[near].max() < 0.03


def test_paths_are_the_same_every_time_and_refuse_nonsense():
    sample = draw(np.random.default_rng(0), 2_000)
    path = band_path(sample, PROMISE, THRESHOLD)
    assert path == band_path(sample, PROMISE, THRESHOLD)
    shuffled = subset(sample, np.random.default_rng(1).permutation(2_000))
    assert path == band_path(shuffled, PROMISE, THRESHOLD)
    for threshold, steps in ((math.nan, 200), (THRESHOLD, 1)):
        with pytest.raises(ValueError):
            band_path(sample, PROMISE, threshold, steps)
    with pytest.raises(ValueError):
        calibrate([], sample, PROMISE)


def test_calibration_stops_at_the_first_band_that_is_not_certified():
    chance = np.random.default_rng(4)
    path = band_path(draw(chance, 5_000), PROMISE, THRESHOLD)
    sample = draw(chance, 4_000)
    found = calibrate(path, sample, PROMISE)

    def p_values(band):
        kept = band.keep(sample.student, sample.encoder)
        chosen, right = int(sample.reference.sum()), int((kept & sample.reference).sum())
        missed, wrong = chosen - right, int(kept.sum()) - right
        return binom.cdf(missed, chosen, 0.05), binom.cdf(wrong, kept.sum(), 0.05)

    at = path.index(found.band)
    assert found.tested == at + 2
    assert all(max(p_values(band)) <= 0.05 for band in path[: at + 1])
    assert max(p_values(path[at + 1])) > 0.05
    assert (found.p_recall, found.p_precision) == pytest.approx(p_values(found.band))
    # Bands after the first failure are not looked at, however well they do.
    bad = Band(low=THRESHOLD + 1, high=THRESHOLD + 1)
    again = calibrate([*path[: at + 1], bad, path[at]], sample, PROMISE)
    assert (again.band, again.tested) == (found.band, at + 2)
    assert calibrate([bad, path[at]], sample, PROMISE).band is None
    only = calibrate(path[: at + 1], sample, PROMISE)
    assert (only.band, only.tested) == (found.band, at + 1)
    # The report survives JSON, and says what stands behind it.
    assert Calibration.model_validate_json(found.model_dump_json()) == found
    assert f"Band {at + 1} of {len(path)}" in found.reason
    assert "independent random draws" in found.assumptions


def test_figures_have_exact_intervals():
    sample = draw(np.random.default_rng(5), 1_000, flips=0.05)
    band = Band(low=2.5, high=3.4)
    found = measure(band, sample, confidence=0.9)
    kept = band.keep(sample.student, sample.encoder)
    right = int((kept & sample.reference).sum())
    either = int((kept | sample.reference).sum())
    pairs = (
        (found.recall, right, int(sample.reference.sum())),
        (found.precision, right, int(kept.sum())),
        (found.sent, int(band.sent(sample.student).sum()), 1_000),
    )
    for figure, hits, n in pairs:
        expected = binomtest(hits, n).proportion_ci(0.9, "exact")
        assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
        assert (figure.value, figure.n) == (pytest.approx(hits / n), n)
    recall, precision = found.recall.value, found.precision.value
    assert found.f1.value == pytest.approx(2 * recall * precision / (recall + precision))
    ends = binomtest(right, either).proportion_ci(0.9, "exact")
    assert found.f1.low == pytest.approx(2 * ends.low / (1 + ends.low), abs=1e-6)
    assert found.f1.high == pytest.approx(2 * ends.high / (1 + ends.high), abs=1e-6)
    nothing = measure(Band(), Sample(*(np.array([], dtype=kind) for kind in (float, bool, bool))))
    assert (nothing.documents, nothing.recall, nothing.f1, nothing.sent) == (0, None, None, None)


@pytest.mark.parametrize(
    ("share", "confidence", "least"), [(0.95, 0.95, 59), (0.9, 0.95, 29), (0.5, 0.75, 2)]
)
def test_too_few_kept_documents_certify_nothing(share, confidence, least):
    assert needed(share, confidence) == least
    promise = Promise(recall=share, precision=share, confidence=confidence)
    for chosen in (least - 1, least):
        kept = np.arange(least * 10) < chosen
        found = calibrate([Band()], Sample(kept * 5.0, kept, kept), promise)
        assert (found.band is None) == (chosen < least)
        if found.band is None:
            assert "reference keeps" in found.reason
            assert f"at least {least}" in found.reason
            assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_a_precision_that_too_few_kept_documents_stand_behind_is_not_certified():
    reference = np.arange(200) < 100
    encoder = np.arange(200) < 40
    sample = Sample(reference * 5.0, reference, encoder)
    found = calibrate([Band()], sample, Promise(recall=0.1))
    assert found.band is None
    assert "the cascade keeps 40" in found.reason
    assert "at least 59" in found.reason


def test_an_encoder_that_decides_unlike_the_reference_is_not_certified():
    chance = np.random.default_rng(6)
    path = band_path(draw(chance, 5_000), PROMISE, THRESHOLD)
    sample = draw(chance, 4_000)
    forgetful = sample.encoder & (chance.random(4_000) < 0.93)
    found = calibrate(path, Sample(sample.student, sample.reference, forgetful), PROMISE)
    assert (found.band, found.tested) == (None, 1)
    assert found.p_recall > 0.05 >= found.p_precision
    assert "Even with every document sent" in found.reason
    assert f"recall is {found.recall}" in found.reason
    assert f"with 0.95 promised (p = {found.p_recall:.3g})" in found.reason
    assert "precision" not in found.reason
    # One that adds a few documents everywhere: fine where it is asked less often, but asked first.
    generous = sample.encoder | (chance.random(4_000) < 0.02)
    found = calibrate(path, Sample(sample.student, sample.reference, generous), PROMISE)
    assert found.band is None
    assert "precision is" in found.reason
    assert "recall" not in found.reason


DRAWS = 500


@pytest.mark.parametrize(
    ("share", "noise", "flips", "n", "confidence"),
    [
        (0.05, 0.2, 0.0, 4_000, 0.95),
        (0.12, 0.4, 0.0, 2_000, 0.95),
        (0.12, 0.8, 0.0, 4_000, 0.8),
        (0.30, 0.4, 0.0, 1_000, 0.95),
        (0.12, 0.3, 0.015, 4_000, 0.95),
        (0.30, 0.6, 0.03, 1_000, 0.9),
    ],
)
def test_the_promise_holds_at_least_as_often_as_promised(share, noise, flips, n, confidence):
    chance = np.random.default_rng(int(1000 * (share + noise + flips)))
    promise = Promise(confidence=confidence)
    population = draw(chance, 200_000, share, noise, flips)
    path = band_path(draw(chance, 3_000, share, noise, flips), promise, THRESHOLD)
    truth = np.array([rates(band, population) for band in path])
    fine = dict(zip(path, (truth >= 0.95).all(axis=1), strict=True))
    assert not all(fine.values())  # there is something to get wrong
    held, narrowed, naive_held = 0, 0, 0
    for _ in range(DRAWS):
        sample = subset(population, chance.integers(len(population), size=n))
        band = calibrate(path, sample, promise).band
        held += band is None or fine[band]
        narrowed += band is not None and not band.sends_everything
        naive_held += fine[naive(path, sample)]
    margin = 3 * math.sqrt(confidence * (1 - confidence) / DRAWS)
    assert held / DRAWS >= confidence - margin
    assert narrowed / DRAWS > 0.8  # and not by promising nothing
    assert naive_held / DRAWS < confidence - margin


def test_the_promise_is_not_kept_by_waste_where_one_risk_alone_is_at_stake():
    """Where precision is not in question, bands fail about as often as the confidence allows."""
    chance = np.random.default_rng(8)
    promise = Promise(precision=0.5)
    population = draw(chance, 200_000)
    path = band_path(draw(chance, 20_000), promise, THRESHOLD, 1_000)
    recalls = np.array([rates(band, population)[0] for band in path])
    fine = dict(zip(path, recalls >= 0.95, strict=True))
    found = [
        calibrate(path, subset(population, chance.integers(200_000, size=4_000)), promise).band
        for _ in range(DRAWS)
    ]
    failed = np.mean([not fine[band] for band in found])
    assert 0.01 < failed < 0.05 + 3 * math.sqrt(0.05 * 0.95 / DRAWS)


def naive(path, sample):
    """The narrowest band that does well enough on the sample itself."""
    order = np.argsort(sample.student)
    scores = sample.student[order]
    at = np.searchsorted(scores, np.array([band.edges for band in path]).T)
    encoder, both, wanted = (
        np.concatenate([[0], flags[order].cumsum()])
        for flags in (sample.encoder, sample.encoder & sample.reference, sample.reference)
    )
    kept = len(scores) - at[1] + encoder[at[1]] - encoder[at[0]]
    right = wanted[-1] - wanted[at[1]] + both[at[1]] - both[at[0]]
    enough = (right >= 0.95 * wanted[-1]) & (right >= 0.95 * kept)
    return path[int(enough.nonzero()[0][-1])] if enough.any() else path[0]
