"""Evaluate a model beside its baselines, on test documents or over cross-validation folds.

The models of the result live in ``tamis.evaluation.figures`` and are importable from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import cohen_kappa_score, f1_score

from tamis.errors import DataError, UsageError
from tamis.evaluation.bootstrap import (
    RESAMPLES,
    Interval,
    Sampled,
    difference,
    interval,
    resample,
    sample,
)
from tamis.evaluation.figures import (
    Agreement,
    Comparison,
    Confusion,
    CrossValidation,
    Evaluation,
    Prediction,
    ScorerFigures,
    SliceFigures,
)
from tamis.evaluation.metrics import Bools, metric_names
from tamis.evaluation.reliability import reliability
from tamis.evaluation.slices import Slice, slices
from tamis.target import Floats, OrdinalTarget, Target
from tamis.task import MetricName

__all__ = [
    "Agreement",
    "Comparison",
    "Confusion",
    "CrossValidation",
    "Evaluation",
    "Interval",
    "Prediction",
    "ScorerFigures",
    "SliceFigures",
    "agreement",
    "cross_validate",
    "evaluate",
]

MODEL = "model"
SLICE_RESAMPLES = 500
MIN_FOR_GAIN = 30  # documents that a slice needs before a paired gain within it is worth stating
MAX_LEVELS = 12  # points of a scale that a confusion table can show as they are


class _Scored(NamedTuple):
    """Documents with the scores and thresholds of every scorer, the model first."""

    target: Target
    metric: MetricName
    labels: Floats
    sources: Sequence[str]
    groups: Sequence[str]
    characters: NDArray[np.int64]
    scorers: dict[str, tuple[Floats, float | Floats]]
    raw_scores: Floats | None
    seed: int


def evaluate(
    *,
    task: str,
    target: Target,
    metric: MetricName,
    threshold: float,
    ids: Sequence[str],
    texts: Sequence[str],
    labels: Floats,
    second_labels: Floats | None,
    sources: Sequence[str],
    groups: Sequence[str],
    scores: Floats,
    baseline_scores: Mapping[str, Floats],
    baseline_thresholds: Mapping[str, float],
    seed: int,
    raw_scores: Floats | None = None,
    ceiling: Agreement | None = None,
    cross_validation: CrossValidation | None = None,
) -> Evaluation:
    """Evaluate a model and its baselines on the test documents.

    Args:
        task: Name of the task.
        target: What is predicted.
        metric: The metric of record.
        threshold: A document is kept when its score reaches it.
        ids: (n,).
        texts: The texts in full, (n,).
        labels: Encoded labels, (n,).
        second_labels: A second reading, (n,), NaN where there is none; or None.
        sources: Where each document comes from, (n,).
        groups: Documents of one group resemble each other, (n,).
        scores: The model's scores on ``target.scale``, (n,).
        baseline_scores: Each baseline's scores, (n,).
        baseline_thresholds: Each baseline's threshold.
        seed: Of the resamples.
        raw_scores: The model's scores before calibration, (n,).
        ceiling: Agreement measured on more documents than these; by default it is taken from
            ``second_labels``.
        cross_validation: From ``cross_validate``, to be kept beside the test figures.

    Raises:
        DataError: No documents, columns of different lengths, or values that are not finite.
        UsageError: The metric of record is not given for this target.
    """
    scorers: dict[str, tuple[Floats, float | Floats]] = {MODEL: (scores, threshold)}
    for name, own in baseline_scores.items():
        scorers[name] = (own, baseline_thresholds[name])
    characters = _lengths(texts)
    scored = _Scored(target, metric, labels, sources, groups, characters, scorers, raw_scores, seed)
    _check(scored, ids)
    compared = _compare(scored)
    if ceiling is None and second_labels is not None:
        ceiling = agreement(target, labels, second_labels)
    predictions = tuple(
        Prediction(
            id=ids[i],
            label=float(labels[i]),
            score=float(scores[i]),
            source=sources[i],
            group=groups[i],
            characters=len(texts[i]),
        )
        for i in range(len(labels))
    )
    return Evaluation(
        **dict(compared),
        task=task,
        target=target,
        seed=seed,
        threshold=threshold,
        ceiling=ceiling,
        confusion=_confusion(target, labels, scores) if target.kind == "ordinal" else None,
        decision=_counts(("drop", "keep"), target.kept(labels), scores >= threshold),
        predictions=predictions,
        cross_validation=cross_validation,
    )


def cross_validate(
    *,
    target: Target,
    metric: MetricName,
    folds: int,
    texts: Sequence[str],
    labels: Floats,
    sources: Sequence[str],
    groups: Sequence[str],
    scores: Floats,
    thresholds: Floats,
    baseline_scores: Mapping[str, Floats],
    baseline_thresholds: Mapping[str, Floats],
    seed: int,
    raw_scores: Floats | None = None,
) -> CrossValidation:
    """Figures over all labelled documents, each scored by a model that did not see its fold.

    Args:
        target: What is predicted.
        metric: The metric of record.
        folds: How many folds there were.
        texts: (n,).
        labels: Encoded labels, (n,).
        sources: (n,).
        groups: Documents of one group resemble each other and must share a fold, (n,).
        scores: Out-of-fold scores of the model, (n,).
        thresholds: For each document the threshold of its fold's model, (n,).
        baseline_scores: Out-of-fold scores of each baseline, (n,).
        baseline_thresholds: The same for each baseline, (n,).
        seed: Of the resamples.
        raw_scores: Out-of-fold scores of the model before calibration, (n,).

    Raises:
        DataError: No documents, columns of different lengths, or values that are not finite.
        UsageError: The metric of record is not given for this target.
    """
    scorers: dict[str, tuple[Floats, float | Floats]] = {MODEL: (scores, thresholds)}
    for name, own in baseline_scores.items():
        scorers[name] = (own, baseline_thresholds[name])
    characters = _lengths(texts)
    scored = _Scored(target, metric, labels, sources, groups, characters, scorers, raw_scores, seed)
    _check(scored, texts)
    return CrossValidation(**dict(_compare(scored)), folds=folds)


def agreement(target: Target, first: Floats, second: Floats) -> Agreement | None:
    """How far two readings of the labels agree.

    Kappa is Cohen's (1968) with quadratic weights, over the points of the scale nearest to
    each label; classes have no order, so theirs is the unweighted one.

    Args:
        target: What is predicted.
        first: The labels in use, (n,).
        second: Another reading, (n,), NaN where there is none.

    Returns:
        None where fewer than two documents were read twice.
    """
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if len(first) < 2:
        return None
    ordinal = target.kind == "ordinal"
    a, b = first, second
    if isinstance(target, OrdinalTarget):
        a, b = (_nearest(_levels(target), values).astype(float) for values in (first, second))
    constant = np.ptp(np.concatenate([a, b])) == 0
    weights = None if target.kind == "classes" else "quadratic"
    varies = ordinal and np.ptp(first) > 0 and np.ptp(second) > 0
    return Agreement(
        n=len(first),
        kappa=None if constant else float(cohen_kappa_score(a, b, weights=weights)),
        spearman=float(stats.spearmanr(first, second).statistic) if varies else None,
        exact=float(np.mean(first == second)),
        f1=float(f1_score(target.kept(first), target.kept(second), zero_division=0.0)),
    )


def _lengths(texts: Sequence[str]) -> NDArray[np.int64]:
    return np.array([len(text) for text in texts], dtype=np.int64)


def _check(scored: _Scored, ids: Sequence[str]) -> None:
    n = len(scored.labels)
    if n == 0:
        raise DataError("there are no documents to evaluate")
    columns = {
        "ids": len(ids),
        "texts": len(scored.characters),
        "sources": len(scored.sources),
        "groups": len(scored.groups),
    }
    for name, length in columns.items():
        if length != n:
            raise DataError(f"{length} {name} given for {n} labels")
    given = metric_names(scored.target)
    if scored.metric not in given:
        raise UsageError(
            f"metric {scored.metric!r} is not given for a {scored.target.kind} target; "
            f"allowed: {', '.join(given)}"
        )


def _compare(scored: _Scored) -> Comparison:
    resamples = resample(scored.groups, scored.seed, RESAMPLES)
    sampled = {
        name: sample(scored.target, scored.labels, scores, threshold, resamples)
        for name, (scores, threshold) in scored.scorers.items()
    }
    figures = [
        ScorerFigures(
            name=name,
            threshold=None if isinstance(threshold, np.ndarray) else float(threshold),
            figures={metric: interval(found) for metric, found in sampled[name].items()},
        )
        for name, (_, threshold) in scored.scorers.items()
    ]
    model = sampled.pop(MODEL)
    return Comparison(
        metric=scored.metric,
        n=len(scored.labels),
        groups=resamples.groups,
        model=figures[0],
        baselines=tuple(figures[1:]),
        gains={
            name: {metric: difference(model[metric], own[metric]) for metric in model}
            for name, own in sampled.items()
        },
        slices=tuple(_slice(scored, part) for part in slices(scored.sources, scored.characters)),
        reliability=reliability(
            scored.target,
            scored.labels,
            scored.scorers[MODEL][0],
            scored.groups,
            scored.raw_scores,
        ),
    )


def _slice(scored: _Scored, part: Slice) -> SliceFigures:
    mask, record = part.mask, scored.metric
    resamples = resample(
        [group for group, inside in zip(scored.groups, mask, strict=True) if inside],
        scored.seed,
        SLICE_RESAMPLES,
    )
    sampled: dict[str, dict[MetricName, Sampled]] = {}
    for name, (scores, threshold) in scored.scorers.items():
        own = threshold[mask] if isinstance(threshold, np.ndarray) else threshold
        sampled[name] = sample(scored.target, scored.labels[mask], scores[mask], own, resamples)
    model = sampled.pop(MODEL)
    n = int(mask.sum())
    gains = {name: difference(model[record], own[record]) for name, own in sampled.items()}
    shown: tuple[MetricName, ...] = (record,) if record == "f1" else (record, "f1")
    return SliceFigures(
        kind=part.kind,
        name=part.name,
        n=n,
        groups=resamples.groups,
        figures={metric: interval(model[metric]) for metric in shown},
        baselines={name: interval(own[record]) for name, own in sampled.items()},
        gains=gains if n >= MIN_FOR_GAIN else {},
    )


def _levels(target: OrdinalTarget) -> Floats:
    """The points of a scale that a label is rounded to: whole numbers, or six even steps."""
    low, high = target.scale
    whole = np.arange(np.ceil(low), np.floor(high) + 1)
    return whole if 2 <= len(whole) <= MAX_LEVELS else np.linspace(low, high, 6)


def _nearest(levels: Floats, values: Floats) -> NDArray[np.intp]:
    """Position of the nearest level; halfway goes up."""
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, values, side="right")


def _confusion(target: OrdinalTarget, labels: Floats, scores: Floats) -> Confusion:
    levels = _levels(target)
    names = tuple(f"{level:g}" for level in levels)
    return _counts(names, _nearest(levels, labels), _nearest(levels, scores))


def _counts(
    names: tuple[str, ...], truth: NDArray[np.intp] | Bools, said: NDArray[np.intp] | Bools
) -> Confusion:
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (truth.astype(int), said.astype(int)), 1)
    return Confusion(levels=names, counts=tuple(tuple(row) for row in counts.tolist()))
