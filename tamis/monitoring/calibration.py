"""How often windows that did not change ring, measured on windows drawn from the reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.errors import DataError
from tamis.monitoring.alarm import alarm_rate, window_level
from tamis.monitoring.detectors import Detector, names, pooled_detectors, statistics
from tamis.monitoring.permutation import (
    TAIL,
    Scale,
    combine,
    group_numbers,
    relabelled,
    scores,
    share_at_least,
)
from tamis.monitoring.samples import REFERENCE, Sample

if TYPE_CHECKING:
    from tamis.monitoring.settings import MonitorSettings

COVERAGE = 0.95
MOST = 20_000
"""Draws that a small budget may need."""
UPPER = 0.2
"""Share of the resampled windows whose scores are kept; below, no window differs."""


class Rate(BaseModel):
    """A share of windows, with its exact 95% interval (Clopper and Pearson 1934).

    Attributes:
        windows: Looked at.
        found: Of them, those that were found to differ.
        low: Lower end.
        high: Upper end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: int
    found: int
    low: float
    high: float

    @classmethod
    def of(cls, found: int, windows: int) -> Rate:
        """The share of ``found`` in ``windows``, of which there is at least one."""
        from scipy.stats import binomtest

        interval = binomtest(found, windows).proportion_ci(COVERAGE, method="exact")
        return cls(windows=windows, found=found, low=float(interval.low), high=float(interval.high))

    @property
    def value(self) -> float:
        """The share."""
        return self.found / self.windows

    def __str__(self) -> str:
        """Share and interval in percent."""
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%}) of {self.windows:,} windows"


class Bar(BaseModel):
    """From where on one test alone makes a window differ.

    Attributes:
        name: Of the test.
        unit: What its value is.
        expected: Its mean over windows that did not change.
        threshold: The bar.
        start: Where the largest tenth of the values begins.
        slope: By which a value above it is standardised (see ``permutation.Scale``); None where
            there are too few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str
    expected: float
    threshold: float
    start: float
    slope: float | None

    def score(self, value: float) -> float:
        """The standardised value of one in the tail; 0 of any other."""
        if self.slope is None or value <= self.start:
            return 0.0
        return (value - self.start) * self.slope - math.log(TAIL)


class Calibration(BaseModel):
    """What windows drawn from a reference say of the alarm.

    Attributes:
        reference: Documents of the reference.
        fingerprint: Of the reference's documents.
        window: Documents of the windows that are to be judged.
        drawn: Documents of the windows that were drawn, at most half of the reference.
        seed: Of all draws.
        budget: Share of unchanged windows that may ring.
        consecutive: Windows in a row that must differ.
        level: Of one window's p-value.
        by_groups: The windows that decide were drawn by whole groups.
        bars: Of each test.
        fresh: Windows found to differ, of windows drawn once more, as ``by_groups`` says.
        alarms: Rate of alarms that follows from ``fresh``: value, low, high.
        together: As ``fresh``, for windows drawn by whole groups of which nothing is known and
            which are judged as though their documents came one by one; None where no group has
            two documents.
        highest: The largest scores of resampled windows drawn by groups, in falling order; empty
            where they do not decide.
        resamples: Windows that ``highest`` is the top of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: int
    fingerprint: str
    window: int
    drawn: int
    seed: int
    budget: float
    consecutive: int
    level: float
    by_groups: bool
    bars: tuple[Bar, ...]
    fresh: Rate
    alarms: tuple[float, float, float]
    together: Rate | None
    highest: tuple[float, ...] = ()
    resamples: int

    @property
    def kept(self) -> bool:
        """Whether what was measured agrees with the budget."""
        return self.alarms[1] <= self.budget

    def p(self, values: Mapping[str, float]) -> float:
        """Share of windows drawn by groups that were as far off; 0 where they do not decide.

        Args:
            values: Of the tests, by name.
        """
        if not self.by_groups:
            return 0.0
        found = [bar.score(values[bar.name]) for bar in self.bars if bar.name in values]
        return _among(self.highest, self.resamples, max(found, default=0.0))

    def sentence(self) -> str:
        """The rate of false alarms beside the budget."""
        kept = "It agrees with the budget." if self.kept else "It exceeds the budget."
        return (
            f"On unchanged windows of {self.drawn:,} documents the alarm rings in "
            f"{self.alarms[0]:.2%} ({self.alarms[1]:.2%} to {self.alarms[2]:.2%}); "
            f"{self.budget:.2%} may. {kept}"
        )

    def to_html(self) -> str:
        """One self-contained page."""
        lead = self.sentence()
        facts = [
            ("documents of the reference", f"{self.reference:,}"),
            ("documents of a window", f"{self.window:,}"),
            ("documents of a window drawn", f"{self.drawn:,}"),
            ("windows in a row that must differ", str(self.consecutive)),
            ("a window differs at p of at most", f"{self.level:.4f}"),
            ("drawn by whole groups", "yes" if self.by_groups else "no"),
            ("found to differ, of fresh windows", str(self.fresh)),
            ("the same, if groups come whole and unnamed", str(self.together or "no groups")),
            ("seed", str(self.seed)),
            ("reference", self.fingerprint[:12]),
        ]
        bars = [(b.name, b.unit, f"{b.expected:.4g}", f"{b.threshold:.4g}") for b in self.bars]
        parts = [
            html.table(("", ""), facts),
            html.section("Tests", html.table(("test", "value is", "expected", "alarm from"), bars)),
        ]
        return html.page("Calibration of the alarm", html.join(parts), lead)


