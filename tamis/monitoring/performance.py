"""How well a model did in a window: on labels that came, and estimated where none came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.decision import Reason
from tamis.evaluation.bootstrap import Interval, resample, sample
from tamis.evaluation.metrics import HIGHER_IS_BETTER, compute
from tamis.evaluation.resampled import compute_resampled
from tamis.monitoring.monitored import Labelled
from tamis.monitoring.profile import ReferenceProfile
from tamis.monitoring.samples import Sample
from tamis.monitoring.settings import PerformanceLimits
from tamis.target import Target
from tamis.task import MetricName

Floats = NDArray[np.float64]

RESAMPLES = 1_000
_ESTIMATES = 100
_ESTIMATED = 1_000
_NEIGHBOURS = 25
_FEWEST = 30
_GROUPS = 10
"""Of fewer groups no resampling says anything."""
_DECISION: tuple[MetricName, ...] = ("precision", "recall", "f1")


class Performance(BaseModel):
    """How well a model did in a window.

    Attributes:
        metric: Metric of record.
        labels: Labelled documents.
        needed: As many it takes for a verdict.
        measured: The figure on them with its 95% interval; None where it cannot be measured.
        reference: The same figure on documents behind the model that it was not trained on.
        reference_labels: How many those are.
        drop: How far the figure is below the reference's (positive: worse); the interval is
            the one that decides, both samples resampled.
        level: One-sided level of that interval's lower end, and of the shift's ends.
        loss: How far the whole interval must be below for a verdict.
        shift: Mean label less the label that scores promised, in points of the scale (share of
            the kept where labels have no order); the interval is the one that decides.
        worse: The metric of record has fallen.
        shifted: Labels mean something else than they did.
        selected_p: p-value of labelled documents being a random part of the window, by score.
        estimated: Without labels: what figures to expect if scores still mean what they did.
        expected: The same figures on the documents behind the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: MetricName
    labels: int
    needed: int
    measured: Interval | None = None
    reference: Interval | None = None
    reference_labels: int = 0
    drop: Interval | None = None
    level: float
    loss: float
    shift: Interval | None = None
    worse: bool = False
    shifted: bool = False
    selected_p: float | None = None
    estimated: dict[str, Interval] = {}
    expected: dict[str, float] = {}

    @property
    def alarming(self) -> bool:
        """Whether the labels say that the model no longer does what it did."""
        return self.worse or self.shifted

    def reasons(self) -> tuple[Reason, ...]:
        """What the labels say; without enough of them that, and nothing else."""
        if self.labels < self.needed:
            told = f"{self.labels:,} labels; at least {self.needed:,} are needed to judge"
            return (Reason(check="labels", passed=True, detail=told),)
        found = []
        if self.measured and self.reference and self.drop:
            told = (
                f"{self.metric} {self.measured} on {self.labels:,} labels; reference "
                f"{self.reference}; alarm when the whole interval of the loss "
                f"({self.drop.low:+.3f} to {self.drop.high:+.3f}) is above {self.loss:g}"
            )
            found.append(Reason(check="performance", passed=not self.worse, detail=told))
        if self.shift:
            told = (
                f"labels are {self.shift.value:+.3f} ({self.shift.low:+.3f} to "
                f"{self.shift.high:+.3f}) from what scores promised"
            )
            found.append(Reason(check="label shift", passed=not self.shifted, detail=told))
        if not found:
            told = f"{self.labels:,} labels, but nothing to compare them with"
            found.append(Reason(check="labels", passed=True, detail=told))
        return tuple(found)


@dataclass(frozen=True)
class Known:
    """Documents behind the model with labels, and scores of models that had not seen them."""

    scores: Floats
    labels: Floats
    groups: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)


def known_of(profile: ReferenceProfile) -> Known:
    """The labelled documents of a profile whose score is a held-out one."""
    sound = np.isfinite(profile.labels) & np.isfinite(profile.sample.scores)
    return Known(profile.sample.scores[sound], profile.labels[sound], profile.sample.groups[sound])


