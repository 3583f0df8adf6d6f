"""Features of a text that a person can picture, for a model of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tamis.corpus.text_statistics import TextStatistics
from tamis.explanation.words import readable
from tamis.target import Floats

NAMES = (
    "length",
    "word length",
    "sentence length",
    "line length",
    "type-token ratio",
    "capitals",
    "digits",
    "punctuation",
    "markup",
    "questions",
    "exclamations",
    "repeated lines",
    "links",
)
"""In the order of the columns; all but lengths, links and the ratio are shares of characters."""

MOST_CHARACTERS = 100_000
_FIRST_WORDS = 100
_MARKUP = frozenset("<>{}[]|\\=#*_`~^")
_STOPS = re.compile(r"[.!?]+(?:\s|$)")
_LINK = re.compile(r"https?://|www\.")


def features(texts: Sequence[str]) -> Floats:
    """The features of texts (n, len(NAMES)); of a very long one those of its beginning."""
    rows = [_features(readable(text[:MOST_CHARACTERS])) for text in texts]
    return np.array(rows, dtype=np.float64).reshape(len(texts), len(NAMES))


def _features(text: str) -> list[float]:
    statistics = TextStatistics(text)
    tokens, size = statistics.tokens, max(1, len(text))
    words = max(1, tokens.words)
    # Of the first hundred, since the longer a text the more of its words were there before.
    first = tokens.ngrams(1)[:_FIRST_WORDS]
    marks = sum(not c.isalnum() and not c.isspace() for c in text)
    return [
        float(np.log10(size)),
        tokens.word_characters / words,
        tokens.words / max(1, len(_STOPS.findall(text))),
        size / max(1, len(statistics.filled)),
        len(np.unique(first)) / max(1, len(first)),
        sum(c.isupper() for c in text) / size,
        sum(c.isdigit() for c in text) / size,
        marks / size,
        sum(c in _MARKUP for c in text) / size,
        text.count("?") / size,
        text.count("!") / size,
        statistics.repeated_lines[1] / size,
        float(len(_LINK.findall(text))),
    ]
