"""The metrics of ``tamis.evaluation.metrics`` over many resamples at once.

A resample is a row of weights: how often each document was drawn. Every figure is then a
weighted sum, and a thousand resamples cost a few matrix operations instead of a thousand sorts.
"""

from __future__ import annotations

import numpy as np

from tamis.evaluation.metrics import Bools
from tamis.target import Floats, Target
from tamis.task import MetricName

NEGLIGIBLE = 1e-12  # a variance this small beside the others' is a constant, but for rounding


def compute_resampled(
    target: Target, labels: Floats, scores: Floats, threshold: float | Floats, weights: Floats
) -> dict[MetricName, Floats]:
    """Every metric in every resample, equal to ``compute`` on the documents drawn.

    Args:
        target: What is predicted.
        labels: Encoded labels, (n,).
        scores: Scores on ``target.scale``, (n,).
        threshold: One for all documents, or one each (n,).
        weights: How often each document was drawn, (resamples, n); whole numbers.

    Returns:
        For each metric its value in each resample, (resamples,).
    """
    truth = target.kept(labels)
    found: dict[MetricName, Floats] = {}
    if target.kind == "ordinal":
        found["spearman"] = _pearson(
            _midranks(labels, weights), _midranks(scores, weights), weights
        )
        # Counted from the first value, a constant is exactly zero.
        found["pearson"] = _pearson(labels - labels[0], scores - scores[0], weights)
        found["mae"] = weights @ np.abs(labels - scores) / weights.sum(axis=1)
    found.update(_decision(truth, scores >= threshold, weights))
    found["average_precision"] = _average_precision(truth, scores, weights)
    return found


def _decision(truth: Bools, decided: Bools, weights: Floats) -> dict[MetricName, Floats]:
    hits = weights @ (truth & decided).astype(float)
    rejections = weights @ (~truth & ~decided).astype(float)
    errors = weights @ (truth ^ decided).astype(float)
    f1 = _ratio(2 * hits, 2 * hits + errors)
    return {
        "precision": _ratio(hits, weights @ decided.astype(float)),
        "recall": _ratio(hits, weights @ truth.astype(float)),
        "f1": f1,
        "macro_f1": (f1 + _ratio(2 * rejections, 2 * rejections + errors)) / 2,
        "accuracy": _ratio(hits + rejections, hits + rejections + errors),
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _tied_weights(values: Floats, weights: Floats) -> tuple[Floats, np.ndarray]:
    """Weights summed over each distinct value, ascending, and each document's distinct value."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.concatenate(([0], counts.cumsum()[:-1]))
    ordered = weights[:, np.argsort(position, kind="stable")]
    return np.add.reduceat(ordered, starts, axis=1), position


def _midranks(values: Floats, weights: Floats) -> Floats:
    """Rank of each document among the documents drawn, ties at their mean rank, (resamples, n)."""
    tied, position = _tied_weights(values, weights)
    ranks = tied.cumsum(axis=1) - tied + (tied + 1) / 2
    return np.asarray(ranks[:, position])


def _pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    total = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    spread_x = (weights * x**2).sum(axis=1)
    spread_y = (weights * y**2).sum(axis=1)
    varies = (spread_x > NEGLIGIBLE * spread_x.max()) & (spread_y > NEGLIGIBLE * spread_y.max())
    product = (weights * x * y).sum(axis=1)
    scale = np.sqrt(spread_x * spread_y)
    ratio = np.divide(product, scale, out=np.zeros_like(product), where=varies)
    return np.asarray(np.clip(ratio, -1.0, 1.0))


def _average_precision(truth: Bools, scores: Floats, weights: Floats) -> Floats:
    """Step-wise area under precision and recall, as in scikit-learn, ties taken together."""
    drawn, _ = _tied_weights(-scores, weights)
    positives, _ = _tied_weights(-scores, weights * truth)
    precision = _ratio(positives.cumsum(axis=1), drawn.cumsum(axis=1))
    return _ratio((positives * precision).sum(axis=1), positives.sum(axis=1))
