"""What the rules ask of a text, each computed once and only when asked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

LONGEST = 2_000_000
"""Characters of a text that are looked at; the arrays take about 50 bytes for each."""

Number = TypeVar("Number", np.int64, np.uint64)

_SPACE, _SYMBOL, _JOINER, _BOTH, _RUNNER, _DIGIT, _LETTER = range(7)
_BASIC, _IDEOGRAPHS, _BEYOND = 0x20000, 0x40000, 0x110000
_STOP = ord(".")
_SPECIAL = dict.fromkeys(",'/\u2019", _JOINER) | dict.fromkeys(".-_", _BOTH)
_SPECIAL |= dict.fromkeys("=~", _RUNNER)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xD6E8FEB86659FD93)


class TextStatistics:
    """Lines, paragraphs and words of a text.

    Args:
        text: Any text; of a very long one the first :data:`LONGEST` characters count.
    """

    def __init__(self, text: str) -> None:
        self.text = text[:LONGEST]

    @cached_property
    def lines(self) -> list[str]:
        """All lines, blank ones too."""
        return self.text.splitlines()

    @cached_property
    def filled(self) -> list[str]:
        """The lines that are not blank."""
        return [line for line in self.lines if line and not line.isspace()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What empty lines separate."""
        if "\n\n" not in self.text:
            return [self.text]
        parts = (part.strip("\n") for part in self.text.split("\n\n"))
        return [part for part in parts if part]

    @cached_property
    def repeated_lines(self) -> tuple[int, int]:
        """Filled lines that were there before, and their characters."""
        return _repeated(self.filled)

    @cached_property
    def repeated_paragraphs(self) -> tuple[int, int]:
        """Paragraphs that were there before, and their characters."""
        return _repeated(self.paragraphs)

    @cached_property
    def tokens(self) -> Tokens:
        """Words and symbols in order."""
        return Tokens(self.text)


class Tokens:
    """The words and symbols of a text, as arrays.

    A word is a run of letters, digits and combining marks. A full stop, comma, apostrophe, hyphen,
    slash or underscore between two of them belongs to the word (``don't``, ``3.5``,
    ``well-known``), as does the full stop of an initial (``U.S.``). Everything else that is not
    blank is a symbol; a run of full stops, hyphens, underscores, ``=`` or ``~`` is one (``...``).
    Tokens are compared by 64-bit hashes.

    Attributes:
        count: Words and symbols.
        words: Words alone.
        word_characters: Characters of the words alone.
        alphabetic: Words with at least one letter.
        starts: Where each token begins in the text.
        sizes: Characters of each token.
    """

    def __init__(self, text: str) -> None:
        codes = _codes(text)
        kinds = _kinds()[codes]
        inside = _words(codes, kinds)
        symbols = (kinds != _SPACE) & ~inside

        apart = (inside[1:] != inside[:-1]) | (codes[1:] != codes[:-1]) | ~_runs(kinds[1:])
        first = inside | symbols
        first[1:] &= (inside[1:] & ~inside[:-1]) | (symbols[1:] & apart)
        last = inside | symbols
        last[:-1] &= (inside[:-1] & ~inside[1:]) | (symbols[:-1] & apart)
        starts, ends = np.flatnonzero(first), np.flatnonzero(last) + 1

        self.starts: NDArray[np.int64] = starts
        self.count = len(starts)
        self.sizes: NDArray[np.int64] = ends - starts
        is_word = inside[starts]
        self.words = int(is_word.sum())
        self.word_characters = int(self.sizes[is_word].sum())
        letters = _before(kinds == _LETTER, np.int64)
        self.alphabetic = int(((letters[ends] > letters[starts]) & is_word).sum())
        self._covered: dict[int, int] = {}
        self._hashes = [_hashes(codes, first, starts, ends)]

    @cached_property
    def _characters(self) -> NDArray[np.int64]:
        return _before(self.sizes, np.int64)

    def ngrams(self, n: int) -> NDArray[np.uint64]:
        """Hashes of the runs of ``n`` tokens (``count - n + 1``, or none)."""
        while len(self._hashes) < n:
            size = len(self._hashes)
            self._hashes.append(longer(self._hashes[-1], self._hashes[0], size + 1))
        return self._hashes[n - 1]

    def top_ngram_characters(self, n: int) -> int:
        """Characters, blanks between tokens included, of all places of the most frequent n-gram.

        Of several that are as frequent the earliest counts; 0 for a text with no n-gram.
        """
        grams = self.ngrams(n)
        if not len(grams):
            return 0
        ordered = np.sort(grams)
        edges = np.ones(len(grams) + 1, dtype=bool)
        np.not_equal(ordered[1:], ordered[:-1], out=edges[1:-1])
        bounds = np.flatnonzero(edges)
        runs = bounds[1:] - bounds[:-1]
        times = int(runs.max())
        most = ordered[bounds[:-1][runs == times]]
        first = 0 if times == 1 else int(_among(grams, most).argmax())
        return times * (int(self._characters[first + n] - self._characters[first]) + n - 1)

    def covered_characters(self, n: int) -> int:
        """Characters of tokens inside an n-gram that is there more than once.

        No longer n-gram covers more, so this bounds :meth:`repeated_characters` from ``n`` on.
        """
        if n not in self._covered:
            self._covered[n] = self._cover(n)
        return self._covered[n]

    def _cover(self, n: int) -> int:
        places = self._repeated(n)
        if not len(places):
            return 0
        steps = np.zeros(self.count + 1, dtype=np.int64)
        steps[places] += 1
        steps[places + n] -= 1
        return int(self.sizes[np.cumsum(steps)[:-1] > 0].sum())

    def repeated_characters(self, n: int) -> int:
        """Characters of the n-grams that were there before, none counted twice.

        Read from the left; after a repeated n-gram the reading goes on behind it.
        """
        places = self._repeated(n)
        seen: set[int] = set()
        found, free = 0, 0
        sizes = self._characters[places + n] - self._characters[places]
        grams = self.ngrams(n)[places]
        for place, gram, size in zip(places.tolist(), grams.tolist(), sizes.tolist(), strict=True):
            if place < free:
                continue
            if gram in seen:
                found, free = found + size, place + n
            else:
                seen.add(gram)
        return found

    def _repeated(self, n: int) -> NDArray[np.int64]:
        """Where the n-grams begin that are there more than once, first places included."""
        grams = self.ngrams(n)
        ordered = np.sort(grams)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if not len(twice):
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(_among(grams, twice))


