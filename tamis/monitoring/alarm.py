"""When a window that differs rings: windows in a row, cool-down, and the budget of false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict

from tamis.monitoring.settings import MonitorSettings

NODES = 64
"""Of the quadrature over what chance made of the reference."""
RELIANCE = 0.9
"""Share of references beside which the budget is kept."""


class Past(BaseModel):
    """What came of an earlier window of the same model.

    Attributes:
        end: When the window ended.
        drifted: Whether it was found to differ.
        rang: Whether it raised the alarm.
        judged: Whether it had documents enough to be judged; if not, it neither continues a
            row of windows nor ends it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    end: AwareDatetime
    drifted: bool
    rang: bool = False
    judged: bool = True


class Ringing(BaseModel):
    """Whether a window rings.

    Attributes:
        rings: An alarm is raised.
        streak: Windows in a row that differed, this one included.
        reason: Why it rings or not, one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rings: bool
    streak: int
    reason: str


def rings(
    history: Sequence[Past], now: datetime, drifted: bool, settings: MonitorSettings
) -> Ringing:
    """Whether a window raises the alarm, after what came before it.

    Args:
        history: Earlier windows, in any order; those that do not end before ``now`` are not
            earlier, so that a window that is looked at again is judged as the first time.
        now: End of the window, with a time zone.
        drifted: Whether it was found to differ; a window that is too small was not.
        settings: ``consecutive`` and ``cooldown_hours``.
    """
    if not drifted:
        return Ringing(rings=False, streak=0, reason="The window was not found to differ.")
    past = sorted((p for p in history if p.end < now), key=lambda p: p.end)
    streak = 1
    for window in reversed([p for p in past if p.judged]):
        if not window.drifted:
            break
        streak += 1
    if streak < settings.consecutive:
        return Ringing(
            rings=False,
            streak=streak,
            reason=f"{streak} of {settings.consecutive} windows in a row that must differ.",
        )
    last = max((p.end for p in past if p.rang), default=None)
    cooldown = timedelta(hours=settings.cooldown_hours)
    if last is not None and now - last < cooldown:
        return Ringing(
            rings=False,
            streak=streak,
            reason=f"An alarm rang at {last:%Y-%m-%d %H:%M %Z}; the next one may ring from "
            f"{last + cooldown:%Y-%m-%d %H:%M %Z}.",
        )
    row = f"{streak} windows in a row differ" if streak > 1 else "The window differs"
    return Ringing(rings=True, streak=streak, reason=f"{row}; no alarm rang lately.")


def alarm_rate(level: float, reference: int, window: int, consecutive: int) -> float:
    """Share of unchanged windows at which so many in a row differ, each at a level.

    All windows are compared with one reference, so that they err together: of two differences of
    means from one reference of n documents, the correlation is m / (m + n). This is carried over
    to the tests' scores as equally correlated normal ones, and what chance made of the reference
    is integrated out. Cool-down only lowers the rate, and is left out.

    Args:
        level: Share of unchanged windows that are found to differ.
        reference: Documents of the reference (n).
        window: Documents of a window (m).
        consecutive: Windows in a row that must differ.
    """
    from scipy.stats import norm

    if consecutive == 1 or level <= 0 or level >= 1:
        return level
    shared = window / (window + reference)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    given = norm.sf((norm.isf(level) - np.sqrt(shared) * nodes) / np.sqrt(1 - shared))
    return float((given**consecutive * weights).sum() / weights.sum())


def window_level(settings: MonitorSettings, reference: int, window: int) -> float:
    """The level of one window's test at which the policy keeps the budget of false alarms.

    A level is a share of windows over all references that might have been drawn. A model has one,
    and windows beside it err together (see ``alarm_rate``). So the level is the one at which nine
    references of ten have no more false alarms than the budget, and all have so on average.

    Args:
        settings: Budget and windows in a row.
        reference: Documents of the reference.
        window: Documents of a window.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    budget, row = settings.drift_rate, settings.consecutive
    shared = max(window, 1) / (max(window, 1) + max(reference, 1))
    given = norm.isf(budget ** (1 / row))
    reliable = norm.sf(np.sqrt(shared) * norm.isf(1 - RELIANCE) + np.sqrt(1 - shared) * given)

    def excess(level: float) -> float:
        return alarm_rate(level, reference, max(window, 1), row) - budget

    average = budget if row == 1 else brentq(excess, budget, 0.999, xtol=1e-6)
    return float(min(reliable, average))
