"""Whether a window's documents differ from a reference's: tests, one p-value, what they found."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.decision import Reason
from tamis.monitoring.alarm import window_level
from tamis.monitoring.calibration import Calibration
from tamis.monitoring.detectors import Detector, names, pooled_detectors, statistics
from tamis.monitoring.permutation import (
    Combined,
    combine,
    come_whole,
    group_numbers,
    observed_labels,
    one_of_each,
    relabelled,
)
from tamis.monitoring.samples import REFERENCE, Sample
from tamis.monitoring.settings import MonitorSettings

MOST_PERMUTATIONS = 50_000
PLAINLY = 5.0
"""Above so many levels a p-value is not computed more exactly."""


class TestResult(BaseModel):
    """One test.

    Attributes:
        name: Of the test.
        unit: What ``value`` is.
        value: On the window.
        expected: Its mean where the window does not differ.
        spread: Its standard deviation there.
        threshold: From where on it would alone make the window differ.
        p: p-value of this test alone.
        adjusted: p-value corrected for all the tests (Westfall and Young 1993, section 2.3).
    """

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    unit: str
    value: float
    expected: float
    spread: float
    threshold: float
    p: float
    adjusted: float

    @property
    def deviations(self) -> float:
        """How many standard deviations above what is expected."""
        return (self.value - self.expected) / self.spread if self.spread > 0 else 0.0


class DriftReport(BaseModel):
    """A window beside the reference.

    Attributes:
        reference: Documents of the reference looked at.
        window: Documents of the window looked at.
        compared: Of reference and window, those behind the tests.
        tests: Each test; empty where there was nothing to compare.
        p: Of all tests as one, calibrated.
        level: Below or at which ``p`` makes the window differ.
        score: The largest standardised value of all tests.
        drifted: The window differs.
        grouped: Documents came by whole groups, and one of each was compared.
        permutations: Relabellings behind ``p``.
        reasons: Conditions with figures; of those after ``window``, one that did not pass is a
            test that found the window to differ.
        sources: Documents of the window by source.
        languages: Documents of the window by language.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: int
    window: int
    compared: tuple[int, int]
    tests: tuple[TestResult, ...]
    p: float
    level: float
    score: float
    drifted: bool
    grouped: bool
    permutations: int
    reasons: tuple[Reason, ...]
    sources: dict[str, int]
    languages: dict[str, int]

    def _of_each(self) -> str:
        if not self.grouped:
            return ""
        return " (one of each group, {1:,} beside {0:,})".format(*self.compared)

    def to_html(self) -> str:
        """One self-contained page."""
        verdict = "The window differs." if self.drifted else "The window was not found to differ."
        lead = (
            f"{verdict} {self.window:,} documents beside {self.reference:,}"
            f"{self._of_each()}: p = "
            f"{shown(self.p)}, alarm from {shown(self.level)}."
        )
        tests = [
            (t.name, t.unit, f"{t.value:.4g}", f"{t.expected:.4g}", f"{t.threshold:.4g}",
             f"{t.deviations:+.1f}", shown(t.p), shown(t.adjusted))
            for t in self.tests
        ]  # fmt: skip
        head = ("test", "value is", "found", "expected", "threshold", "deviations", "p",
                "p of all tests")  # fmt: skip
        rows = [("held" if r.passed else "ALARM", r.check, r.detail) for r in self.reasons]
        parts = [
            html.table(("", "test", "found"), rows),
            html.section("Tests", html.table(head, tests)),
            html.section(
                "Sources", html.table(("source", "documents"), list(self.sources.items()))
            ),
            html.section(
                "Languages", html.table(("language", "documents"), list(self.languages.items()))
            ),
        ]
        return html.page("Drift", html.join(parts), lead)