def measure_performance(
    target: Target,
    metric: MetricName,
    profile: ReferenceProfile,
    labelled: Labelled,
    window: Sample,
    limits: PerformanceLimits,
    rate: float,
    seed: int,
) -> Performance:
    """Judge a model by labels that came for a window, and estimate what they would say.

    Two things can ring. The metric of record has fallen by more than ``limits.loss``; and labels
    differ from what scores promised by more than ``limits.loss`` of the scale, which finds labels
    that changed their meaning though the order of the documents stayed. Either takes a whole
    interval, whose level is such that both together use a tenth of the budget of false alarms.
    Intervals are of the cluster bootstrap over both samples: the percentile one or the normal one,
    whichever is wider, for percentiles so far out are few draws.

    Clients label what they choose to. ``selected_p`` says whether labelled documents have other
    scores than the window's; nothing can be said of what a score does not tell.

    Args:
        target: What is predicted.
        metric: Metric of record.
        profile: Of the model.
        labelled: Labels that came.
        window: All documents.
        limits: Fewest labels, and the loss.
        rate: Share of unchanged windows that may ring for their labels; half of it for each check.
        seed: Of the resamples.
    """
    level = rate / 2
    known = known_of(profile)
    base = Performance(
        metric=metric,
        labels=len(labelled),
        needed=limits.min_labels,
        level=level,
        loss=limits.loss,
        reference_labels=len(known),
    )
    few = len(np.unique(labelled.groups)) < _GROUPS
    update: dict[str, object] = {"expected": _expected(target, known, profile.threshold)}
    if len(known) >= _FEWEST:
        update["estimated"] = _estimate(target, metric, known, window, profile.threshold, seed)
    if few:
        return base.model_copy(update=update)
    if len(labelled) >= min(_FEWEST, limits.min_labels) and _tells(target, metric, labelled.labels):
        update |= _compare(target, metric, profile, known, labelled, level, seed)
        update["selected_p"] = _selected(labelled.scores, window.scores)
        drop = cast("Interval | None", update.get("drop"))
        enough = len(labelled) >= limits.min_labels
        update["worse"] = bool(enough and drop is not None and drop.low > limits.loss)
    if len(labelled) >= limits.min_labels and len(known) >= _FEWEST:
        shift = _shift(target, known, labelled, level, seed)
        least = limits.loss * (_width(target) if target.kind == "ordinal" else 1)
        update |= {"shift": shift, "shifted": shift.low > least or shift.high < -least}
    return base.model_copy(update=update)


def _width(target: Target) -> float:
    low, high = target.scale
    return high - low


def _tells(target: Target, metric: MetricName, labels: Floats) -> bool:
    """Whether a figure on such labels is one: of labels that are all alike none is."""
    if metric in ("spearman", "pearson"):
        return bool(np.ptp(labels) > 0)
    kept = target.kept(labels)
    return metric == "mae" or bool(kept.any() and not kept.all())


def _compare(
    target: Target,
    metric: MetricName,
    profile: ReferenceProfile,
    known: Known,
    labelled: Labelled,
    level: float,
    seed: int,
) -> dict[str, object]:
    """The figure in the window, on the reference, and how far they are apart."""
    measured, draws = _figure(
        target, metric, labelled.labels, labelled.scores, labelled.groups, profile.threshold, seed
    )
    found: dict[str, object] = {"measured": measured}
    stated = profile.performance.get(metric)
    if len(known) >= _FEWEST and _tells(target, metric, known.labels):
        reference, others = _figure(
            target, metric, known.labels, known.scores, known.groups, profile.threshold, seed + 1
        )
    elif stated is not None:
        reference, spread = stated, (stated.high - stated.low) / (2 * 1.96)
        others = np.random.default_rng(seed).normal(stated.value, spread, RESAMPLES)
    else:
        return found
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    value = sign * (reference.value - measured.value)
    low, high = _ends(value, sign * (others - draws), level)
    return found | {
        "reference": reference,
        "drop": Interval(value=value, low=low, high=high, n=measured.n, groups=measured.groups),
    }


def _figure(
    target: Target,
    metric: MetricName,
    labels: Floats,
    scores: Floats,
    groups: NDArray[np.str_],
    threshold: float,
    seed: int,
) -> tuple[Interval, Floats]:
    drawn = resample(groups.tolist(), seed, RESAMPLES)
    found = sample(target, labels, scores, threshold, drawn)[metric]
    low, high = np.quantile(found.draws, [0.025, 0.975])
    interval = Interval(
        value=found.value, low=float(low), high=float(high), n=found.n, groups=found.groups
    )
    return interval, found.draws


def _ends(value: float, draws: Floats, level: float) -> tuple[float, float]:
    """Ends of an interval with ``level`` outside of each."""
    from scipy.stats import norm

    low, high = np.quantile(draws, [level, 1 - level])
    reach = float(norm.ppf(1 - level) * draws.std())
    return min(float(low), value - reach), max(float(high), value + reach)