class Words:
    """The plain words of a text: runs of letters, digits and combining marks.

    Attributes:
        starts: Where each word begins in the text.
        hashes: 64-bit hash of each word, the same in every process.
    """

    def __init__(self, text: str) -> None:
        codes = _codes(text)
        inside = _kinds()[codes] >= _DIGIT
        first, last = inside.copy(), inside.copy()
        first[1:] &= ~inside[:-1]
        last[:-1] &= ~inside[1:]
        self.starts: NDArray[np.int64] = np.flatnonzero(first)
        self.hashes = _hashes(codes, first, self.starts, np.flatnonzero(last) + 1)


def longer(grams: NDArray[np.uint64], words: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """Hashes of the runs of ``size`` words, from those one word shorter and those of the words."""
    return grams[:-1] * _STEP + words[size - 1 :]


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _runs(kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which symbols make one token with their like beside them."""
    runs: NDArray[np.bool_] = (kinds == _BOTH) | (kinds == _RUNNER)
    return runs


def _words(codes: NDArray[np.uint32], kinds: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which characters belong to a word."""
    plain = kinds >= _DIGIT
    inside = plain.copy()
    inside[1:-1] |= (kinds[1:-1] >> 1 == _JOINER >> 1) & plain[:-2] & plain[2:]
    stop = codes == _STOP
    initials = kinds == _LETTER
    initials[1:] &= ~plain[:-1]
    inside[1:] |= stop[1:] & initials[:-1]
    return inside


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    seen = set(parts)
    if len(seen) == len(parts):
        return 0, 0
    return len(parts) - len(seen), sum(map(len, parts)) - sum(map(len, seen))


def _before(values: NDArray[Any], kind: type[Number]) -> NDArray[Number]:
    """Sum of all values before each place, and of all."""
    sums = np.zeros(len(values) + 1, dtype=kind)
    np.cumsum(values, out=sums[1:])
    return sums


def _among(values: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values are in a sorted array that is not empty."""
    places = np.searchsorted(ordered, values)
    np.minimum(places, len(ordered) - 1, out=places)
    return np.equal(ordered[places], values)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(29))) * _FACTOR
    return values ^ (values >> np.uint64(32))


def _hashes(
    codes: NDArray[np.uint32],
    first: NDArray[np.bool_],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> NDArray[np.uint64]:
    """A hash of each token: the sum of what each character and its place in the token mix to."""
    places = np.arange(len(codes), dtype=np.uint64)
    offsets = places - np.maximum.accumulate(places * first)
    values = _mixed(codes.astype(np.uint64) * _STEP + offsets * _FACTOR)
    sums = _before(values, np.uint64)
    return _mixed(sums[ends] - sums[starts])


@cache
def _kinds() -> NDArray[np.uint8]:
    """Space, symbol, digit or letter for each code point."""
    kinds = np.full(_BEYOND, _SYMBOL, dtype=np.uint8)
    kinds[:_BASIC] = [_kind(chr(code)) for code in range(_BASIC)]
    kinds[_BASIC:_IDEOGRAPHS] = _LETTER
    return kinds


def _kind(character: str) -> int:
    if character.isspace():
        return _SPACE
    if character.isalpha():
        return _LETTER
    if character.isalnum() or unicodedata.category(character).startswith("M"):
        return _DIGIT
    return _SPECIAL.get(character, _SYMBOL)
