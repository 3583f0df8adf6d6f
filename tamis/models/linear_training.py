"""Training of linear classifiers: vocabulary, weights of terms and penalty from one side only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.errors import DataError
from tamis.evaluation.metrics import compute, gain
from tamis.models.heads import linear_model, linear_weights
from tamis.models.info import LinearInfo
from tamis.models.linear import LinearClassifier, Terms, counter, project, readable, weigh
from tamis.models.log import HeldOutScores, Trained, TrainingLog, TriedCombination
from tamis.models.score_calibration import Calibration
from tamis.models.selection import Problem, Rows, calibrate, grouped_folds, set_threshold
from tamis.models.settings import LinearSettings, NgramRange
from tamis.models.training import facts, problem_of, reference_rows, rows_of
from tamis.target import Floats
from tamis.task import Task

INNER_FOLDS = 5


@dataclass(frozen=True)
class _Counts:
    """Counts (n, D) of every n-gram of one kind, in all documents; each fit takes its own of them.

    They are counted once, since that is most of the time; which n-grams are features, and what
    they weigh, is found anew in the documents that a fit sees.
    """

    kind: str
    ngrams: NgramRange
    names: NDArray[np.object_]
    matrix: Any

    def terms(self, rows: Rows, settings: LinearSettings) -> tuple[Terms, NDArray[np.int64]]:
        """The features that some documents give, and their columns."""
        seen = self.matrix[rows]
        found = np.asarray(seen.getnnz(axis=0))
        if not found.any():
            raise DataError(f"there are no {self.kind} in the training documents")
        columns = np.flatnonzero(found >= min(settings.min_documents, found.max()))
        if len(columns) > settings.max_features:
            often = np.asarray(seen[:, columns].sum(axis=0)).ravel()
            columns = np.sort(columns[np.argsort(-often, kind="stable")[: settings.max_features]])
        idf = np.log((1 + len(rows)) / (1 + found[columns])) + 1
        names = tuple(self.names[columns].tolist())
        return Terms(self.kind, self.ngrams, names, idf.astype(np.float32)), columns


def _count(texts: list[str], settings: LinearSettings) -> list[_Counts]:
    wanted = {"words": settings.words, "characters": settings.characters}
    counts = []
    for kind, ngrams in wanted.items():
        if ngrams is not None:
            found = counter(kind, ngrams)
            try:
                matrix = found.fit_transform(texts)
            except ValueError:  # no text has a single word
                raise DataError(f"there are no {kind} in the training documents") from None
            counts.append(_Counts(kind, ngrams, found.get_feature_names_out(), matrix.tocsr()))
    return counts


@dataclass(frozen=True)
class _Learner:
    """All that the fits of one training share."""

    settings: LinearSettings
    problem: Problem
    counts: list[_Counts]

    def fit(self, penalty: float, rows: Rows) -> _Fitted:
        """Fit on some documents."""
        return self._features(rows).fit(penalty)

    def _features(self, rows: Rows) -> _Features:
        from scipy.sparse import hstack

        found = [counts.terms(rows, self.settings) for counts in self.counts]

        def columns(some: Rows) -> Any:
            blocks = [
                weigh(counts.matrix[some][:, where], terms.idf)
                for counts, (terms, where) in zip(self.counts, found, strict=True)
            ]
            return hstack(blocks, format="csr")

        return _Features(self.problem, rows, tuple(terms for terms, _ in found), columns)

    def figures(self, train: Rows, validation: Rows) -> list[tuple[float, float]]:
        """Each penalty and its figure on validation, best first."""
        problem, features = self.problem, self._features(train)
        known, tried = problem.labels[validation], []
        for penalty in self.settings.penalties:
            scores = features.fit(penalty).scores(validation)
            threshold = set_threshold(problem.threshold, problem.target, known, scores)
            figures = compute(problem.target, known, scores, threshold)
            tried.append((penalty, figures[problem.metric]))
        return sorted(tried, key=lambda each: -gain(problem.metric, each[1], 0.0))

    def complete(self, train: Rows, validation: Rows) -> _Complete:
        """Choose on validation; calibrate and set the threshold on held-out scores; fit on both."""
        problem = self.problem
        tried = self.figures(train, validation)
        penalty = tried[0][0]
        rows = np.sort(np.concatenate([train, validation]))
        known, raw = problem.labels[rows], np.zeros(len(rows))
        fold = grouped_folds(problem, rows, INNER_FOLDS)
        for number in range(INNER_FOLDS):
            fitted = self.fit(penalty, rows[fold != number])
            raw[fold == number] = fitted.scores(rows[fold == number])
        calibration = calibrate(problem.calibration, problem.target, known, raw)
        score_map = calibration.score_map
        threshold = set_threshold(problem.threshold, problem.target, known, score_map(raw))
        return _Complete(self.fit(penalty, rows), tried, calibration, threshold)


@dataclass(frozen=True)
class _Features:
    """Features that some documents gave, of any of them."""

    problem: Problem
    rows: Rows
    terms: tuple[Terms, ...]
    columns: Any

    def fit(self, penalty: float) -> _Fitted:
        """Weights with a penalty."""
        target, labels = self.problem.target, self.problem.labels[self.rows]
        weights = None if self.problem.weights is None else self.problem.weights[self.rows]
        model = linear_model(target, penalty)
        model.fit(self.columns(self.rows), labels, sample_weight=weights)
        arrays = linear_weights(target, model)
        weight, bias = (np.asarray(arrays[key], dtype=np.float32) for key in ("weight", "bias"))
        return _Fitted(self, weight, bias)


@dataclass(frozen=True)
class _Fitted:
    """Weights on features."""

    features: _Features
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def scores(self, rows: Rows) -> Floats:
        """Raw scores of some documents."""
        outputs = np.asarray(self.features.columns(rows) @ self.weight + self.bias, np.float64)
        return self.features.problem.target.score(outputs)


@dataclass(frozen=True)
class _Complete:
    """Weights with the map of their scores and the threshold on those."""

    fitted: _Fitted
    tried: list[tuple[float, float]]
    calibration: Calibration
    threshold: float


def train_linear(
    task: Task, settings: LinearSettings, dataset: Dataset, assignment: Assignment
) -> Trained[LinearClassifier]:
    """Choose the penalty on validation, then fit on training and validation documents.

    Raises:
        DataError: The documents have no words.
    """
    texts = readable(dataset.texts(), task.text)
    problem = problem_of(task, dataset, assignment)
    learner = _Learner(settings, problem, _count(texts, settings))
    rows = rows_of(dataset, assignment)
    found = learner.complete(rows["train"], rows["validation"])
    seen = np.concatenate([rows["train"], rows["validation"]])
    sample = seen[reference_rows(len(seen), task.seed)]
    fitted, score_map = found.fitted, found.calibration.score_map
    head = f"{'ridge' if task.target.kind == 'ordinal' else 'logistic'}({found.tried[0][0]:g})"
    info = LinearInfo(
        **facts(task, assignment, head, found.threshold),
        words=settings.words,
        characters=settings.characters,
    )
    classifier = LinearClassifier(
        info,
        fitted.features.terms,
        fitted.weight,
        fitted.bias,
        project(fitted.features.columns(sample)),
        score_map(fitted.scores(sample)),
        score_map,
    )
    log = TrainingLog(
        task=task.name,
        family="linear",
        train=settings.variant,
        metric=task.metric,
        documents={side: len(where) for side, where in rows.items()},
        tried=tuple(TriedCombination(head=f"penalty {p:g}", figure=f) for p, f in found.tried),
        chosen=f"{head} on {len(fitted.weight):,} n-grams",
        threshold=found.threshold,
        replay=info.replay,
        calibration=found.calibration.note,
        held_out=_held_out(task, dataset, learner),
    )
    return Trained(classifier, log)


def _held_out(task: Task, dataset: Dataset, learner: _Learner) -> HeldOutScores | None:
    """Repeat all of it, choice and calibration included, once a fold."""
    if not task.split.folds:
        return None
    problem = learner.problem
    rows = np.arange(len(problem.labels))
    fold = grouped_folds(problem, rows, task.split.folds)
    raw, scores, thresholds = np.zeros(len(rows)), np.zeros(len(rows)), []
    for number in range(task.split.folds):
        outer, test = rows[fold != number], rows[fold == number]
        inner = grouped_folds(problem, outer, max(2, round(1 / problem.validation)))
        found = learner.complete(outer[inner != 0], outer[inner == 0])
        raw[test] = found.fitted.scores(test)
        scores[test] = found.calibration.score_map(raw[test])
        thresholds.append(found.threshold)
    return HeldOutScores(
        ids=tuple(dataset.strings("id").tolist()),
        fold=tuple(fold.tolist()),
        scores=tuple(scores.tolist()),
        thresholds=tuple(thresholds),
        raw=tuple(raw.tolist()),
    )
