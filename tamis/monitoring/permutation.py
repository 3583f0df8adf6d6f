"""One p-value of many tests, from the labellings that were as likely as the one observed.

If a window is of the population that the reference is of, then which of the pooled documents
are the window's is chance, and every relabelling is as likely: the permutation p-value is exact
at any size (Phipson and Smyth 2010, section 4; Lehmann and Romano 2005, section 15.2). All tests
are computed on the same relabellings, and the largest of their standardised values is compared
with the largest of each relabelling (Westfall and Young 1993, section 2.3): tests that say the
same thing cost the budget once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.monitoring.detectors import Floats

TAIL = 0.1
"""Share of the relabellings from which on a test's law is smoothed."""
GROUPS = 10
"""Groups that a window must have for them to be told from chance."""


@dataclass(frozen=True)
class Combined:
    """What came of all tests on the observed labelling.

    Attributes:
        score: The largest standardised value: minus the logarithm of its test's p-value.
        p: Of all tests as one.
        alone: p-value of each test on its own (tests,).
        adjusted: p-value of each test, corrected for there being others (tests,).
        scores: Standardised value of each test (tests,).
        highest: ``score`` of each relabelling (permutations,).
        critical: Value of each test at which it alone makes ``p`` the level asked for (tests,).
    """

    score: float
    p: float
    alone: NDArray[np.float64]
    adjusted: NDArray[np.float64]
    scores: NDArray[np.float64]
    highest: NDArray[np.float64]
    critical: NDArray[np.float64]


def come_whole(reference: NDArray[np.str_], window: NDArray[np.str_]) -> bool:
    """Whether documents came by whole groups, so that they are not exchangeable one by one.

    Documents of a group (a page, a module) resemble each other. Where they are drawn one by one, a
    group is in the window and in the reference alike. Which it was shows in how many pairs of one
    group are on two sides: by chance, 2nm / N(N-1) of them. Groups are held to come whole where
    there are fewer than half as many, and the window has groups of several documents, ten
    groups at least: of fewer nothing could be told. A document without a group is alone.

    Args:
        reference: Groups of the reference (n,).
        window: Groups of the window (m,).
    """
    n, m = len(reference), len(window)
    if min(n, m) == 0:
        return False
    group = group_numbers(np.concatenate([reference, window]))
    count = int(group.max()) + 1
    here = np.bincount(group[:n], minlength=count)
    there = np.bincount(group[n:], minlength=count)
    if there.max() < 2 or (there > 0).sum() < GROUPS:
        return False
    whole = here + there
    pairs = float((whole * (whole - 1) / 2).sum())
    across = float((here * there).sum())
    return across < pairs * n * m / ((n + m) * (n + m - 1))


