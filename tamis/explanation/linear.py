"""Exact contributions of n-grams to the raw score of a linear model, spread over their words.

Each feature adds its weight times its value to the bias; where an n-gram stands several times, each
place has an equal part of that, and a place shares its part among the characters of the words that
it covers. Nothing is approximated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from tamis.explanation.raw import kept_outputs, unit_of
from tamis.explanation.words import Explanation, Spans, readable, spread, word_places, words_of
from tamis.models.linear import LinearClassifier, Terms
from tamis.models.linear import readable as read
from tamis.target import Floats, Target

_TOKEN = re.compile(r"(?u)\b\w+\b")
_FILLED = re.compile(r"\S+")
Gram = tuple[str, int, int]


def is_additive(target: Target) -> bool:
    """Whether raw scores of a target are a sum over features: not over several classes a side."""
    return target.n_outputs <= 2


def effects(classifier: LinearClassifier) -> tuple[Floats, float]:
    """What a unit of each feature adds to the raw score (d,), and the score without any."""
    weight, bias = classifier.weight.astype(np.float64), classifier.bias.astype(np.float64)
    if classifier.info.target.kind == "ordinal":
        return weight[:, 0], float(bias[0])
    kept = kept_outputs(classifier.info.target)[0]
    return weight[:, kept] - weight[:, 1 - kept], float(bias[kept] - bias[1 - kept])


def contributions(classifier: LinearClassifier, text: str) -> Explanation:
    """What each word of a text adds to its score, for a linear model."""
    weight, bias = effects(classifier)
    text = readable(text)
    row = classifier.columns([text]).tocsr()
    added = dict(zip(row.indices.tolist(), (weight[row.indices] * row.data).tolist(), strict=True))
    total = float(sum(added.values()))
    shown = readable(read([text], classifier.info.text)[0])
    found: list[tuple[int, int, float]] = []
    first = 0
    for block in classifier.terms:
        own = {
            block.names[at - first]: added[at] for at in added if 0 <= at - first < len(block.names)
        }
        found += _placed(block, shown, own)
        first += len(block.names)
    table = np.array(found, dtype=np.float64).reshape(-1, 3)
    spans = Spans(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2])
    places = word_places(shown)
    weights, rest = spread(len(shown), places, spans)
    return Explanation(
        text=shown,
        words=words_of(shown, places, weights),
        rest=rest,
        score=bias + total,
        baseline=bias,
        calibrated=float(classifier.score([text]).values[0]),
        unit=unit_of(classifier.info.target),
        method="exact contributions",
        completeness_gap=float(weights.sum()) + rest - total,
        detail=f"{len(added)} n-grams",
    )


def _placed(block: Terms, text: str, added: dict[str, float]) -> list[tuple[int, int, float]]:
    """Where n-grams stand in a text, with the part of what they add that each place has."""
    lowered = [each.lower() for each in text]
    back = np.repeat(np.arange(len(text)), [len(each) for each in lowered])
    plain = text.lower()
    grams = _characters if block.kind == "characters" else _words
    hits = [gram for gram in grams(plain, block.ngrams) if gram[0] in added]
    counts: dict[str, int] = {}
    for name, _, _ in hits:
        counts[name] = counts.get(name, 0) + 1
    return [
        (int(back[start]), int(back[end - 1]) + 1, added[name] / counts[name])
        for name, start, end in hits
    ]


def _words(text: str, ngrams: Sequence[int]) -> Iterator[Gram]:
    """N-grams of words, as scikit-learn's analyzer ``word`` makes them, with their places."""
    words = [(found[0], *found.span()) for found in _TOKEN.finditer(text)]
    for size in range(ngrams[0], ngrams[1] + 1):
        for at in range(len(words) - size + 1):
            run = words[at : at + size]
            yield " ".join(word for word, _, _ in run), run[0][1], run[-1][2]


def _characters(text: str, ngrams: Sequence[int]) -> Iterator[Gram]:
    """N-grams of characters inside words, as the analyzer ``char_wb`` makes them."""
    for found in _FILLED.finditer(text):
        word, (start, end) = f" {found[0]} ", found.span()
        for size in range(ngrams[0], ngrams[1] + 1):
            for at in range(max(1, len(word) - size + 1)):
                # The blanks around the word belong to it and have no place of their own.
                first, last = max(start, start + at - 1), min(end, start + at - 1 + size)
                yield word[at : at + size], min(first, end - 1), max(last, start + 1)
            if len(word) <= size:
                break
