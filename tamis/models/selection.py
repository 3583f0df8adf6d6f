"""Choosing layer, pooling and head of a frozen encoder on validation documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.evaluation.metrics import best_f1_threshold, check_aligned, compute, gain
from tamis.models.heads import Candidate, Head, candidates, fit
from tamis.models.score_calibration import IDENTITY, Calibration, fit_score_map, meant
from tamis.models.settings import FrozenSettings, Pooling
from tamis.target import Floats, Target
from tamis.task import CalibrationName, MetricName, Threshold, ValueThreshold

Rows = NDArray[Any]
Features = Mapping[tuple[int, Pooling], NDArray[np.float32]]
"""Vectors (n, d) by layer (from 1) and pooling."""


@dataclass(frozen=True)
class Trial:
    """One combination and its figure on validation."""

    layer: int
    pooling: Pooling
    candidate: Candidate
    figure: float


@dataclass(frozen=True)
class Choice:
    """The combination taken, and all that were tried (best first)."""

    best: Trial
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Problem:
    """What selection and cross-validation need to know.

    Attributes:
        target: What is predicted.
        metric: Metric of record, by which combinations are compared.
        labels: Encoded labels (n,).
        groups: Group of each document (n,); a group stays on one side of every split.
        settings: What is tried.
        threshold: How the threshold is set.
        calibration: How scores are calibrated.
        validation: Share of documents that validates inside a fold.
        seed: Of splits and fits.
        weights: Weight of each document in a fit (n,); None where each weighs the same.
    """

    target: Target
    metric: MetricName
    labels: Floats
    groups: NDArray[np.str_]
    settings: FrozenSettings
    threshold: Threshold
    calibration: CalibrationName
    validation: float
    seed: int
    weights: Floats | None = None

    def fit(self, candidate: Candidate, x: NDArray[np.float32], rows: Rows) -> Head:
        """Fit a head on some rows of the vectors ``x`` (n, d), with their weights."""
        weights = None if self.weights is None else self.weights[rows]
        return fit(candidate, self.target, x[rows], self.labels[rows], self.seed, weights)


def choose(problem: Problem, features: Features, train: Rows, validation: Rows) -> Choice:
    """Fit every combination on ``train`` and compare them on ``validation``.

    Of the layers whose best figure is within ``tolerance`` of the best of all, the lowest is
    taken: it is the cheapest to run (the idea of the one-standard-error rule of Breiman et al.
    1984, section 3.4.3, with a fixed margin). Scores are compared as they come, not calibrated.
    """
    y = problem.labels
    trials = []
    for (layer, pooling), x in features.items():
        for candidate in candidates(problem.settings.heads):
            head = problem.fit(candidate, x, train)
            scores = problem.target.score(head.outputs(x[validation]))
            threshold = set_threshold(problem.threshold, problem.target, y[validation], scores)
            figures = compute(problem.target, y[validation], scores, threshold)
            trials.append(Trial(layer, pooling, candidate, figures[problem.metric]))
    best = trials[0]
    for trial in trials:
        if gain(problem.metric, trial.figure, best.figure) > 0:
            best = trial
    ranked = sorted(trials, key=lambda trial: -gain(problem.metric, trial.figure, best.figure))
    near = [
        trial
        for trial in ranked
        if gain(problem.metric, trial.figure, best.figure) >= -problem.settings.tolerance
    ]
    return Choice(best=min(near, key=lambda trial: trial.layer), trials=tuple(ranked))


def set_threshold(policy: Threshold, target: Target, labels: Floats, scores: Floats) -> float:
    """The threshold that a policy gives on documents with these labels and scores (n,)."""
    if isinstance(policy, ValueThreshold):
        return policy.value
    return best_f1_threshold(target.kept(labels), scores)


def calibrate(
    calibration: CalibrationName, target: Target, labels: Floats, scores: Floats
) -> Calibration:
    """The map of scores that held-out documents with these labels and scores (n,) give.

    Raises:
        DataError: No documents, or a label or score that is not finite.
    """
    check_aligned(labels, scores)
    if calibration == "none":
        return Calibration(IDENTITY, "not calibrated: the task asks for none")
    return fit_score_map(scores, meant(target, labels), target.scale)


def grouped_folds(problem: Problem, rows: Rows, folds: int) -> NDArray[np.int64]:
    """Fold (from 0) of each of ``rows``: no group in two folds, classes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    strata = strata_of(problem.target, problem.labels[rows])
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=problem.seed)
    fold = np.zeros(len(rows), dtype=np.int64)
    parts = splitter.split(np.zeros(len(rows)), strata, problem.groups[rows])
    for number, (_, test) in enumerate(parts):
        fold[test] = number
    return fold