def drift_between(
    reference: Sample,
    window: Sample,
    settings: MonitorSettings,
    seed: int,
    calibration: Calibration | None = None,
) -> DriftReport:
    """Compare a window with the reference by all tests, as one.

    The p-value is that of the largest standardised value of the tests among random relabellings
    of the pool, which is exact for a window of any size if its documents come one by one from the
    reference's population. Where they came by whole groups and the window says so, one document
    of each group is compared, as groups then are what came one by one. A calibration on windows
    drawn by groups that the window does not name raises the p-value to the share of such windows
    that were as far off.

    Which sources documents have is reported and no test: it is a name that a caller gives.

    Args:
        reference: Documents that the model was trained on.
        window: New documents.
        settings: Budget of false alarms, sizes, permutations.
        seed: Of samples and relabellings.
        calibration: What ``calibrate`` found for the reference.
    """
    sources, languages = _counts(window.sources), _counts(window.languages)
    reference = reference.at_most(REFERENCE, seed)
    if calibration is not None and calibration.by_groups:
        # Scores grow with the pool: theirs are of windows beside the rest of the reference.
        kept = calibration.reference - calibration.drawn
        if kept < len(reference):
            pages = group_numbers(reference.groups)
            row = relabelled(len(reference) - kept, kept, pages, 1, np.random.default_rng(seed))[0]
            reference = reference.take(np.flatnonzero(row))
    window = window.at_most(settings.max_documents, seed + 1)
    n, m = len(reference), len(window)
    enough = Reason(
        check="window",
        passed=m >= settings.min_documents,
        detail=f"{m} documents; at least {settings.min_documents} are needed to judge",
    )
    grouped = come_whole(reference.groups, window.groups)
    if grouped:
        rng = np.random.default_rng(seed)
        reference = reference.take(one_of_each(reference.groups, rng))
        window = window.take(one_of_each(window.groups, rng))
    compared = (len(reference), len(window))
    level = window_level(settings, *compared)
    detectors = pooled_detectors(reference, window) if min(compared) >= 2 else []
    if not detectors:
        nothing = Reason(check="tests", passed=True, detail="there is nothing to compare")
        return DriftReport(
            reference=n, window=m, compared=compared, tests=(), p=1.0, level=level, score=0.0,
            drifted=False, grouped=grouped, permutations=0, reasons=(enough, nothing),
            sources=sources, languages=languages,
        )  # fmt: skip
    values, combined = permuted(detectors, *compared, settings, level, seed)
    tests = _results(detectors, values, combined)
    p, bar = combined.p, ""
    if calibration is not None and calibration.by_groups and not grouped:
        drawn = calibration.p({test.name: test.value for test in tests})
        p = max(p, drawn)
        bar = f"; of windows drawn by groups {drawn:.1%} are as far off"
    drifted = enough.passed and p <= level
    reasons = [enough, *(_reason(test, level, p) for test in tests)]
    reasons.append(
        Reason(
            check="all tests",
            passed=p > level,
            detail=f"p = {shown(p)} of all tests as one ({len(values) - 1:,} relabellings"
            f"{bar}); alarm from {shown(level)}",
        )
    )
    return DriftReport(
        reference=n, window=m, compared=compared, tests=tests, p=p, level=level,
        score=combined.score, drifted=drifted, grouped=grouped, permutations=len(values) - 1,
        reasons=tuple(reasons), sources=sources, languages=languages,
    )  # fmt: skip


def permuted(
    detectors: list[Detector],
    reference: int,
    window: int,
    settings: MonitorSettings,
    level: float,
    seed: int,
) -> tuple[NDArray[np.float64], Combined]:
    """Values of the observed labelling and of relabellings, and what they come to.

    There are as many as the settings say, and more where a small level needs them and the
    window is not plainly unchanged.
    """
    rng = np.random.default_rng(seed)
    labels = relabelled(reference, window, None, settings.calibration.permutations, rng)
    values = statistics(detectors, np.concatenate([observed_labels(reference, window), labels]))
    combined = combine(values, level)
    needed = min(math.ceil(3 / level), MOST_PERMUTATIONS)
    if len(labels) < needed and combined.p <= max(PLAINLY * level, 5 / len(values)):
        while len(values) <= needed:
            more = min(needed + 1 - len(values), 2_000)
            labels = relabelled(reference, window, None, more, rng)
            values = np.concatenate([values, statistics(detectors, labels)])
        combined = combine(values, level)
    return values, combined


def shown(p: float) -> str:
    """A p-value as reports have it."""
    return f"{p:.3f}" if p >= 0.01 else f"{p:.2g}"


def _results(
    detectors: list[Detector], values: NDArray[np.float64], combined: Combined
) -> tuple[TestResult, ...]:
    others = values[1:]
    return tuple(
        TestResult(
            name=name,
            unit=unit,
            value=float(values[0, j]),
            expected=float(others[:, j].mean()),
            spread=float(others[:, j].std()),
            threshold=float(combined.critical[j]),
            p=float(combined.alone[j]),
            adjusted=float(combined.adjusted[j]),
        )
        for j, (name, unit) in enumerate(names(detectors))
    )


def _reason(test: TestResult, level: float, p: float) -> Reason:
    found = test.adjusted <= level and p <= level
    return Reason(
        check=test.name,
        passed=not found,
        detail=f"{test.value:.4g} ({test.unit}), expected {test.expected:.4g}, "
        f"{test.deviations:+.1f} standard deviations; alarm from {test.threshold:.4g}; "
        f"p = {shown(test.adjusted)} among all tests",
    )


def _counts(values: NDArray[np.str_]) -> dict[str, int]:
    return dict(Counter(values.tolist()).most_common())
