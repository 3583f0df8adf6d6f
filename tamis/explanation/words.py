"""Words of a text with their weights in a score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.target import Floats

Method = Literal["integrated gradients", "exact contributions", "occlusion"]
Unit = Literal["points", "log-odds"]

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Signs of scripts that put no blanks between words: each is shown as a word."""
_LETTER = rf"(?:(?![{_ALONE}])\w)"
_WORD = re.compile(rf"[{_ALONE}]|{_LETTER}+(?:['’.\-]{_LETTER}+)*|[^\w\s]+")


class Word(BaseModel):
    """A word of a text, or a run of punctuation.

    Attributes:
        text: As it stands in the text.
        start: Where it begins in the text that was explained.
        end: Where it ends.
        weight: What it adds to the score, in the explanation's unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str
    start: int
    end: int
    weight: float


class Explanation(BaseModel):
    """What each word adds to a score.

    The weights, ``rest`` and ``baseline`` add up to ``score``, but for the gap.

    Attributes:
        text: What the model read, as it read it: prepared, and cut to the limits.
        words: Its words, in order.
        rest: Weight of what belongs to no word, such as line breaks.
        score: Of the text before calibration, in ``unit``.
        baseline: The same of a text that says nothing.
        calibrated: The score as it is served.
        unit: Points of the target's scale, or log-odds of the kept side.
        method: How the weights were found.
        completeness_gap: Weights and ``rest``, less what ``score`` is above ``baseline``.
        detail: How closely it was looked: steps of integration, or size of the windows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str
    words: tuple[Word, ...]
    rest: float
    score: float
    baseline: float
    calibrated: float
    unit: Unit
    method: Method
    completeness_gap: float
    detail: str

    def top(self, count: int) -> list[Word]:
        """The words of largest weight, whatever its sign, the largest first."""
        return sorted(self.words, key=lambda word: -abs(word.weight))[:count]


class Spans(NamedTuple):
    """Places in a text with their weights.

    Attributes:
        starts: Where each begins (n,).
        ends: Where each ends (n,).
        weights: Of each (n,).
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    weights: Floats


def readable(text: str) -> str:
    """The text with lone surrogates, which no file can hold, as question marks."""
    return text.encode("utf-8", "replace").decode()


def word_places(text: str) -> list[tuple[int, int]]:
    """Where the words and runs of punctuation of a text begin and end."""
    return [found.span() for found in _WORD.finditer(text)]


def spread(length: int, places: Sequence[tuple[int, int]], spans: Spans) -> tuple[Floats, float]:
    """Weights of words from weights of spans, each spread evenly over the characters of words.

    Args:
        length: Characters of the text.
        places: Where its words begin and end, in order, none over another (w,).
        spans: Over the same text; they may overlap.

    Returns:
        The weight of each word (w,), and that of spans which touch no word.
    """
    edges = np.zeros(length + 1, dtype=np.int64)
    for start, end in places:
        edges[start] += 1
        edges[end] -= 1
    inside = np.cumsum(edges)[:-1]
    before = np.concatenate([[0], np.cumsum(inside)])
    touched = before[spans.ends] - before[spans.starts]
    on = touched > 0
    each = spans.weights[on] / touched[on]
    steps = np.zeros(length + 1)
    np.add.at(steps, spans.starts[on], each)
    np.subtract.at(steps, spans.ends[on], each)
    sums = np.concatenate([[0.0], np.cumsum(np.cumsum(steps)[:-1] * inside)])
    weights = np.array([sums[end] - sums[start] for start, end in places], dtype=np.float64)
    return weights, float(spans.weights[~on].sum())


def words_of(text: str, places: Sequence[tuple[int, int]], weights: Floats) -> tuple[Word, ...]:
    """The words at some places, with a weight each."""
    return tuple(
        Word(text=text[start:end], start=start, end=end, weight=float(weight))
        for (start, end), weight in zip(places, weights, strict=True)
    )


def without(text: str, places: Sequence[tuple[int, int]]) -> str:
    """The text less what stands at some places, which are in order."""
    parts, at = [], 0
    for start, end in places:
        parts.append(text[at:start])
        at = end
    return "".join([*parts, text[at:]])
