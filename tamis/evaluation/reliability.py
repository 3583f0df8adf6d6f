"""Whether scores mean what the labels mean: mean label beside mean score, in bins of scores.

The gap is the mean distance between the two over the bins, weighted by documents: for a
probability the expected calibration error (Naeini, Cooper & Hauskrecht 2015, "Obtaining Well
Calibrated Probabilities Using Bayesian Binning", AAAI), for a scale the same in points of it.
With few documents in a bin its mean label strays from the score even where the score is right,
so the gap is never zero; the size that chance alone gives it is told beside it.

Documents of one group resemble each other: what counts in a bin is its groups, not its documents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tamis.evaluation.bootstrap import COVERAGE, Interval
from tamis.evaluation.figures import Reliability, ReliabilityBin
from tamis.models.score_calibration import meant
from tamis.target import Floats, Target

MOST_BINS = 10
DOCUMENTS_PER_BIN = 20


def reliability(
    target: Target,
    labels: Floats,
    scores: Floats,
    groups: Sequence[str],
    raw_scores: Floats | None = None,
) -> Reliability:
    """Mean label beside mean score in bins of about equally many documents.

    The intervals of the means are Wilson's (1927) for the share of kept documents; for labels on
    a scale they are Student's, with the spread within bins taken to be the same in all of them.

    Args:
        target: What is predicted.
        labels: Encoded labels (n,).
        scores: Scores that are to mean what the labels mean (n,).
        groups: Documents of one group resemble each other (n,).
        raw_scores: The same before calibration (n,), to tell how large the gap was.
    """
    truth = meant(target, labels)
    place = _places(scores)
    parts = [np.flatnonzero(place == number) for number in range(place.max() + 1)]
    names = np.asarray(groups, dtype=str)
    units = [_group_means(truth[part], names[part]) for part in parts]
    spread = _spread(units)
    bins, chance = [], 0.0
    for part, unit in zip(parts, units, strict=True):
        score, label = float(scores[part].mean()), float(truth[part].mean())
        if target.kind == "ordinal":
            low, high = _student(label, spread, len(unit), sum(map(len, units)) - len(units))
            low, high = np.clip([low, high], *target.scale)
            error = spread / np.sqrt(len(unit))
        else:
            low, high = np.clip(_wilson(label, len(unit)), 0, 1)
            error = np.sqrt(score * (1 - score) / len(unit))
        # The mean distance of a normal variable from its mean is sqrt(2 / pi) deviations.
        chance += len(part) / len(scores) * float(np.sqrt(2 / np.pi) * error)
        shown = Interval(
            value=label, low=float(low), high=float(high), n=len(part), groups=len(unit)
        )
        bins.append(ReliabilityBin(score=score, label=shown))
    changed = raw_scores is not None and not np.array_equal(raw_scores, scores)
    return Reliability(
        n=len(scores),
        bins=tuple(bins),
        gap=_gap(truth, scores),
        raw_gap=_gap(truth, raw_scores) if raw_scores is not None and changed else None,
        chance=chance,
    )


def _places(scores: Floats) -> NDArray[np.intp]:
    """The bin of each score, from 0: about equally many in each, equal scores in one."""
    count = int(np.clip(len(scores) // DOCUMENTS_PER_BIN, 1, MOST_BINS))
    edges = np.quantile(scores, np.arange(1, count) / count)
    return np.unique(np.searchsorted(edges, scores, side="right"), return_inverse=True)[1]


def _gap(truth: Floats, scores: Floats) -> float:
    place = _places(scores)
    return float(np.abs(np.bincount(place, truth - scores)).sum() / len(scores))


def _group_means(truth: Floats, groups: NDArray[np.str_]) -> Floats:
    position = np.unique(groups, return_inverse=True)[1]
    return np.asarray(np.bincount(position, truth) / np.bincount(position))


def _spread(units: Sequence[Floats]) -> float:
    """Standard deviation of groups about the mean of their bin."""
    freedom = sum(len(unit) - 1 for unit in units)
    squares = sum(float(((unit - unit.mean()) ** 2).sum()) for unit in units)
    return float(np.sqrt(squares / freedom)) if freedom else 0.0


def _student(mean: float, spread: float, size: int, freedom: int) -> tuple[float, float]:
    if not freedom:
        return mean, mean
    reach = float(stats.t.ppf((1 + COVERAGE) / 2, freedom)) * spread / np.sqrt(size)
    return mean - reach, mean + reach


def _wilson(share: float, size: int) -> tuple[float, float]:
    z = float(stats.norm.ppf((1 + COVERAGE) / 2))
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    reach = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return centre - reach, centre + reach
