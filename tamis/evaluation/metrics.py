"""Figures of a scorer on labelled documents, and the threshold that serves its decision best.

The rank and error figures compare labels with scores; the others judge the keep/drop decision
(``score >= threshold``) against the kept class of the target. ``tamis.evaluation.resampled``
computes the same figures for many resamples at once; a test holds the two together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
)

from tamis.errors import DataError
from tamis.target import Floats, Target
from tamis.task import MetricName

Bools = NDArray[np.bool_]

HIGHER_IS_BETTER: dict[MetricName, bool] = {
    "spearman": True,
    "pearson": True,
    "mae": False,
    "precision": True,
    "recall": True,
    "f1": True,
    "macro_f1": True,
    "average_precision": True,
    "accuracy": True,
}
"""Direction of every metric; its order is the order of tables."""

ORDER_METRICS: tuple[MetricName, ...] = ("spearman", "pearson", "mae")
"""Metrics that need labels with an order: given for ordinal targets only."""


def metric_names(target: Target) -> tuple[MetricName, ...]:
    """The metrics that ``compute`` gives for a target, in the order of tables."""
    ordered = target.kind == "ordinal"
    return tuple(name for name in HIGHER_IS_BETTER if ordered or name not in ORDER_METRICS)


def gain(metric: MetricName, a: float, b: float) -> float:
    """How much better ``a`` is than ``b``: positive when better, whatever the direction."""
    return a - b if HIGHER_IS_BETTER[metric] else b - a


def check_aligned(labels: Floats, scores: Floats) -> None:
    """Refuse what no figure can be computed from.

    Raises:
        DataError: No documents, arrays of different lengths, or a value that is not finite.
    """
    if len(labels) == 0:
        raise DataError("there are no documents to evaluate")
    if labels.shape != scores.shape or labels.ndim != 1:
        raise DataError(f"labels {labels.shape} and scores {scores.shape} differ in shape")
    for name, values in (("labels", labels), ("scores", scores)):
        broken = int(np.count_nonzero(~np.isfinite(values)))
        if broken:
            raise DataError(f"{broken} of {len(values)} {name} are not finite numbers")


def compute(
    target: Target, labels: Floats, scores: Floats, threshold: float | Floats
) -> dict[MetricName, float]:
    """Every metric of a scorer.

    Where a metric is undefined it takes the value of a scorer that knows nothing: 0.0 for a
    correlation with a constant, and 0.0 for precision, recall, F1 and average precision whose
    denominator is empty. No figure is ever NaN.

    Args:
        target: What is predicted; says which labels are kept.
        labels: Encoded labels, (n,).
        scores: Scores on ``target.scale``, (n,).
        threshold: A document is kept when its score reaches it; one for all, or one each (n,)
            where documents were scored by the models of different folds.

    Returns:
        The metrics of ``metric_names(target)``; ``mae`` is in points of the scale.

    Raises:
        DataError: No documents, arrays of different lengths, or values that are not finite.
    """
    check_aligned(labels, scores)
    truth = target.kept(labels)
    decided = scores >= threshold
    found: dict[MetricName, float] = {}
    if target.kind == "ordinal":
        found["spearman"] = _correlation(stats.spearmanr, labels, scores)
        found["pearson"] = _correlation(stats.pearsonr, labels, scores)
        found["mae"] = float(np.abs(labels - scores).mean())
    found["precision"] = float(precision_score(truth, decided, zero_division=0.0))
    found["recall"] = float(recall_score(truth, decided, zero_division=0.0))
    found["f1"] = float(f1_score(truth, decided, zero_division=0.0))
    found["macro_f1"] = float(
        f1_score(truth, decided, labels=[False, True], average="macro", zero_division=0.0)
    )
    found["average_precision"] = (
        float(average_precision_score(truth, scores)) if truth.any() else 0.0
    )
    found["accuracy"] = float(accuracy_score(truth, decided))
    return found


def _correlation(function: object, labels: Floats, scores: Floats) -> float:
    if np.ptp(labels) == 0 or np.ptp(scores) == 0:
        return 0.0
    value = float(function(labels, scores).statistic)  # type: ignore[operator]
    return value if np.isfinite(value) else 0.0


def best_f1_threshold(kept: Bools, scores: Floats) -> float:
    """The threshold with the best F1 of the kept class.

    Candidates are the midpoints between neighbouring distinct scores and the lowest score
    (keep everything). Of equally good ones the highest is taken: it keeps less. With no kept
    document there is no F1 to speak of, and the threshold lies just above the highest score,
    so that nothing is kept.

    Args:
        kept: Which documents belong to the kept class, (n,).
        scores: Their scores, (n,).

    Raises:
        DataError: No documents, arrays of different lengths, or values that are not finite.
    """
    check_aligned(np.asarray(kept, dtype=float), scores)
    values, position = np.unique(scores, return_inverse=True)
    if not kept.any():
        return float(np.nextafter(values[-1], np.inf))
    documents = np.bincount(position, minlength=len(values))
    positives = np.bincount(position, weights=kept, minlength=len(values))
    # Sums from the top: what is kept when the threshold lies just under each distinct score.
    decided = documents[::-1].cumsum()[::-1]
    hits = positives[::-1].cumsum()[::-1]
    f1 = 2 * hits / (decided + kept.sum())
    best = len(values) - 1 - int(np.argmax(f1[::-1]))
    if best == 0:
        return float(values[0])
    below, above = values[best - 1], values[best]
    middle = below + (above - below) / 2
    # Between neighbouring floats the midpoint may round down to the score that is to be dropped.
    return float(middle if middle > below else above)
