"""Statistics of two samples pooled, for many labellings of the pool at once.

Everything that does not depend on who is of the window is computed once (neighbours, kernel,
principal axes, order of scores); a labelling is a row of 0 and 1, and what is left is linear
algebra over many of them. So the observed labelling and its permutations cost one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.monitoring.samples import Sample

Floats = NDArray[np.float32]
Statistic = Callable[[Floats], Floats]
"""Labels (p, N), 1 for a document of the window, to values (p,) or, of a detector with several
names, (p, names): large where samples differ."""

NEIGHBOURS = 20
SHARPNESS = 8
"""Power of the share of neighbours: few documents that are all among themselves count most."""
RIDGE = 3.0
"""Of vectors of length 1."""
TOP_SHARES = (0.02, 0.05, 0.1, 0.2)
"""Of the window: how many of the most window-like documents are looked at."""
TOP_WORDS = 10
COMMON = 0.9
"""Words that more documents have say nothing."""
RARE = 5
"""Words that fewer documents have say too little."""
LABELLINGS = 256
"""That are looked at in one go."""


@dataclass(frozen=True)
class Detector:
    """One test, or several that have their computation in common.

    Attributes:
        tests: Name, as reports have it, and what a value is, in words.
        statistic: From labels to values.
    """

    tests: tuple[tuple[str, str], ...]
    statistic: Statistic


def names(detectors: list[Detector]) -> list[tuple[str, str]]:
    """Name and unit of each test, in the order of the columns of ``statistics``."""
    return [test for detector in detectors for test in detector.tests]


def pooled_detectors(first: Sample, second: Sample) -> list[Detector]:
    """The tests that two samples allow, each on the first's documents and then the second's.

    A test is left out where either sample lacks what it reads, and where the pool has nothing to
    tell apart (all vectors equal, one language).
    """
    found: list[Detector] = []
    if first.vectors is not None and second.vectors is not None:
        found += _of_vectors(np.concatenate([_finite(first.vectors), _finite(second.vectors)]))
    if first.words is not None and second.words is not None:
        found += _of_words(first.words, second.words)
    scores = np.concatenate([first.scores, second.scores])
    lengths = np.concatenate([first.characters, second.characters]).astype(np.float64)
    for name, values in (("score", scores), ("length", lengths)):
        known = np.isfinite(values)
        few = known[: len(first)].sum() < 2 or known[len(first) :].sum() < 2
        if not few and len(np.unique(values[known])) > 1:
            found.append(Detector(((name, "Kolmogorov-Smirnov distance"),), _distance(values)))
    languages = np.concatenate([first.languages, second.languages])
    if len(np.unique(languages)) > 1:
        found.append(Detector((("language", "chi-square"),), _chi_square(languages)))
    return found


def statistics(detectors: list[Detector], labels: Floats) -> NDArray[np.float64]:
    """Values (p, tests) for labels (p, N), computed with one thread."""
    from threadpoolctl import threadpool_limits

    values = np.empty((len(labels), len(names(detectors))))
    with threadpool_limits(1, user_api="blas"):
        for start in range(0, len(labels), LABELLINGS):
            part = labels[start : start + LABELLINGS]
            found = [detector.statistic(part) for detector in detectors]
            if found:
                values[start : start + len(part)] = np.column_stack(found)
    return values


def _finite(vectors: NDArray[np.float32]) -> Floats:
    """Vectors of length 1; one that is not finite becomes 0."""
    clean = np.where(np.isfinite(vectors).all(1, keepdims=True), vectors, 0).astype(np.float32)
    length = np.linalg.norm(clean, axis=1, keepdims=True)
    return np.asarray(clean / np.where(length > 0, length, 1), dtype=np.float32)


def _contrast(labels: Floats) -> Floats:
    """Weights (p, N) by which a sum over the pool is the window's mean less the reference's."""
    m = labels.sum(1, keepdims=True)
    n = labels.shape[1] - m
    return np.asarray(labels / np.maximum(m, 1) - (1 - labels) / np.maximum(n, 1), np.float32)


def _of_vectors(vectors: Floats) -> list[Detector]:
    from threadpoolctl import threadpool_limits

    count = len(vectors)
    if count < 4 or np.ptp(vectors, axis=0).max() < 1e-6:
        return []
    with threadpool_limits(1, user_api="blas"):
        similar = vectors @ vectors.T
        kernel, adjacent = _kernel(similar), _adjacency(similar)
        del similar
        classifier = _classifier(vectors)
    found = [
        Detector(
            (
                ("domain classifier", "difference of mean held-out outputs"),
                ("most window-like", "standard deviations among the classifier's highest outputs"),
            ),
            classifier,
        ),
        Detector(
            (("neighbours", "power mean of the share of the window's own, above chance"),), adjacent
        ),
    ]
    if kernel is not None:
        found.append(Detector((("kernel", "squared MMD"),), kernel))
    return found


def _kernel(similar: Floats) -> Statistic | None:
    """Squared maximum mean discrepancy under a Gaussian kernel (Gretton et al. 2012, section 3).

    The kernel's width is half the median distance of the pool. Pairs of a document with itself are
    left out; what is left differs from the unbiased estimate (lemma 6) by factors that no
    labelling of equal sizes changes.
    """
    distance = np.maximum(2 - 2 * similar, 0)
    rows = np.linspace(0, len(distance) - 1, min(len(distance), 500)).astype(np.intp)
    width = float(np.median(distance[rows][:, rows][~np.eye(len(rows), dtype=bool)])) / 2
    if width <= 0:
        return None  # more than half of all pairs are the same
    kernel = np.exp(-distance / np.float32(width))
    np.fill_diagonal(kernel, 0)

    def statistic(labels: Floats) -> Floats:
        weights = _contrast(labels)
        return np.asarray(((weights @ kernel) * weights).sum(1))

    return statistic


def _adjacency(similar: Floats) -> Statistic:
    """How much the window's documents have their nearest neighbours among themselves.

    Counts of neighbours of one sample: Schilling 1986 ("Multivariate two-sample tests based on
    nearest neighbors", JASA 81) and Henze 1988 (Annals of Statistics 16). The share of each
    document's neighbours is raised to a power before the mean, so that a few documents that
    have none but their own kind near them count for more than many that have one more.
    """
    from scipy.sparse import csr_matrix

    count = len(similar)
    k = min(NEIGHBOURS, count - 1)
    np.fill_diagonal(similar, -np.inf)
    near = np.argpartition(-similar, k - 1, axis=1)[:, :k]
    graph = csr_matrix(
        (np.ones(count * k, np.float32), near.ravel(), np.arange(0, count * k + 1, k)),
        shape=(count, count),
    )

    def statistic(labels: Floats) -> Floats:
        share = (graph @ np.ascontiguousarray(labels.T)).T / k
        excess = _above_chance(share, labels.mean(1, keepdims=True))
        mean = (labels * excess**SHARPNESS).sum(1) / labels.sum(1)
        return np.asarray(mean ** (1 / SHARPNESS))

    return statistic


def _above_chance(share: Floats, chance: Floats) -> Floats:
    return np.maximum((share - chance) / np.maximum(1 - chance, 1e-6), 0)


def _classifier(vectors: Floats) -> Statistic:
    """Two statistics of a ridge regression that tells the samples apart.

    The classifier two-sample test (Lopez-Paz and Oquab 2017, section 3) with a linear
    classifier whose outputs are held out one document at a time, in closed form (Hastie,
    Tibshirani and Friedman 2009, section 7.10). Both are calibrated by permutation: the
    outputs are not independent, so a normal approximation of their accuracy would not hold
    (Kim et al. 2021, "Classification accuracy as a proxy for two-sample testing", section 8).

    The first is how far the mean outputs of the samples are apart. The second looks at the
    documents that the classifier holds to be most of the window only: by how many standard
    deviations more of them are than by chance, the largest over ``TOP_SHARES``. A few foreign
    documents move a mean, or an AUC, hardly at all; among the most window-like they are most.
    """
    centred = (vectors - vectors.mean(0)).astype(np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    kept = values > 1e-6 * values.max()
    basis = ((centred @ axes[:, kept]) / np.sqrt(values[kept])).astype(np.float32)
    shrink = (values[kept] / (values[kept] + RIDGE)).astype(np.float32)
    leverage = np.minimum((basis**2 * shrink).sum(1) + 1 / len(vectors), 0.999)

    def statistic(labels: Floats) -> Floats:
        aim = labels - labels.mean(1, keepdims=True)
        fitted = ((aim @ basis) * shrink) @ basis.T
        outputs = (fitted - leverage * aim) / (1 - leverage)
        separation = (outputs * _contrast(labels)).sum(1)
        top = most_window_like(outputs, labels, int(labels[0].sum()))
        return np.column_stack([separation, top])

    return statistic


def most_window_like(outputs: Floats, labels: Floats, window: int) -> Floats:
    """Excess of the window among the highest outputs (p,), in hypergeometric deviations.

    Args:
        outputs: Of a classifier (p, N).
        labels: 1 for a document of the window (p, N).
        window: Documents of the window.
    """
    count = outputs.shape[1]
    sizes = sorted({min(max(5, round(share * window)), count - 1) for share in TOP_SHARES})
    top = np.argpartition(-outputs, sizes[-1], axis=1)[:, : sizes[-1]]
    order = np.argsort(-np.take_along_axis(outputs, top, 1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, 1)
    found = np.cumsum(np.take_along_axis(labels, top, 1), axis=1)
    share = labels.mean(1)
    best = np.full(len(labels), -np.inf)
    for size in sizes:
        spread = np.sqrt(size * share * (1 - share) * (count - size) / max(count - 1, 1))
        best = np.maximum(best, (found[:, size - 1] - size * share) / np.maximum(spread, 1e-9))
    return np.asarray(best, dtype=np.float32)


def _of_words(first: Any, second: Any) -> list[Detector]:
    """Words that the window has more often: the mean deviation of those that rose most.

    Each word's count in the window against the hypergeometric law of a word that is as common
    in both (Fisher 1935); the deviations of the ten largest are averaged, and what is large is
    left to permutation, as no word is independent of the others.
    """
    from scipy.sparse import vstack

    words = vstack([first, second]).tocsc().astype(np.float32)
    count = words.shape[0]
    common = np.asarray(words.sum(0)).ravel()
    kept = np.flatnonzero((common >= RARE) & (common <= COMMON * count))
    if len(kept) == 0:
        return []
    by_word, common = words[:, kept].T.tocsr(), common[kept]
    top = min(TOP_WORDS, len(kept))

    def statistic(labels: Floats) -> Floats:
        share = labels.mean(1)
        found = by_word @ np.ascontiguousarray(labels.T)
        spread = np.sqrt(
            np.outer(common * (1 - common / count), share * (1 - share)) * count / (count - 1)
        )
        deviation = (found - np.outer(common, share)) / np.maximum(spread, 1e-9)
        return np.asarray(np.partition(deviation, -top, axis=0)[-top:].mean(0))

    return [Detector((("words", "standard deviations of those that rose most"),), statistic)]


def _distance(values: NDArray[np.float64]) -> Statistic:
    """Largest distance of the empirical distributions of known values (Kolmogorov-Smirnov)."""
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    # Between equal values there is no step: the distance is read where a run of them ends.
    last = np.append(np.diff(values[order]) > 0, True)

    def statistic(labels: Floats) -> Floats:
        steps = np.cumsum(_contrast(labels[:, order]), axis=1)
        return np.asarray(np.abs(steps[:, last]).max(1))

    return statistic


def _chi_square(names: NDArray[np.str_]) -> Statistic:
    """Pearson's statistic of a table of names by sample, for which permutation needs no counts."""
    _, which = np.unique(names, return_inverse=True)
    table = np.eye(which.max() + 1, dtype=np.float32)[which]
    common = table.sum(0)

    def statistic(labels: Floats) -> Floats:
        share = labels.mean(1, keepdims=True)
        expected = share * common
        found = labels @ table
        return np.asarray(((found - expected) ** 2 / expected / (1 - share)).sum(1))

    return statistic
