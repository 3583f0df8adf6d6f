"""Calibration of scores: a score of 3 is what documents with label 3 get, on average.

The map is isotonic regression of the labels on scores of documents that the head was not fitted
on. Isotonic regression alone is flat between its steps and would make equal what the model tells
apart, so the centred form is used: every block of pooled documents becomes one point at its mean
score, with straight lines between the points (Oron & Flournoy 2017, "Centered Isotonic
Regression: Point and Interval Estimation for Dose-Response Studies", Statistics in
Biopharmaceutical Research 9, 258-267). Blocks at an end of the scale stay flat there, as they
do in the paper; a hundredth of the score itself, mixed in at last, makes them rise as well.

The map therefore rises strictly over the whole scale: ranks, percentiles and what a threshold
keeps are as they were, only the numbers change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.target import Floats, Target

MIN_DOCUMENTS = 50
"""With fewer held-out documents the steps follow chance more than they follow the labels."""
LEAST_SLOPE = 0.01
"""Share of the score itself in what the map gives."""
DIGITS = 9
"""Scores that are equal to so many digits, as shares of the scale, are one."""

ARRAYS = ("score_map_x", "score_map_y")
"""Names of the two arrays beside those of the head."""


def _none() -> Floats:
    return np.empty(0, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """Raw scores to calibrated ones, by straight lines between points; the identity without any.

    Attributes:
        x: Raw scores, rising, from one end of the scale to the other.
        y: Calibrated scores at those, rising.
    """

    x: Floats = field(default_factory=_none)
    y: Floats = field(default_factory=_none)

    @property
    def is_identity(self) -> bool:
        """Whether scores stay as they are."""
        return len(self.x) == 0

    def __call__(self, scores: Floats) -> Floats:
        """Calibrated scores (n,) of raw ones (n,)."""
        return scores if self.is_identity else np.asarray(np.interp(scores, self.x, self.y))

    def raw(self, scores: Floats) -> Floats:
        """The raw scores (n,) of which these are the calibrated ones."""
        return scores if self.is_identity else np.asarray(np.interp(scores, self.y, self.x))

    def arrays(self) -> dict[str, Floats]:
        """What is saved: nothing for the identity."""
        return {} if self.is_identity else dict(zip(ARRAYS, (self.x, self.y), strict=True))


IDENTITY = ScoreMap()


class Calibration(NamedTuple):
    """A map and, in words, what it rests on or why it is the identity."""

    score_map: ScoreMap
    note: str


def take_score_map(arrays: dict[str, NDArray[Any]]) -> ScoreMap:
    """Take a map out of the arrays that it was saved with; the identity where there is none.

    Raises:
        ValueError: Only half of it is there, or it does not rise.
    """
    if not any(name in arrays for name in ARRAYS):
        return IDENTITY
    try:
        x, y = (np.asarray(arrays.pop(name), dtype=np.float64) for name in ARRAYS)
    except KeyError as missing:
        raise ValueError(f"the head lacks the array {missing.args[0]}") from None
    whole = x.ndim == 1 and x.shape == y.shape and len(x) >= 2
    if not (whole and all(np.isfinite(a).all() and (np.diff(a) > 0).all() for a in (x, y))):
        raise ValueError("the calibration of the scores is not a rising line")
    return ScoreMap(x, y)


def meant(target: Target, labels: Floats) -> Floats:
    """What a calibrated score is the mean of (n,): the label, or 1 for kept and 0 for dropped."""
    return labels if target.kind == "ordinal" else target.kept(labels).astype(np.float64)


def fit_score_map(scores: Floats, truth: Floats, scale: tuple[float, float]) -> Calibration:
    """Fit the map on scores of documents that the head was not fitted on.

    Args:
        scores: Raw held-out scores on the scale (n,).
        truth: What they should mean (n,), see ``meant``.
        scale: Lowest and highest score.

    Returns:
        The identity, and why, where the documents are few, or do not say how to calibrate.
    """
    n = len(scores)
    if n < MIN_DOCUMENTS:
        return Calibration(
            IDENTITY, f"not calibrated: {n} held-out documents, at least {MIN_DOCUMENTS} needed"
        )
    if np.ptp(truth) == 0:
        return Calibration(IDENTITY, f"not calibrated: all {n} held-out labels are the same")
    low, high = scale
    x, y = _centred(np.round((scores - low) / (high - low), DIGITS), truth, scale)
    if len(x) < 2:
        return Calibration(
            IDENTITY, f"not calibrated: labels do not rise with the score on {n} held-out documents"
        )
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    if x[0] > 0:
        x, y = np.append(0, x), np.append(max(low, y[0] - slope * x[0]), y)
    if x[-1] < 1:
        x, y = np.append(x, 1), np.append(y, min(high, y[-1] + slope * (1 - x[-1])))
    x = low + x * (high - low)
    x[-1] = high
    y = (1 - LEAST_SLOPE) * y + LEAST_SLOPE * x
    return Calibration(ScoreMap(x, y), f"isotonic, {len(x)} points from {n} held-out documents")


def _centred(shares: Floats, truth: Floats, scale: tuple[float, float]) -> tuple[Floats, Floats]:
    """Points of centred isotonic regression: x rises, y rises but for flat ends of the scale."""
    from sklearn.isotonic import IsotonicRegression

    low, high = scale
    fitted = IsotonicRegression(y_min=low, y_max=high).fit_transform(shares, truth)
    # Means of neighbouring blocks that differ by rounding alone are one block.
    fitted = np.round(np.asarray(fitted, dtype=np.float64), 12)
    x: list[float] = []
    y: list[float] = []
    for value in np.unique(fitted):
        block = shares[fitted == value]
        first, last = block.min(), block.max()
        flat = value in (low, high) and first < last
        centres = [first, last] if flat else [np.clip(block.mean(), first, last)]
        x += [float(centre) for centre in centres]
        y += [float(value)] * len(centres)
    return np.array(x), np.array(y)
