"""Percentile bootstrap intervals that respect groups, and paired differences between scorers.

Documents of one page or one module resemble each other, so they do not count as independent:
whole groups are drawn with replacement (the cluster bootstrap: Davison & Hinkley 1997, section
3.8; Field & Welsh 2007, "Bootstrapping clustered data", JRSS B 69). The interval is the
percentile one (Efron & Tibshirani 1993, chapter 13). All scorers are judged on the same draws,
which makes every difference a paired one.

What the interval covers is the choice of test documents. It does not cover the luck of training:
another seed or another training set may move a figure by more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.errors import DataError
from tamis.evaluation.metrics import HIGHER_IS_BETTER, compute, gain
from tamis.evaluation.resampled import compute_resampled
from tamis.target import Floats, Target
from tamis.task import MetricName

RESAMPLES = 1000
COVERAGE = 0.95
CELLS_AT_ONCE = 2_000_000  # resamples x documents held as float64: 16 MB an array


class Interval(BaseModel):
    """A figure with its 95% interval.

    Attributes:
        value: The figure on the documents as they are.
        low: Lower end.
        high: Upper end.
        n: Documents behind it.
        groups: Groups that were resampled; with one group the interval has no width and
            means nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float
    n: int
    groups: int

    def __str__(self) -> str:
        """Value and interval to three places."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Resamples:
    """Draws of groups, shared by everything that is to be compared.

    Attributes:
        counts: How often each group was drawn, (resamples, groups).
        membership: The group of each document, (n,).
    """

    counts: NDArray[np.uint16]
    membership: NDArray[np.intp]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.counts.shape[1])

    def weights(self) -> Iterator[Floats]:
        """Weights of the documents in each resample, in blocks of (resamples, n)."""
        rows = max(1, CELLS_AT_ONCE // len(self.membership))
        for start in range(0, len(self.counts), rows):
            yield self.counts[start : start + rows][:, self.membership].astype(np.float64)


@dataclass(frozen=True)
class Sampled:
    """One metric of one scorer, on the documents and in every resample.

    Attributes:
        metric: Which metric.
        value: Its value on the documents as they are.
        draws: Its value in each resample, (resamples,).
        n: Documents.
        groups: Groups.
    """

    metric: MetricName
    value: float
    draws: Floats
    n: int
    groups: int


def resample(groups: Sequence[str], seed: int, count: int = RESAMPLES) -> Resamples:
    """Draw groups with replacement, as many as there are.

    The draws depend on the names of the groups and the seed, not on the order of the documents.

    Args:
        groups: The group of each document, (n,).
        seed: Of the random generator.
        count: How many resamples.

    Raises:
        DataError: There are no documents.
    """
    if len(groups) == 0:
        raise DataError("there are no documents to resample")
    names, membership = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    shares = np.full(len(names), 1 / len(names))
    counts = np.random.default_rng(seed).multinomial(len(names), shares, size=count)
    return Resamples(counts.astype(np.uint16), membership)


def sample(
    target: Target,
    labels: Floats,
    scores: Floats,
    threshold: float | Floats,
    resamples: Resamples,
) -> dict[MetricName, Sampled]:
    """Every metric of one scorer, with its values over the resamples.

    Args:
        target: What is predicted.
        labels: Encoded labels, (n,).
        scores: Scores on ``target.scale``, (n,).
        threshold: One for all documents, or one each (n,).
        resamples: Draws over the same documents in the same order.

    Raises:
        DataError: No documents, arrays of different lengths, or values that are not finite.
    """
    values = compute(target, labels, scores, threshold)
    if len(labels) != len(resamples.membership):
        raise DataError(f"{len(labels)} labels, but {len(resamples.membership)} groups given")
    blocks = [
        compute_resampled(target, labels, scores, threshold, weights)
        for weights in resamples.weights()
    ]
    return {
        metric: Sampled(
            metric=metric,
            value=value,
            draws=np.concatenate([block[metric] for block in blocks]),
            n=len(labels),
            groups=resamples.groups,
        )
        for metric, value in values.items()
    }


def interval(sampled: Sampled) -> Interval:
    """The figure with its percentile interval.

    A resample in which the metric is undefined counts with the value that ``compute`` gives it,
    which widens the interval where positives are few.
    """
    return _interval(sampled, sampled.value, sampled.draws)


def difference(a: Sampled, b: Sampled) -> Interval:
    """The gain of ``a`` over ``b`` with its paired interval: positive where ``a`` is better.

    Raises:
        ValueError: The two are not of one metric, or not over the same resamples.
    """
    if a.metric != b.metric or a.draws.shape != b.draws.shape or a.n != b.n:
        raise ValueError("a paired difference needs one metric over one set of resamples")
    # A difference of arrays, turned round where lower is better: `gain`, element by element.
    draws = a.draws - b.draws if HIGHER_IS_BETTER[a.metric] else b.draws - a.draws
    return _interval(a, gain(a.metric, a.value, b.value), draws)


def _interval(sampled: Sampled, value: float, draws: Floats) -> Interval:
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(
        value=value, low=float(low), high=float(high), n=sampled.n, groups=sampled.groups
    )
