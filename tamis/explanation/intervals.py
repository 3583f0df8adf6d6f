"""Means over documents with bootstrap intervals that respect groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tamis.evaluation.bootstrap import COVERAGE, Interval, resample
from tamis.target import Floats


def mean_interval(values: Floats, groups: Sequence[str], seed: int) -> Interval:
    """The mean of values with its percentile interval over resampled groups.

    Args:
        values: One each document (n,).
        groups: Group of each document (n,).
        seed: Of the draws.

    Raises:
        DataError: There are no values.
    """
    resamples = resample(groups, seed)
    blocks = [(weights @ values) / weights.sum(axis=1) for weights in resamples.weights()]
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(np.concatenate(blocks), [tail, 1 - tail])
    return Interval(
        value=float(values.mean()),
        low=float(low),
        high=float(high),
        n=len(values),
        groups=resamples.groups,
    )
