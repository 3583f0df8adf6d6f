"""How far two readings of the same documents agree."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.annotation.prompt import levels
from tamis.evaluation.bootstrap import COVERAGE, Interval, resample
from tamis.target import Floats, Target

_SHOWN = 40
_TEXT = 300


class Pair(BaseModel):
    """A document that was read twice.

    Attributes:
        sha256: Content hash.
        id: As the corpus has it.
        text: How it begins.
        first: The first score.
        second: The second.
        first_reason: Why.
        second_reason: Why; who, where it was a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    id: str
    text: str
    first: int | str
    second: int | str
    first_reason: str = ""
    second_reason: str = ""


class Agreement(BaseModel):
    """Two readings of the same documents beside each other.

    Attributes:
        n: Documents that were read twice.
        weights: Of the kappa: ``quadratic`` on a scale, ``none`` over classes.
        kappa: Cohen's, with its bootstrap interval; None where it is not defined, as when all
            answers are the same.
        exact: Share of documents with the same score twice, with its interval.
        largest_gap: Most that two scores of a document lie apart, in levels.
        levels: What could be answered.
        table: Documents by first score (rows) and second (columns).
        differing: Documents with two scores, the furthest apart first; 40 at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    weights: Literal["quadratic", "none"]
    kappa: Interval | None
    exact: Interval
    largest_gap: int
    levels: tuple[int | str, ...]
    table: tuple[tuple[int, ...], ...]
    differing: tuple[Pair, ...]


def agreement(pairs: Sequence[Pair], target: Target, seed: int) -> Agreement | None:
    """Cohen's kappa, weighted by squared distance on a scale (Cohen 1968), and what differs.

    Intervals are percentile ones over documents drawn with replacement; a draw for which kappa
    is not defined does not count.

    Args:
        pairs: The documents.
        target: What could be answered.
        seed: Of the resampling.

    Returns:
        None where there are no documents.
    """
    if not pairs:
        return None
    allowed: tuple[int | str, ...] = levels(target)
    place = {level: at for at, level in enumerate(allowed)}
    first = np.array([place[pair.first] for pair in pairs])
    second = np.array([place[pair.second] for pair in pairs])
    quadratic = target.kind == "ordinal"
    same = (first == second).astype(np.float64)
    draws = np.vstack(list(resample([pair.sha256 for pair in pairs], seed).weights()))
    kappa = _kappa(first, second, len(allowed), quadratic)
    kappas = kappas_of(first, second, len(allowed), quadratic, draws)
    table = np.zeros((len(allowed), len(allowed)), dtype=int)
    np.add.at(table, (first, second), 1)
    gaps = np.abs(first - second) if quadratic else (first != second).astype(int)
    apart = [pairs[i] for i in np.argsort(-gaps, kind="stable") if gaps[i]]
    return Agreement(
        n=len(pairs),
        weights="quadratic" if quadratic else "none",
        kappa=_interval(kappa, kappas, len(pairs)),
        exact=_interval(float(same.mean()), draws @ same / draws.sum(1), len(pairs)) or _NONE,
        largest_gap=int(gaps.max()),
        levels=allowed,
        table=tuple(tuple(int(cell) for cell in row) for row in table),
        differing=tuple(
            pair.model_copy(update={"text": pair.text[:_TEXT]}) for pair in apart[:_SHOWN]
        ),
    )


_NONE = Interval(value=0.0, low=0.0, high=0.0, n=0, groups=0)


def kappas_of(
    first: NDArray[np.intp], second: NDArray[np.intp], size: int, quadratic: bool, draws: Floats
) -> Floats:
    """Cohen's kappa under many weightings of the documents at once, (draws,).

    Args:
        first: Level of each document by its first reading (n,).
        second: By its second (n,).
        size: How many levels there are.
        quadratic: Whether a gap counts by its square, or all gaps the same.
        draws: Weights (draws, n).

    Returns:
        NaN where it is not defined.
    """
    steps = np.arange(size)
    gaps = (steps[:, None] - steps[None]).astype(np.float64)
    penalty = gaps**2 if quadratic else (gaps != 0).astype(np.float64)
    observed = draws @ penalty[first, second]
    rows, columns = draws @ np.eye(size)[first], draws @ np.eye(size)[second]
    expected = np.einsum("di,ij,dj->d", rows, penalty, columns) / draws.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 - observed / expected)


def _kappa(first: NDArray[np.intp], second: NDArray[np.intp], size: int, quadratic: bool) -> float:
    """Cohen's kappa; NaN where it is not defined."""
    from sklearn.metrics import cohen_kappa_score

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = cohen_kappa_score(
            first,
            second,
            labels=np.arange(size),
            weights="quadratic" if quadratic else None,
        )
    return float(found)


def _interval(value: float, draws: Floats, n: int) -> Interval | None:
    defined = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(defined):
        return None
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(value=value, low=float(low), high=float(high), n=n, groups=n)
