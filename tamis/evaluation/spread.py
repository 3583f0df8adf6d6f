"""Percentiles and shares with 95% intervals, where documents come in groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.evaluation.bootstrap import COVERAGE, Interval, Resamples
from tamis.target import Floats


def quantile(values: Floats, level: float, resamples: Resamples) -> Interval:
    """A percentile with its bootstrap interval; of a resample, the smallest value that has it."""
    order = np.argsort(values)
    ranked = values[order]
    draws = []
    for weights in resamples.weights():
        reached = weights[:, order].cumsum(axis=1)
        draws.append(ranked[(reached < level * reached[:, -1:] - 1e-9).sum(axis=1)])
    low, high = np.quantile(np.concatenate(draws), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(
        value=float(np.quantile(values, level, method="inverted_cdf")),
        low=float(low),
        high=float(high),
        n=len(values),
        groups=resamples.groups,
    )


def share_of(flags: NDArray[np.bool_], resamples: Resamples) -> Interval:
    """A share with Clopper and Pearson's interval, in which each group counts as one document."""
    from scipy.special import betaincinv

    share, n, tail = float(flags.mean()), resamples.groups, (1 - COVERAGE) / 2
    hits = share * n
    low = float(betaincinv(hits, n - hits + 1, tail)) if share > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if share < 1 else 1.0
    return Interval(value=share, low=low, high=high, n=len(flags), groups=n)
