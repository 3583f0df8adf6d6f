"""What a model has to beat: baselines that know next to nothing, fitted on the same split.

``median`` says the same of every document, ``length`` reads how long it is, ``source`` where it
comes from, and ``tfidf`` its words without their order. They see the training documents, and
the validation documents for their threshold; nothing here is ever given the test labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tamis.errors import DataError
from tamis.evaluation.metrics import best_f1_threshold
from tamis.target import Floats, Target
from tamis.task import BaselineName

Predict = Callable[[Sequence[str], Sequence[str]], Floats]
"""From texts (n,) and sources (n,) to scores (n,) on the scale of the target."""

BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
VOCABULARY = 200_000  # most frequent 1- and 2-grams kept; bounds memory on a large training set
FOLDS = 5


class Labelled(Protocol):
    """Labelled documents as columns; any object with these attributes will do."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts, (n,)."""

    @property
    def labels(self) -> Floats:
        """Encoded labels, (n,)."""

    @property
    def sources(self) -> Sequence[str]:
        """Where each document comes from, (n,)."""

    @property
    def groups(self) -> Sequence[str]:
        """Documents of one group resemble each other, (n,)."""


@dataclass(frozen=True)
class _Columns:
    texts: Sequence[str]
    labels: Floats
    sources: Sequence[str]
    groups: Sequence[str]


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline; call it with texts and sources for scores.

    Attributes:
        name: Which baseline.
        predict: From texts and sources to scores on ``target.scale``.
        threshold: Best F1 of the kept class on documents it was not fitted on.
    """

    name: BaselineName
    predict: Predict
    threshold: float

    def __call__(self, texts: Sequence[str], sources: Sequence[str]) -> Floats:
        """Scores (n,) of documents."""
        return self.predict(texts, sources)


def fit_baselines(
    target: Target,
    train: Labelled,
    validation: Labelled | None = None,
    names: Iterable[BaselineName] = BASELINES,
    seed: int = 0,
) -> dict[BaselineName, Baseline]:
    """Fit the baselines.

    Args:
        target: What is predicted. An ordinal label is regressed on; of the others the kept
            indicator is, and the score is its probability.
        train: What they learn from.
        validation: What their threshold is chosen on; without it, predictions for the training
            documents by models of the other folds (grouped) serve instead.
        names: Which baselines.
        seed: Of the solvers that need one.

    Returns:
        The baselines by name, in the order of ``names``.

    Raises:
        DataError: There are no training documents.
    """
    if len(train.labels) == 0:
        raise DataError("there are no training documents to fit the baselines on")
    fitted: dict[BaselineName, Baseline] = {}
    for name in names:
        predict = _fit(name, target, train, seed)
        if validation is not None and len(validation.labels):
            labels = validation.labels
            scores = predict(validation.texts, validation.sources)
        else:
            labels, scores = train.labels, _cross_fitted(name, target, train, predict, seed)
        threshold = best_f1_threshold(target.kept(labels), scores)
        fitted[name] = Baseline(name, predict, threshold)
    return fitted


def _cross_fitted(
    name: BaselineName, target: Target, train: Labelled, predict: Predict, seed: int
) -> Floats:
    """Scores of the training documents by models that were not fitted on their group."""
    folds = min(FOLDS, len(set(train.groups)))
    if folds < 2:
        return predict(train.texts, train.sources)
    scores = np.empty(len(train.labels))
    positions = np.arange(len(train.labels))
    for fit, held in GroupKFold(folds).split(positions, groups=np.asarray(train.groups)):
        part = _fit(name, target, _take(train, fit), seed)
        rest = _take(train, held)
        scores[held] = part(rest.texts, rest.sources)
    return scores


def _take(documents: Labelled, positions: NDArray[np.intp]) -> _Columns:
    return _Columns(
        texts=[documents.texts[i] for i in positions],
        labels=documents.labels[positions],
        sources=[documents.sources[i] for i in positions],
        groups=[documents.groups[i] for i in positions],
    )


def _fit(name: BaselineName, target: Target, train: Labelled, seed: int) -> Predict:
    ordinal = target.kind == "ordinal"
    values = np.asarray(train.labels if ordinal else target.kept(train.labels), dtype=np.float64)
    middle = float(np.median(values) if ordinal else values.mean())
    if name == "median" or np.ptp(values) == 0:
        return lambda texts, sources: np.full(len(texts), middle)
    if name == "source":
        return _source_means(train.sources, values)
    if name == "length":
        regression = LinearRegression() if ordinal else LogisticRegression()
        model = make_pipeline(StandardScaler(), regression)
        return _model(target, model, values, train.texts, _log_lengths)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=VOCABULARY)
    head = Ridge(random_state=seed) if ordinal else LogisticRegression(C=10.0, max_iter=1000)
    try:
        return _model(target, make_pipeline(words, head), values, train.texts, list)
    except ValueError as error:
        if "vocabulary" not in str(error):
            raise
        # Texts without one word of two letters: there is nothing to learn from.
        return lambda texts, sources: np.full(len(texts), middle)


def _source_means(sources: Sequence[str], values: Floats) -> Predict:
    overall = float(values.mean())
    column = np.asarray(sources, dtype=str)
    means = {str(source): float(values[column == source].mean()) for source in np.unique(column)}
    return lambda texts, sources: np.array([means.get(s, overall) for s in sources], dtype=float)


def _log_lengths(texts: Sequence[str]) -> Floats:
    """Natural logarithm of one more than the characters, (n, 1)."""
    return np.log1p(np.array([[len(text)] for text in texts], dtype=np.float64))


def _model(
    target: Target,
    model: Any,
    values: Floats,
    texts: Sequence[str],
    features: Callable[[Sequence[str]], Any],
) -> Predict:
    """Fit a scikit-learn model; its scores are clipped to the scale."""
    ordinal = target.kind == "ordinal"
    model.fit(features(texts), values if ordinal else values.astype(int))

    def predict(texts: Sequence[str], sources: Sequence[str]) -> Floats:
        if len(texts) == 0:
            return np.empty(0)
        given = features(texts)
        scores = model.predict(given) if ordinal else model.predict_proba(given)[:, 1]
        return np.clip(np.asarray(scores, dtype=np.float64), *target.scale)

    return predict
