"""The student: a linear model on hashed word n-grams that imitates the encoder's scores.

Binary 1- and 2-grams of words and marks at the beginning of a text are hashed into a fixed number
of columns (feature hashing: Weinberger et al. 2009, ICML, section 2), scaled to length 1, and
weighted by ridge regression on what the encoder says of unlabelled documents (distillation:
Hinton, Vinyals and Dean 2015, section 2, with a regression target).

The regression is not on the score but on its hyperbolic tangent around the threshold: whether a
document far from it scores a little more or less decides nothing, and weights are not spent on
that. Predictions are turned back, and mapped by a rising line to what the encoder says of documents
with such a score (``score_calibration``), so that the student's scores mean what the encoder's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tamis.config import Strict
from tamis.errors import ModelError
from tamis.models.score_calibration import (
    IDENTITY,
    ScoreMap,
    fit_score_map,
    take_score_map,
)
from tamis.target import Floats

FILE = "student.safetensors"
_WORDS_AND_MARKS = r"\w+|[^\w\s]"
"""Markup, code and prose differ by their marks."""
_MOST = 0.9999
"""Of a hyperbolic tangent, so that what is turned back is finite."""


class StudentSettings(Strict):
    """What the student reads, and how it is fitted."""

    characters: Annotated[int, Field(ge=100, le=100_000)] = 2_000
    """Of the beginning of a text."""
    longest_gram: Annotated[int, Field(ge=1, le=3)] = 2
    """Words of the longest n-gram."""
    bits: Annotated[int, Field(ge=10, le=24)] = 20
    """Columns are two to this power."""
    alpha: Annotated[float, Field(gt=0)] = 0.3
    """Strength of the ridge penalty."""
    threshold: float
    """Where the encoder's decision turns."""
    width: Annotated[float, Field(gt=0)]
    """Distance from it, in scores, at which differences begin to count little."""


@dataclass(frozen=True, eq=False)
class Student:
    """A fitted student.

    Attributes:
        settings: What it reads.
        weight: One for each column (2^bits,), float32, for the tangent of the score.
        bias: Added to their sum.
        scale: Lowest and highest score; others are clipped.
        score_map: From its own scores to the encoder's.
    """

    settings: StudentSettings
    weight: NDArray[np.float32]
    bias: float
    scale: tuple[float, float]
    score_map: ScoreMap = IDENTITY

    @cached_property
    def _vectorizer(self) -> Any:
        return vectorizer(self.settings)

    def score(self, texts: Sequence[str]) -> Floats:
        """Scores (n,) on the encoder's scale."""
        if not len(texts):
            return np.zeros(0)
        return self._scores(self._vectorizer.transform(_cut(texts, self.settings)))

    def _scores(self, columns: Any) -> Floats:
        turned = np.asarray(columns @ self.weight + self.bias, dtype=np.float64)
        inside = np.clip(turned, -_MOST, _MOST)
        found = self.settings.threshold + self.settings.width * np.arctanh(inside)
        return self.score_map(np.clip(found, *self.scale))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that was learned, by name."""
        bias = np.array([self.bias], dtype=np.float64)
        return {"weight": self.weight, "bias": bias, **self.score_map.arrays()}

    def save(self, folder: Path) -> None:
        """Write the weights."""
        save_file(self.arrays(), folder / FILE)


def load_student(folder: Path, settings: StudentSettings, scale: tuple[float, float]) -> Student:
    """Read what ``Student.save`` wrote.

    Raises:
        ModelError: The file is missing, damaged or of other settings.
    """
    try:
        arrays = load_file(folder / FILE)
        score_map = take_score_map(arrays)
        weight, bias = arrays["weight"], float(arrays["bias"][0])
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / FILE} cannot be read: {first_line(error)}") from None
    except (KeyError, IndexError, TypeError, ValueError):
        raise ModelError(f"{folder / FILE} does not hold the weights of a student") from None
    if weight.shape != (2**settings.bits,):
        shape = " x ".join(map(str, weight.shape))
        raise ModelError(f"{folder / FILE} has {shape} weights, not 2^{settings.bits}")
    if weight.dtype != np.float32 or not np.isfinite(weight).all() or not np.isfinite(bias):
        raise ModelError(f"{folder / FILE}: its weights are not all finite numbers in float32")
    return Student(settings, weight, bias, scale, score_map)


def first_line(error: Exception) -> str:
    """What an error says, in a line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def vectorizer(settings: StudentSettings) -> Any:
    """Texts to hashed n-grams; keeps nothing of what it has seen."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        ngram_range=(1, settings.longest_gram),
        n_features=2**settings.bits,
        token_pattern=_WORDS_AND_MARKS,
        binary=True,
        alternate_sign=False,
        norm="l2",
        dtype=np.float32,
    )


def _cut(texts: Sequence[str], settings: StudentSettings) -> list[str]:
    # A lone surrogate has no UTF-8, which is what is hashed.
    return [text[: settings.characters].encode("utf-8", "replace").decode() for text in texts]


def fit_folds(
    texts: Sequence[str],
    scores: Floats,
    settings: StudentSettings,
    scale: tuple[float, float],
    folds: int,
    seed: int,
) -> tuple[Student, Floats]:
    """A student, and scores of its documents by others that had not seen them.

    Args:
        texts: Documents (n).
        scores: The encoder's (n,).
        settings: What it reads.
        scale: Lowest and highest score.
        folds: How many parts.
        seed: Of the parts.

    Returns:
        The student fitted on all, and out-of-fold scores (n,).
    """
    columns = vectorizer(settings).transform(_cut(texts, settings))
    fold = np.random.default_rng(seed).permutation(len(texts)) % folds
    unseen = np.zeros(len(texts))
    for number in range(folds):
        inside, outside = fold != number, fold == number
        part = _fit(columns[inside], scores[inside], settings, scale)
        unseen[outside] = part._scores(columns[outside])
    score_map = fit_score_map(unseen, scores, scale).score_map
    student = replace(_fit(columns, scores, settings, scale), score_map=score_map)
    return student, score_map(unseen)


def _fit(
    columns: Any, scores: Floats, settings: StudentSettings, scale: tuple[float, float]
) -> Student:
    from sklearn.linear_model import Ridge

    ridge = Ridge(alpha=settings.alpha, solver="sparse_cg", tol=1e-4)
    turned = np.tanh((scores - settings.threshold) / settings.width)
    ridge.fit(columns, turned.astype(np.float32))
    return Student(settings, ridge.coef_.astype(np.float32), float(ridge.intercept_), scale)