def strata_of(target: Target, labels: Floats) -> NDArray[np.int64]:
    """A class for each label: the class itself, or the rounded value of an ordinal one."""
    return np.asarray(np.rint(labels), dtype=np.int64)


def held_out_scores(problem: Problem, x: Rows, rows: Rows, trial: Trial, folds: int) -> Floats:
    """Scores of ``rows`` by heads that did not see their fold (n,)."""
    fold = grouped_folds(problem, rows, folds)
    scores = np.zeros(len(rows))
    for number in range(folds):
        train, test = rows[fold != number], rows[fold == number]
        head = problem.fit(trial.candidate, x, train)
        scores[fold == number] = problem.target.score(head.outputs(x[test]))
    return scores


@dataclass(frozen=True)
class FrozenFit:
    """A head on the chosen layer, with the map of its scores, and its threshold on those."""

    head: Head
    choice: Choice
    calibration: Calibration
    threshold: float

    def scores(self, target: Target, features: Features, rows: Rows) -> tuple[Floats, Floats]:
        """Scores of some rows, calibrated and raw (n,)."""
        best = self.choice.best
        raw = target.score(self.head.outputs(features[best.layer, best.pooling][rows]))
        return self.calibration.score_map(raw), raw


def fit_frozen(problem: Problem, features: Features, train: Rows, validation: Rows) -> FrozenFit:
    """Choose on validation, calibrate and set the threshold on held-out scores, fit on both parts.

    The map of scores and the threshold come from grouped folds over training and validation
    together: the validation documents alone are few, and the head that they are for is fitted on
    both.
    """
    choice = choose(problem, features, train, validation)
    x = features[choice.best.layer, choice.best.pooling]
    rows = np.sort(np.concatenate([train, validation]))
    target, labels = problem.target, problem.labels[rows]
    raw = held_out_scores(problem, x, rows, choice.best, folds=5)
    calibration = calibrate(problem.calibration, target, labels, raw)
    threshold = set_threshold(problem.threshold, target, labels, calibration.score_map(raw))
    head = problem.fit(choice.best.candidate, x, rows)
    return FrozenFit(head=head, choice=choice, calibration=calibration, threshold=threshold)


@dataclass(frozen=True)
class HeldOut:
    """Nested cross-validation: every document scored by a model that never saw its group.

    Attributes:
        fold: Fold of each document (n,).
        scores: Held-out score of each document (n,), calibrated within its fold's training side.
        raw: The same before calibration (n,).
        thresholds: Threshold of each fold's model, set without that fold (folds,).
    """

    fold: NDArray[np.int64]
    scores: Floats
    raw: Floats
    thresholds: Floats


def cross_validate(problem: Problem, features: Features, folds: int) -> HeldOut:
    """Repeat the whole of ``fit_frozen``, selection and calibration included, once a fold."""
    rows = np.arange(len(problem.labels))
    fold = grouped_folds(problem, rows, folds)
    scores, raw, thresholds = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(folds)
    for number in range(folds):
        outer, test = rows[fold != number], rows[fold == number]
        inner = grouped_folds(problem, outer, max(2, round(1 / problem.validation)))
        fitted = fit_frozen(problem, features, outer[inner != 0], outer[inner == 0])
        scores[test], raw[test] = fitted.scores(problem.target, features, test)
        thresholds[number] = fitted.threshold
    return HeldOut(fold=fold, scores=scores, raw=raw, thresholds=thresholds)