def _truth(target: Target, labels: Floats) -> Floats:
    """Labels as numbers to take means of."""
    return labels if target.kind == "ordinal" else target.kept(labels).astype(np.float64)


def _shift(target: Target, known: Known, labelled: Labelled, level: float, seed: int) -> Interval:
    """Mean label less the label that scores promised, by isotonic regression on the reference."""
    from sklearn.isotonic import IsotonicRegression

    truth, came = _truth(target, known.labels), _truth(target, labelled.labels)
    ours = resample(known.groups.tolist(), seed, RESAMPLES // 5)
    theirs = resample(labelled.groups.tolist(), seed + 1, RESAMPLES // 5)
    order = np.argsort(labelled.scores)
    scores, came, members = labelled.scores[order], came[order], theirs.membership[order]

    def promised(weights: Floats | None) -> Floats:
        fit = IsotonicRegression(out_of_bounds="clip")
        if weights is not None and not weights.any():
            weights = None
        return np.asarray(
            fit.fit(known.scores, truth, sample_weight=weights).predict(scores), dtype=np.float64
        )

    value = float((came - promised(None)).mean())
    draws = []
    for mine, other in zip(ours.counts, theirs.counts, strict=True):
        gaps = came - promised(mine[ours.membership].astype(np.float64))
        weights = other[members].astype(np.float64)
        draws.append(float(np.average(gaps, weights=weights)))
    low, high = _ends(value, np.array(draws), level)
    return Interval(value=value, low=low, high=high, n=len(came), groups=theirs.groups)


def _selected(labelled: Floats, window: Floats) -> float | None:
    from scipy.stats import ks_2samp

    found = window[np.isfinite(window)]
    return float(ks_2samp(labelled, found).pvalue) if len(found) > 1 else None


def _expected(target: Target, known: Known, threshold: float) -> dict[str, float]:
    """The figures of ``_estimate`` on the documents behind the model."""
    if len(known) < _FEWEST:
        return {}
    found = compute(target, known.labels, known.scores, threshold)
    return _named(target, {str(name): value for name, value in found.items()}, known, threshold)


def _named(
    target: Target, figures: dict[str, float], known: Known, threshold: float
) -> dict[str, float]:
    more = {
        "kept": float((known.scores >= threshold).mean()),
        "worth keeping": float(target.kept(known.labels).mean()),
    }
    if target.kind == "ordinal":
        more["mean label"] = float(known.labels.mean())
    return figures | more


def _estimate(
    target: Target, metric: MetricName, known: Known, window: Sample, threshold: float, seed: int
) -> dict[str, Interval]:
    """Figures to expect of a window whose labels are not known.

    Each document gets the label of one drawn among the 25 documents of the reference that are
    nearest by score (nearest-neighbour hot deck, Andridge and Little 2010, section 3), a hundred
    times with both samples resampled; the interval holds 95% of the figures. This is right as
    far as a score means the same as before, and blind to labels that changed.
    """
    scores = window.scores[np.isfinite(window.scores)][:_ESTIMATED]
    if len(scores) < _FEWEST:
        return {}
    rng = np.random.default_rng(seed)
    drawn = resample(known.groups.tolist(), seed, _ESTIMATES)
    found: dict[str, list[float]] = {}
    for counts in drawn.counts:
        rows = np.repeat(np.arange(len(known)), counts[drawn.membership])
        rows = rows[np.argsort(known.scores[rows], kind="stable")]
        mine = rng.choice(scores, len(scores))
        near = min(_NEIGHBOURS, len(rows))
        first = np.searchsorted(known.scores[rows], mine) - near // 2
        at = np.clip(first, 0, len(rows) - near) + rng.integers(near, size=len(mine))
        labels = known.labels[rows[at]]
        once = np.ones((1, len(mine)))
        all_of = compute_resampled(target, labels, mine, threshold, once)
        values = {str(name): float(value[0]) for name, value in all_of.items()}
        imputed = Known(mine, labels, known.groups[:0])
        for name, value in _named(target, values, imputed, threshold).items():
            found.setdefault(name, []).append(value)
    wanted = dict.fromkeys([metric, *_DECISION, "kept", "worth keeping", "mean label"])
    return {
        name: _around(found[name], len(scores), drawn.groups) for name in wanted if name in found
    }


def _around(values: list[float], n: int, groups: int) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    value = float(np.mean(values))
    return Interval(value=value, low=float(low), high=float(high), n=n, groups=groups)
