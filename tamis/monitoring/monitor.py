"""Look at a window: drift, performance, quality, health, what is new; one verdict with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from tamis.decision import Reason
from tamis.monitoring.alarm import Past, rings
from tamis.monitoring.drift import DriftReport, drift_between
from tamis.monitoring.health import Health
from tamis.monitoring.monitored import MonitorWindow
from tamis.monitoring.novelty import find_novelty
from tamis.monitoring.performance import measure_performance
from tamis.monitoring.pictures import beside
from tamis.monitoring.profile import ReferenceProfile
from tamis.monitoring.quality import Quality, measure_quality
from tamis.monitoring.report import Looks, MonitorReport
from tamis.monitoring.samples import Sample, Strings
from tamis.monitoring.settings import Severity
from tamis.task import MetricName, Task

if TYPE_CHECKING:
    from tamis.monitoring.calibration import Calibration

_NAMES = 8
_LONGEST_BAR = 1_000_000


def monitor_window(
    task: Task,
    profile: ReferenceProfile,
    window: MonitorWindow,
    calibration: Calibration | None,
    history: Sequence[Past],
    health: Health | None,
    now: datetime,
    version: str = "",
) -> MonitorReport:
    """Judge a window of documents.

    Args:
        task: Its target, seed and ``monitor`` section.
        profile: Of the model.
        window: The documents.
        calibration: Thresholds that keep the budget of false alarms; without it the tests take
            their own, and the report says so.
        history: Earlier windows of the same model, oldest first, without this one.
        health: How the service did, if somebody asked.
        now: When the window is looked at.
        version: Of the model, for the report.
    """
    settings = task.monitor
    metric: MetricName = task.metric
    drift = _drift(task, profile, window, calibration)
    performance = measure_performance(
        task.target,
        metric,
        profile,
        window.labelled,
        window.sample,
        settings.performance,
        settings.label_rate,
        task.seed,
    )
    quality = measure_quality(window, profile.current(), settings.quality)
    differs = performance.alarming or (drift is not None and drift.drifted)
    ringing = rings(history, window.end or now, differs, settings)
    few = len(window) < settings.min_documents
    reasons = [
        *(drift.reasons if drift is not None else (_nothing(len(window)),)),
        *performance.reasons(),
        *quality.reasons(),
        *(health.reasons() if health is not None else ()),
        Reason(check="alarm", passed=not ringing.rings, detail=ringing.reason),
    ]
    limited = few or calibration is None
    return MonitorReport(
        task=task.name,
        version=version,
        at=now,
        start=window.start,
        end=window.end,
        source=window.source,
        documents=len(window),
        fingerprint=window.fingerprint,
        counts=dict(window.counts),
        texts=window.texts is not None,
        calibrated=calibration is not None,
        drift=drift,
        performance=performance,
        quality=quality,
        health=health,
        novelty=find_novelty(window, profile, task.seed),
        looks=looks_of(window, profile),
        ringing=ringing,
        severity=_severity(ringing.rings, differs, quality, health, limited),
        reasons=tuple(reasons),
    )


def _nothing(documents: int) -> Reason:
    told = f"{documents:,} documents: there is nothing to compare"
    return Reason(check="window", passed=False, detail=told)


def _drift(
    task: Task,
    profile: ReferenceProfile,
    window: MonitorWindow,
    calibration: Calibration | None,
) -> DriftReport | None:
    reference = profile.current()
    if not len(window) or not len(reference):
        return None
    mine, theirs = _comparable(window.sample, reference), _comparable(reference, window.sample)
    return drift_between(theirs, mine, task.monitor, task.seed, calibration)


def _comparable(side: Sample, other: Sample) -> Sample:
    """A sample without the lengths and languages that nothing is known of on the other side."""
    lengths, languages = (other.characters > 0).any(), (other.languages != "").any()
    return replace(
        side,
        characters=side.characters if lengths else np.zeros(len(side), dtype=np.int64),
        languages=side.languages if languages else np.full(len(side), "", dtype=np.str_),
    )


def _severity(
    rang: bool, differs: bool, quality: Quality, health: Health | None, limited: bool
) -> Severity:
    if rang:
        return "alarm"
    if differs or quality.broken or (health is not None and health.ill):
        return "warning"
    return "notice" if limited else "ok"


def looks_of(window: MonitorWindow, profile: ReferenceProfile) -> Looks:
    """Distributions of a window and of its reference."""
    mine, theirs = window.sample, profile.current()
    scored = bool(np.isfinite(mine.scores).any())
    lengths = [side.characters[side.characters > 0] for side in (mine, theirs)]
    both = np.concatenate(lengths)
    low, high = profile.scale
    characters = None
    if len(lengths[0]):
        longest = float(min(both.max(), _LONGEST_BAR))
        least = float(max(1, min(both.min(), longest)))
        characters = beside(lengths[0], lengths[1], least, longest, logarithmic=True)
    return Looks(
        scores=beside(mine.scores, theirs.scores, low, high) if scored else None,
        characters=characters,
        languages=_mix(mine.languages, theirs.languages),
        sources=_mix(mine.sources, theirs.sources),
        kept=(_kept(mine.scores, profile.threshold), _kept(theirs.scores, profile.threshold)),
        threshold=profile.threshold,
    )


def _mix(mine: Strings, theirs: Strings) -> dict[str, tuple[float, float | None]]:
    """Shares by name of the most frequent ones; what is not known has no name."""
    sides = [_shares(side) for side in (mine, theirs)]
    known = bool(sides[1])
    names = sorted(
        set(sides[0]) | set(sides[1]),
        key=lambda name: (-max(side.get(name, 0) for side in sides), name),
    )
    return {
        name[:80]: (sides[0].get(name, 0.0), sides[1].get(name, 0.0) if known else None)
        for name in names[:_NAMES]
    }


def _shares(names: Strings) -> dict[str, float]:
    values, counts = np.unique(names, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if set(found) <= {""}:
        return {}
    return {name or "unknown": count / len(names) for name, count in found.items()}


def _kept(scores: np.ndarray[tuple[int], np.dtype[np.float64]], threshold: float) -> float | None:
    found = scores[np.isfinite(scores)]
    return float((found >= threshold).mean()) if len(found) else None