def calibrate(reference: Sample, settings: MonitorSettings, window: int, seed: int) -> Calibration:
    """Draw windows from the reference, find thresholds, and state how often fresh ones ring.

    A window is judged by relabelling it and the reference, which needs no threshold and is exact
    where documents come one by one. Here the same verdict is given on windows that did not
    change, each beside what is left of the reference. Windows have the real size, or half of
    the reference where it is larger: the p-value has the same law at every size.

    With ``settings.calibration.by_groups``, windows are drawn by whole groups (the block
    bootstrap's assumption; Davison and Hinkley 1997, section 8.2.3), which are farther from the
    reference than relabelled documents are; a window is then found to differ if its score is
    also among the highest of such windows. How often they would ring without that is stated in
    either case.

    Args:
        reference: Documents that the model was trained on.
        settings: Budget, windows in a row, numbers of draws.
        window: Documents of the windows that are to be judged.
        seed: Of all draws.

    Raises:
        DataError: The reference is too small, or there is nothing in it to compare.
    """
    reference = reference.at_most(REFERENCE, seed)
    count = len(reference)
    window = min(window, settings.max_documents)
    drawn = min(window, count // 2)
    if drawn < settings.min_documents:
        raise DataError(
            f"calibration: windows have {drawn} documents, at least {settings.min_documents} are "
            "needed, and a reference of twice as many"
        )
    rows = np.arange(count)
    rest = count - drawn
    # In this order, so that a column of the labels is a document of the reference.
    detectors = pooled_detectors(reference.take(rows[:rest]), reference.take(rows[rest:]))
    if not detectors:
        raise DataError("calibration: the reference has nothing that differs between documents")
    level = window_level(settings, count, window)
    rng = np.random.default_rng(seed)
    draws = settings.calibration
    # One law for all windows: its own chance must be small beside that of the resamples.
    permutations = max(3 * draws.permutations, min(math.ceil(10 / level), MOST))

    def values(number: int, groups: NDArray[np.intp] | None) -> NDArray[np.float64]:
        return statistics(detectors, relabelled(rest, drawn, groups, number, rng))

    null = values(permutations, None)
    combined = combine(null, level)
    scales = [Scale.of(column) for column in null.T]
    highest = scores(scales, null).max(1)

    def judged(found: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        score = scores(scales, found).max(1)
        return score, np.array([share_at_least(highest, one) for one in score])

    groups = _groups(reference)
    by_groups = draws.by_groups and groups is not None
    resamples = max(draws.resamples, min(math.ceil(3 / level), MOST))
    upper: list[float] = []
    together = None
    if groups is not None:
        score, p = judged(values(resamples, groups))
        together = Rate.of(int((p <= level).sum()), len(p))
        if by_groups:
            upper = np.sort(score)[::-1][: math.ceil(UPPER * resamples)].tolist()
    score, p = judged(values(draws.resamples, groups if by_groups else None))
    if upper:
        p = np.maximum(p, [_among(upper, resamples, one) for one in score])
    fresh = Rate.of(int((p <= level).sum()), len(p))
    low, value, high = (
        alarm_rate(rate, count, window, settings.consecutive)
        for rate in (fresh.low, fresh.value, fresh.high)
    )
    return Calibration(
        reference=count,
        fingerprint=fingerprint(reference),
        window=window,
        drawn=drawn,
        seed=seed,
        budget=settings.window_rate,
        consecutive=settings.consecutive,
        level=level,
        by_groups=by_groups,
        bars=_bars(detectors, null, combined.critical, scales, upper, level, resamples),
        fresh=fresh,
        alarms=(value, low, high),
        together=together,
        highest=tuple(upper),
        resamples=resamples,
    )


def fingerprint(reference: Sample) -> str:
    """sha256 over the reference's documents, in hexadecimal."""
    lines = "\n".join(sorted(reference.ids.tolist()))
    return hashlib.sha256(lines.encode("utf-8", "replace")).hexdigest()


def _among(highest: Sequence[float], resamples: int, score: float) -> float:
    """The p-value of a score among resampled ones, of which the highest are known."""
    found = int((np.asarray(highest) >= score).sum())
    if found == len(highest) < resamples:
        return 1.0
    return (1 + found) / (1 + resamples)


def _groups(reference: Sample) -> NDArray[np.intp] | None:
    """Numbers of the groups (n,), or None where each document is one."""
    group = group_numbers(reference.groups)
    return None if len(np.unique(group)) == len(group) else group


def _bars(
    detectors: list[Detector],
    null: NDArray[np.float64],
    critical: NDArray[np.float64],
    scales: list[Scale],
    upper: list[float],
    level: float,
    resamples: int,
) -> tuple[Bar, ...]:
    if upper:
        allowed = max(int(np.floor(level * (1 + resamples))), 1)
        bar = upper[min(allowed, len(upper)) - 1]
        critical = np.maximum(critical, [scale.value(bar) for scale in scales])
    return tuple(
        Bar(
            name=name,
            unit=unit,
            expected=float(null[:, j].mean()),
            threshold=float(critical[j]),
            start=scales[j].start,
            slope=scales[j].slope,
        )
        for j, (name, unit) in enumerate(names(detectors))
    )
