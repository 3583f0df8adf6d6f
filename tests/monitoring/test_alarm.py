from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from tamis.monitoring.alarm import Past, alarm_rate, rings, window_level
from tamis.monitoring.settings import MonitorSettings

NOW = datetime(2026, 3, 10, tzinfo=UTC)


def past(days, drifted=True, rang=False, judged=True):
    return Past(end=NOW - timedelta(days=days), drifted=drifted, rang=rang, judged=judged)


def test_a_window_that_does_not_differ_never_rings():
    found = rings([past(1), past(2)], NOW, False, MonitorSettings(consecutive=1))
    assert not found.rings
    assert found.streak == 0


def test_it_rings_at_the_window_that_completes_the_row_in_whatever_order_the_past_is():
    settings = MonitorSettings(consecutive=3)
    assert not rings([], NOW, True, settings).rings
    assert rings([past(1)], NOW, True, settings).streak == 2
    assert not rings([past(1)], NOW, True, settings).rings
    assert rings([past(2), past(1)], NOW, True, settings).rings
    assert rings([past(1), past(2)], NOW, True, settings) == rings(
        [past(2), past(1)], NOW, True, settings
    )


def test_a_window_that_did_not_differ_ends_the_row():
    settings = MonitorSettings(consecutive=2)
    assert not rings([past(2), past(1, drifted=False)], NOW, True, settings).rings
    assert rings([past(2, drifted=False), past(1)], NOW, True, settings).rings


def test_a_window_too_small_to_be_judged_neither_continues_a_row_nor_ends_it():
    settings = MonitorSettings(consecutive=2)
    small = past(1, drifted=False, judged=False)
    assert rings([past(2), small], NOW, True, settings).rings
    assert not rings([small], NOW, True, settings).rings


def test_after_an_alarm_it_is_quiet_until_the_cooldown_is_over():
    settings = MonitorSettings(cooldown_hours=72)
    assert not rings([past(1, rang=True)], NOW, True, settings).rings
    assert not rings([past(2.99, rang=True)], NOW, True, settings).rings
    quiet = rings([past(1, rang=True)], NOW, True, settings)
    assert "2026-03-12 00:00" in quiet.reason
    assert rings([past(3, rang=True)], NOW, True, settings).rings
    assert rings([past(1, rang=True)], NOW, True, MonitorSettings(cooldown_hours=0)).rings


def test_a_window_looked_at_again_is_judged_by_what_came_before_it_only():
    settings = MonitorSettings(consecutive=2)
    itself, later = past(0, rang=True), past(-1, rang=True)
    before = [past(1)]
    assert rings([*before, itself, later], NOW, True, settings) == rings(
        before, NOW, True, settings
    )
    assert not rings([itself, later], NOW, True, settings).rings


def test_a_past_needs_a_time_zone():
    with pytest.raises(ValidationError):
        Past(end=datetime(2026, 1, 1), drifted=True)


@pytest.mark.parametrize(("reference", "window"), [(1_800, 200), (1_800, 2_000)])
@pytest.mark.parametrize("consecutive", [1, 2, 3])
def test_alarm_rate_is_that_of_simulated_windows(reference, window, consecutive):
    """References and windows with normal means, the mean of the reference shared by a row."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(200_000, 1)) / np.sqrt(reference)
    windows = rng.normal(size=(200_000, consecutive)) / np.sqrt(window)
    z = (windows - mean) / np.sqrt(1 / reference + 1 / window)
    simulated = (z > 0.8416).all(1).mean()
    found = alarm_rate(0.2, reference, window, consecutive)
    assert found == pytest.approx(simulated, rel=0.06)


@pytest.mark.parametrize("consecutive", [1, 2, 4])
@pytest.mark.parametrize("window", [50, 500, 20_000])
def test_at_its_level_the_policy_keeps_the_budget(consecutive, window):
    settings = MonitorSettings(consecutive=consecutive)
    level = window_level(settings, 1_800, window)
    assert 0 < level < 0.5
    rate = alarm_rate(level, 1_800, window, consecutive)
    assert rate <= settings.drift_rate * 1.001


def test_nine_references_of_ten_keep_the_budget_by_themselves():
    settings = MonitorSettings()
    rng = np.random.default_rng(1)
    n, m = 1_800, 500
    level = window_level(settings, n, m)
    from scipy.stats import norm

    mean = rng.normal(size=100_000) / np.sqrt(n)
    bar = norm.isf(level) * np.sqrt(1 / n + 1 / m)
    rates = norm.sf((bar + mean) * np.sqrt(m))
    assert (rates <= settings.drift_rate).mean() == pytest.approx(0.9, abs=0.01)


def test_more_windows_in_a_row_allow_a_higher_level_for_each():
    levels = [window_level(MonitorSettings(consecutive=c), 1_800, 500) for c in (1, 2, 3)]
    assert levels == sorted(levels)
    assert levels[1] > 3 * levels[0]
