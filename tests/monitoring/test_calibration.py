from dataclasses import replace

import numpy as np
import pytest

from tamis.errors import DataError
from tamis.monitoring.calibration import Calibration, Rate, calibrate, fingerprint
from tamis.monitoring.drift import drift_between
from tamis.monitoring.settings import MonitorSettings
from tests.monitoring.drift_samples import sample

BUDGET = {"alarms": 9, "days": 91}


def settings(**calibration):
    return MonitorSettings(
        false_alarms=BUDGET, calibration={"resamples": 300, "permutations": 299, **calibration}
    )


def pages(groups, seed, size=8):
    """Documents of a page are near each other."""
    rng = np.random.default_rng(seed)
    s = sample(groups * size, seed, words=False)
    centre = np.repeat(rng.normal(size=(groups, 8)), size, axis=0)
    vectors = (centre + rng.normal(size=centre.shape)).astype(np.float32)
    return replace(
        s, vectors=vectors, groups=np.repeat([f"{seed}-{g}" for g in range(groups)], size)
    )


def test_windows_that_come_one_by_one_keep_the_budget():
    found = calibrate(sample(240, 1), settings(), 80, 0)
    assert (found.window, found.drawn, found.reference) == (80, 80, 240)
    assert found.level <= found.budget == pytest.approx(9 / 91)
    assert found.kept
    assert found.fresh.windows == 300
    assert found.fresh.value <= 0.1
    assert found.fresh.low <= found.level <= found.fresh.high
    assert found.together is None
    assert found.p({"words": 1e9}) == 0


def test_pages_that_come_whole_ring_too_often_and_with_calibration_do_not():
    reference = pages(60, 1)
    naive = calibrate(reference, settings(), 100, 0)
    assert naive.together.low > 2 * naive.budget
    assert naive.highest == ()
    careful = calibrate(reference, settings(by_groups=True), 100, 0)
    assert careful.by_groups
    assert careful.together == naive.together
    assert careful.fresh.low <= careful.level
    assert careful.fresh.value < naive.together.value / 3
    for loose, strict in zip(naive.bars, careful.bars, strict=True):
        assert strict.threshold >= loose.threshold


def test_a_verdict_takes_the_calibration_in_where_the_window_names_no_pages():
    config = settings(by_groups=True)
    whole = pages(75, 1)
    rows = np.arange(len(whole))
    reference, window = whole.take(rows[:480]), whole.take(rows[480:580])
    window = replace(window, groups=window.ids)
    calibration = calibrate(reference, config, 100, 0)
    strict = drift_between(reference, window, config, 0, calibration)
    assert drift_between(reference, window, config, 0).drifted
    assert strict.p > strict.level
    assert not strict.drifted
    far = replace(window, vectors=np.tile(-window.vectors.mean(0), (len(window), 1)),
                  scores=window.scores + 9)  # fmt: skip
    assert drift_between(reference, far, config, 0, calibration).drifted


def test_windows_larger_than_half_of_the_reference_are_drawn_smaller_and_it_is_said():
    found = calibrate(sample(160, 1, words=False), settings(), 500, 0)
    assert (found.window, found.drawn) == (500, 80)
    assert "80" in found.to_html()


def test_a_seed_gives_the_same_artifact_and_it_can_be_kept():
    found = calibrate(sample(160, 1, words=False), settings(), 60, 5)
    assert calibrate(sample(160, 1, words=False), settings(), 60, 5) == found
    assert Calibration.model_validate_json(found.model_dump_json()) == found
    assert "Calibration" in found.to_html()


def test_a_reference_too_small_or_without_differences_is_refused():
    with pytest.raises(DataError, match="at least 50"):
        calibrate(sample(80, 1), settings(), 60, 0)
    same = sample(200, 1).take(np.zeros(200, dtype=np.intp))
    with pytest.raises(DataError, match="nothing that differs"):
        calibrate(replace(same, scores=np.zeros(200)), settings(), 60, 0)


def test_the_fingerprint_is_of_the_documents_in_any_order():
    s = sample(20, 1)
    assert fingerprint(s) == fingerprint(s.take(np.arange(20)[::-1]))
    assert fingerprint(s) != fingerprint(s.take(np.arange(19)))


@pytest.mark.parametrize(("found", "low", "high"), [(0, 0, 0.0362), (10, 0.049, 0.1762)])
def test_intervals_are_those_of_clopper_and_pearson(found, low, high):
    rate = Rate.of(found, 100)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=1e-3)


def test_p_values_of_resampled_windows_come_from_the_test_that_is_farthest_off():
    found = calibrate(pages(40, 1), settings(by_groups=True), 60, 0)
    quiet = {bar.name: bar.start for bar in found.bars}
    assert found.p(quiet) == 1
    bar = found.bars[0]
    # Below the 49 that are farther off, and above all others.
    value = bar.start + (found.highest[49] + np.log(0.1)) / bar.slope + 1e-9
    assert found.p({**quiet, bar.name: value}) == pytest.approx(50 / (1 + found.resamples))
    assert found.p({**quiet, bar.name: value * 100}) == pytest.approx(1 / (1 + found.resamples))
    assert found.p({**quiet, "another": 1e9}) == 1
