"""Weights of words by leaving them out (Zeiler & Fergus 2014, section 4.2, on words).

For models of which only the score is known. Every word, or window of neighbouring words of a long
text, is left out once, and every sentence once: a word's weight is half its share of what its
window changes and half its share of what its sentence does, since a word whose sense is said again
beside it changes nothing alone. The weights need not add up to the score; the gap is reported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tamis.explanation.raw import raw_scores, unit_of
from tamis.explanation.words import Explanation, readable, without, word_places, words_of
from tamis.models.classifier import Classifier
from tamis.target import Floats

MOST_WINDOWS = 192
"""Texts with a window left out that are scored for one explanation; as many sentences at most
as a third of it."""
MOST_CHARACTERS = 1_000_000
AT_ONCE = 8_000_000
"""Characters of texts that are made and scored at a time."""
_STOP = re.compile(r"[.!?。!?]+[\"')\]]*\s|\n")

Place = tuple[int, int]
Window = tuple[int, int]


def occlude(classifier: Classifier, text: str) -> Explanation:
    """What each word of a text adds to its score, for any classifier.

    Args:
        classifier: Of any family.
        text: It is cut as the model does, but not prepared: what is left out passes through all
            that scores.
    """
    limits = classifier.info.text
    head = limits.max_characters if limits.long == "head" else MOST_CHARACTERS
    text = readable(text)[: min(head, MOST_CHARACTERS)]
    places = word_places(text)
    size = -(-len(places) // MOST_WINDOWS) or 1
    words = _windows(len(places), size)
    sentences = _sentences(text, places, MOST_WINDOWS // 3)
    if len(sentences) < 2:
        sentences = []
    score, baseline = raw_scores(classifier, [text, ""])
    windows = words + sentences
    changes = float(score) - _scores_without(classifier, text, places, windows)
    by_word = _shared(len(places), words, changes[: len(words)])
    by_sentence = _shared(len(places), sentences, changes[len(words) :])
    weights = (by_word + by_sentence) / 2 if sentences else by_word
    named = "a word" if size == 1 else f"{size} words"
    return Explanation(
        text=text,
        words=words_of(text, places, weights),
        rest=0.0,
        score=float(score),
        baseline=float(baseline),
        calibrated=float(classifier.score([text]).values[0]),
        unit=unit_of(classifier.info.target),
        method="occlusion",
        completeness_gap=float(weights.sum() - (score - baseline)),
        detail=f"windows of {named}, {len(sentences)} sentences",
    )


def _windows(words: int, size: int) -> list[Window]:
    """Neighbouring words, by position of the first and of the one behind the last."""
    return [(start, min(start + size, words)) for start in range(0, words, size)]


def _sentences(text: str, places: Sequence[Place], most: int) -> list[Window]:
    """Sentences or lines that hold a word, some together where there are more than ``most``."""
    starts = np.array([start for start, _ in places], dtype=np.int64)
    ends = [found.end() for found in _STOP.finditer(text)]
    edges = sorted({0, *np.searchsorted(starts, ends).tolist(), len(places)})
    together = -(-(len(edges) - 1) // most) or 1
    return list(pairwise([*edges[:-1:together], edges[-1]])) if len(edges) > 1 else []


def _scores_without(
    classifier: Classifier, text: str, places: Sequence[Place], windows: Sequence[Window]
) -> Floats:
    """Raw scores (w,) of the text with each window left out."""
    at_once = max(1, AT_ONCE // max(1, len(text)))
    found = [np.zeros(0)]
    for first in range(0, len(windows), at_once):
        some = windows[first : first + at_once]
        texts = [without(text, places[start:end]) for start, end in some]
        found.append(raw_scores(classifier, texts))
    return np.concatenate(found)


def _shared(words: int, windows: Sequence[Window], changes: Floats) -> Floats:
    """What a window changes, shared out evenly among its words (w,)."""
    weights = np.zeros(words)
    for (start, end), change in zip(windows, changes, strict=True):
        weights[start:end] = change / (end - start)
    return weights
