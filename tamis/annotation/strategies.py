"""What to annotate: at random, or where a label is likely to teach the model most."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.annotation.settings import Strategy
from tamis.corpus.dataset import Dataset
from tamis.errors import DataError
from tamis.models.classifier import Classifier
from tamis.target import Floats, Target

Progress = Callable[[int, int], None]
ScoreTexts = Callable[[Sequence[str]], Floats]
"""From texts to scores (n,) on the target's scale."""
Order = NDArray[np.intp]
Ordered = tuple[Order, Floats | None]
"""Positions of the documents, the most wanted first, and the champion's scores of them (n,)."""

_FOLDS = 5
_MOST_REFERENCE = 5_000


@dataclass(frozen=True)
class Advisers:
    """Models that strategies ask; each is loaded only when one does.

    Attributes:
        champion: Loads the model in use.
        rival: Loads another scorer of the same task.
        threshold: The champion's; None takes the model's own.
    """

    champion: Callable[[], Classifier]
    rival: Callable[[], ScoreTexts]
    threshold: float | None = None


def rank(
    strategy: Strategy,
    texts: Sequence[str],
    advisers: Advisers,
    seed: int,
    progress: Progress | None = None,
) -> Ordered:
    """Order documents by a strategy; those that are equal to it keep their order.

    ``uncertain``: near the champion's threshold (uncertainty sampling: Lewis and Gale 1994, "A
    Sequential Algorithm for Training Text Classifiers", section 3). ``drifted``: least like the
    champion's reference, see ``strangeness``. ``disagreeing``: far apart by champion and rival
    (query by committee: Seung et al. 1992), by their ranks, as their scales may differ.

    Args:
        strategy: Which.
        texts: The documents (n,), in random order.
        advisers: Models.
        seed: Of folds.
        progress: Told of texts that a model has read.
    """
    plain = np.arange(len(texts))
    if strategy == "random" or not len(texts):
        return plain, None
    champion = advisers.champion()
    if strategy == "drifted":
        vectors, _ = champion.embed(texts, progress)
        far = strangeness(champion.reference, vectors, seed)
        return np.argsort(-far, kind="stable"), None
    scores = champion.score(texts, progress).values
    if strategy == "uncertain":
        own = champion.info.threshold if advisers.threshold is None else advisers.threshold
        return np.argsort(np.abs(scores - own), kind="stable"), scores
    apart = np.abs(_ranks(scores) - _ranks(advisers.rival()(texts)))
    return np.argsort(-apart, kind="stable"), scores


def _ranks(scores: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(scores), dtype=np.float64) / max(1, len(scores))


def strangeness(reference: NDArray[np.float32], vectors: NDArray[np.float32], seed: int) -> Floats:
    """How unlike the reference each vector is, (n,): the higher, the stranger.

    The held-out score of a domain classifier, a logistic regression that tells the reference
    from the vectors (Lopez-Paz and Oquab 2017, "Revisiting Classifier Two-Sample Tests", section
    3, where such a score says what makes the samples differ). With fewer than ten vectors on a
    side: the distance from the reference's mean.

    Args:
        reference: Vectors of documents that the model was trained on (m, d).
        vectors: Vectors of the documents (n, d).
        seed: Of sample and folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if min(len(reference), len(vectors)) < 2 * _FOLDS:
        middle = reference.mean(0) if len(reference) else np.zeros(vectors.shape[1])
        return np.asarray(np.linalg.norm(vectors - middle, axis=1), dtype=np.float64)
    rng = np.random.default_rng(seed)
    if len(reference) > _MOST_REFERENCE:
        reference = reference[np.sort(rng.choice(len(reference), _MOST_REFERENCE, replace=False))]
    both = np.vstack([reference, vectors]).astype(np.float64)
    sides = np.repeat([0, 1], [len(reference), len(vectors)])
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=500, class_weight="balanced")
    )
    with threadpool_limits(1, user_api="blas"):
        scores = cross_val_predict(model, both, sides, cv=folds, method="decision_function")
    return np.asarray(scores[len(reference) :], dtype=np.float64)


def pick(
    orders: Mapping[Strategy, Ordered], shares: Mapping[Strategy, float], budget: int
) -> list[tuple[int, Strategy]]:
    """Take documents in turn from each strategy's order, by its share, none twice.

    What a budget takes, a larger one takes first.

    Args:
        orders: Positions by strategy, the most wanted first.
        shares: Of the strategies, adding up to 1.
        budget: How many documents to take.

    Returns:
        Positions with the strategy that took them.
    """
    waiting = {name: iter(order.tolist()) for name, (order, _) in orders.items()}
    taken: dict[int, Strategy] = {}
    given = dict.fromkeys(waiting, 0)
    while waiting and len(taken) < budget:
        # The one that is furthest behind its share.
        name = max(waiting, key=lambda each: shares[each] * (len(taken) + 1) - given[each])
        found = next((at for at in waiting[name] if at not in taken), None)
        if found is None:
            del waiting[name]
            continue
        taken[found] = name
        given[name] += 1
    return list(taken.items())


def words_scorer(target: Target, documents: Dataset, seed: int) -> ScoreTexts:
    """A scorer that knows words without their order, fitted on labelled documents.

    Raises:
        DataError: None of them is labelled.
    """
    from tamis.evaluation.baselines import fit_baselines

    known = documents.take(~np.isnan(documents.labels))
    if not len(known):
        raise DataError("disagreeing: no labelled documents to fit a second scorer on")
    columns = _Columns(
        known.texts(),
        known.labels,
        known.strings("source").tolist(),
        known.strings("group").tolist(),
    )
    fitted = fit_baselines(target, columns, names=("tfidf",), seed=seed)["tfidf"]
    return lambda texts: fitted(texts, [""] * len(texts))


@dataclass(frozen=True)
class _Columns:
    texts: Sequence[str]
    labels: Floats
    sources: Sequence[str]
    groups: Sequence[str]
