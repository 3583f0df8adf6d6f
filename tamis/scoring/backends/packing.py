"""Texts end to end: which go into a batch together, and the numbers a packed network reads.

Needs numpy, nothing else of this project.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FILLER = 0
"""Token that fills a batch up; its vectors are thrown away."""

_OPEN = 8
"""Batches that are filled at a time."""


@dataclass(frozen=True)
class Packed:
    """Some texts end to end.

    Attributes:
        numbers: Ids (t,), positions (t,) and starts (s + 1,), one after the other.
        tokens: How many tokens t, those that fill it up counted.
        sizes: Tokens of each text, then of those that fill up.
        texts: How many of these are texts.
    """

    numbers: NDArray[np.int32]
    tokens: int
    sizes: list[int]
    texts: int

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return max(self.sizes)


def first_fit(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Positions of texts, in batches of at most ``budget`` tokens, the longest text first.

    Each text goes into the first of a few open batches that has room; batches are therefore
    nearly full and alike in their mix of lengths. Texts without a token are in none.

    Args:
        lengths: Tokens of each text (n,).
        budget: Most tokens of a batch; a longer text makes a batch alone.
    """
    opened: list[list[int]] = []
    room: list[int] = []

    def close(at: int) -> NDArray[np.int64]:
        room.pop(at)
        rows = np.array(opened.pop(at), dtype=np.int64)
        return rows[np.argsort(-lengths[rows], kind="stable")]

    for row, length in enumerate(lengths.tolist()):
        if not length:
            continue
        at = next((i for i, left in enumerate(room) if length <= left), len(room))
        if at == len(room):
            if len(room) == _OPEN:
                yield close(room.index(min(room)))
                at -= 1
            opened.append([])
            room.append(budget)
        opened[at].append(row)
        room[at] -= length
    while opened:
        yield close(0)


def pack(ids: Sequence[Sequence[int]], tokens: int = 0, longest: int = 1, texts: int = 0) -> Packed:
    """Put texts end to end.

    Args:
        ids: Token ids of each text, at least one.
        tokens: Fill up to so many tokens.
        longest: Most tokens of a text made of filler.
        texts: Give the starts room for so many texts; those there are not are empty.
    """
    sizes = [len(text) for text in ids]
    used = sum(sizes)
    tokens = max(tokens, used)
    full, rest = divmod(tokens - used, longest)
    sizes += [longest] * full + [rest] * bool(rest)
    numbers = np.full(2 * tokens + max(texts, len(sizes)) + 1, FILLER, dtype=np.int32)
    numbers[:used] = np.fromiter(itertools.chain.from_iterable(ids), np.int32, used)
    ends = np.cumsum(sizes)
    numbers[tokens : 2 * tokens] = np.arange(tokens) - np.repeat(ends - sizes, sizes)
    starts = numbers[2 * tokens :]
    starts[0], starts[1 : len(ends) + 1], starts[len(ends) + 1 :] = 0, ends, tokens
    return Packed(numbers, tokens, sizes, len(ids))
