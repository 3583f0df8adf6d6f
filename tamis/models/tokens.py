"""Tokens of texts: one sequence a text or several, in batches, and their vectors made one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tamis.models.preparation import prepare
from tamis.models.reading import read

if TYPE_CHECKING:
    from tamis.task import TextLimits

Rows = NDArray[np.int64]

TEXTS_AT_ONCE = {"cpu": 256, "cuda": 8_192}
"""Texts that are tokenized while the network runs on as many: some batches' worth."""


def _none() -> Rows:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Tokens:
    """Token ids of texts: one sequence a text, or several.

    Attributes:
        ids: One list of token ids a sequence, cut to the limit.
        pad: Id that fills a batch up.
        whole: Tokens of each whole text (n,), special ones not counted and at least 1: counted
            where nothing was cut, else extrapolated by length; empty where no one asked.
        document: Position of the text that each sequence is of (s,), rising, none left out;
            empty where each sequence is a text of its own.
        join: What is made of the vectors of a text's sequences.
    """

    ids: list[list[int]]
    pad: int
    whole: Rows = field(default_factory=_none)
    document: Rows = field(default_factory=_none)
    join: Literal["mean", "max"] = "mean"

    @property
    def lengths(self) -> Rows:
        """Number of tokens of each sequence (s,), as cut."""
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)

    @property
    def owner(self) -> Rows:
        """Position of the text that each sequence is of (s,)."""
        return self.document if len(self.document) else np.arange(len(self.ids), dtype=np.int64)

    @property
    def documents(self) -> int:
        """Number of texts."""
        return int(self.document[-1]) + 1 if len(self.document) else len(self.ids)

    @property
    def read(self) -> Rows:
        """Number of tokens read of each text (n,), in all its sequences."""
        counts = np.bincount(self.owner, weights=self.lengths, minlength=self.documents)
        return np.asarray(counts, dtype=np.int64)

    def take(self, texts: Rows) -> Tokens:
        """The tokens of some texts, by position, in that order; each at most once."""
        place = np.full(self.documents, -1, dtype=np.int64)
        place[texts] = np.arange(len(texts))
        rows = np.flatnonzero(place[self.owner] >= 0)
        rows = rows[np.argsort(place[self.owner[rows]], kind="stable")]
        return replace(
            self,
            ids=[self.ids[row] for row in rows],
            whole=self.whole[texts] if len(self.whole) else self.whole,
            document=place[self.document[rows]] if len(self.document) else self.document,
        )

    def same(self, other: Tokens) -> bool:
        """Whether all is as in ``other``."""
        arrays = ((self.whole, other.whole), (self.document, other.document))
        plain = (self.ids, self.pad, self.join) == (other.ids, other.pad, other.join)
        return plain and all(np.array_equal(a, b) for a, b in arrays)


def batches(lengths: Rows, budget: int) -> Iterator[Rows]:
    """Positions of sequences, grouped by length so that no batch holds more than so many tokens.

    Args:
        lengths: Tokens of each sequence (s,).
        budget: Most tokens of a batch, padding included; a longer one makes a batch alone.
    """
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def combine(vectors: NDArray[np.float32], tokens: Tokens) -> NDArray[np.float32]:
    """One L2-normalised vector a text (n, d) from those of its sequences (s, d).

    Args:
        vectors: L2-normalised, in the order of ``tokens.ids``.
        tokens: Says which text each is of, and whether mean or elementwise maximum is taken.
    """
    if not len(tokens.document):
        return vectors
    starts = np.flatnonzero(np.diff(tokens.document, prepend=-1))
    join = np.maximum if tokens.join == "max" else np.add
    joined = join.reduceat(vectors, starts, axis=0)
    norms = np.linalg.norm(joined, axis=1, keepdims=True)
    joined = np.asarray(joined / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)
    alone = np.diff(starts, append=len(vectors)) == 1
    joined[alone] = vectors[starts[alone]]
    return joined


def counter(tokens: Tokens) -> Callable[[Rows], int]:
    """A function to be told which sequences are done; it says how many texts are, by now."""
    owner, done = tokens.owner, 0
    left = np.bincount(owner, minlength=tokens.documents)

    def count(rows: Rows) -> int:
        nonlocal done
        touched, times = np.unique(owner[rows], return_counts=True)
        left[touched] -= times
        done += int((left[touched] == 0).sum())
        return done

    return count


def tokenized_ahead(
    prepare: Callable[[Sequence[str]], Tokens], texts: Sequence[str], size: int
) -> Iterator[tuple[Rows, Tokens]]:
    """Chunks of texts of like length, each tokenized in a thread while the one before is used.

    Args:
        prepare: Tokenizes texts; it is never called twice at once.
        texts: The texts; so few that they make one chunk are left in their order.
        size: Texts of a chunk.

    Yields:
        Positions of the texts of a chunk, and their tokens.
    """
    if len(texts) <= size:
        yield np.arange(len(texts), dtype=np.int64), prepare(texts)
        return
    order = np.argsort([len(text) for text in texts], kind="stable")
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize") as thread:
        waiting = thread.submit(prepare, [texts[row] for row in chunks[0]])
        for rows, following in pairwise([*chunks, _none()]):
            tokens = waiting.result()
            if len(following):
                waiting = thread.submit(prepare, [texts[row] for row in following])
            yield rows, tokens


def tokenize(tokenizer: Any, texts: Sequence[str], limits: TextLimits) -> Tokens:
    """Prepare each text, cut it by characters, tokenize it and cut it by tokens: see the limits.

    A text that was cut counts as many whole tokens as those that were read make for its length:
    ``round(read * characters / characters_read)``, special tokens left out.
    """
    if not texts:
        return Tokens(ids=[], pad=0)
    texts = prepare(texts, limits.preparation)
    parts = read(tokenizer, texts, limits)
    document = _none()
    if limits.long in ("windows_mean", "windows_max"):
        document = np.repeat(np.arange(len(texts)), [len(found) for found in parts])
    whole = [
        round(sum(p.tokens for p in found) * len(text) / max(1, sum(p.characters for p in found)))
        for text, found in zip(texts, parts, strict=True)
    ]
    return Tokens(
        ids=[part.ids for found in parts for part in found],
        pad=tokenizer.pad_token_id or 0,
        whole=np.maximum(1, np.array(whole, dtype=np.int64)),
        document=document,
        join="max" if limits.long == "windows_max" else "mean",
    )