def one_of_each(groups: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows, in order, of one document of each group, drawn at random."""
    order = rng.permutation(len(groups))
    _, first = np.unique(group_numbers(groups)[order], return_index=True)
    return np.sort(order[first])


def group_numbers(groups: NDArray[np.str_]) -> NDArray[np.intp]:
    """A number for each document's group (n,); one without a group has its own."""
    found, number = np.unique(groups, return_inverse=True)
    alone = groups == ""
    number[alone] = len(found) + np.arange(alone.sum())
    return np.asarray(np.unique(number, return_inverse=True)[1], dtype=np.intp)


def observed_labels(reference: int, window: int) -> Floats:
    """The labelling of a pool that has the reference's documents first (1, N)."""
    labels = np.zeros((1, reference + window), dtype=np.float32)
    labels[0, reference:] = 1
    return labels


def relabelled(
    reference: int,
    window: int,
    groups: NDArray[np.intp] | None,
    permutations: int,
    rng: np.random.Generator,
) -> Floats:
    """Random labellings (permutations, N) of as many documents of the window.

    Whole groups are taken in random order as long as they fit, and the last place is filled
    with part of one, so that every labelling has the size of the window.
    """
    count = reference + window
    labels = np.zeros((permutations, count), dtype=np.float32)
    for row in labels:
        if groups is None:
            chosen = rng.permutation(count)[:window]
        else:
            order = rng.permutation(int(groups.max()) + 1)[groups]
            # A group that is cut is cut at random.
            chosen = np.lexsort((rng.random(count), order))[:window]
        row[chosen] = 1
    return labels


def combine(values: NDArray[np.float64], level: float) -> Combined:
    """Combine the tests' values on the observed labelling, which is the first, and the others'.

    Args:
        values: Of each labelling and test (1 + permutations, tests).
        level: The level that ``critical`` is for.
    """
    scales = [Scale.of(column) for column in values.T]
    standard = scores(scales, values)
    top = standard.max(1)
    score, highest = float(top[0]), top[1:]
    total = len(values)
    # Rounding must not make equal labellings differ.
    p = share_at_least(highest, score)
    adjusted = np.array([share_at_least(highest, one) for one in standard[0]])
    alone = np.array([share_at_least(column[1:], column[0]) for column in values.T])
    allowed = int(np.floor(level * total))
    bar = np.sort(highest)[::-1][min(max(allowed - 1, 0), len(highest) - 1)]
    critical = np.array([scale.value(bar) for scale in scales])
    return Combined(score, p, alone, adjusted, standard[0], highest, critical)


@dataclass(frozen=True)
class Scale:
    """What turns a test's values into minus the logarithm of their p-value, smoothed in the tail.

    Beyond the 10% that are largest the logarithm goes on as a straight line whose slope their
    median gives (the exponential tail; Knijnenburg et al. 2009, "Fewer permutations, more accurate
    P-values", have it with one more parameter). So two values that are both larger than all
    others still differ, and the scale is the same for every test. It treats all values alike, the
    observed one too, which is why a permutation test of it is exact.

    Attributes:
        ordered: The values it was made of, in order (n,).
        start: Where the tail begins.
        slope: Of the tail; none where too few values are above its start.
    """

    ordered: NDArray[np.float64]
    start: float
    slope: float | None

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Scale:
        """The scale of a test with these values (n,)."""
        ordered = np.sort(values)
        start = float(ordered[len(values) - 1 - int(TAIL * len(values))])
        above = ordered[ordered > start + _slack(ordered)]
        if len(above) < 3:
            return cls(ordered, start, None)
        return cls(ordered, start, math.log(2) / float(np.median(above - start)))

    def scores(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardised values (k,) of values (k,), of these or of others."""
        slack, count = _slack(self.ordered), len(self.ordered)
        at_least = count - np.searchsorted(self.ordered, values - slack, side="left")
        found = -np.log(np.maximum(at_least, 1) / count)
        if self.slope is None:
            return np.asarray(found)
        base = -math.log(TAIL)
        tail = base + (values - self.start) * self.slope
        return np.asarray(np.where(values > self.start + slack, tail, np.minimum(found, base)))

    def value(self, score: float) -> float:
        """The value whose standardised value is this one."""
        if self.slope is not None and score > -math.log(TAIL):
            return self.start + (score + math.log(TAIL)) / self.slope
        return float(np.quantile(self.ordered, 1 - min(np.exp(-score), 1.0)))


def scores(scales: list[Scale], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardised values (p, tests) of values (p, tests)."""
    return np.column_stack([s.scores(values[:, j]) for j, s in enumerate(scales)])


def _slack(ordered: NDArray[np.float64]) -> float:
    return 1e-6 * float(max(abs(ordered[0]), abs(ordered[-1]), 1e-12))


def share_at_least(others: NDArray[np.float64], one: float) -> float:
    """The p-value of one value among others that were as likely."""
    slack = 1e-6 * max(abs(one), 1e-12)
    return float((1 + (others >= one - slack).sum()) / (1 + len(others)))
