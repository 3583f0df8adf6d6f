"""Documents of a window one by one: all are counted, and a sample of bounded size is held.

Whatever the order in which they come, the counts, the sample and the fingerprint are the same.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.exact import text_hash
from tamis.monitoring.encodings import is_broken

Vector = NDArray[np.float32]
_CHARACTERS = 200_000_000
"""Of all texts of a sample together, at most."""
_LONGEST = 100_000
_NAME = 200
_TRACKED = 500_000
_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Row:
    """A document as it was found.

    Attributes:
        id: Of the document.
        text: None where it was not kept.
        characters: Of the whole text.
        score: NaN where there is none of this model.
        language: None where not known.
        source: Where it came from.
        group: What came together with it.
        label: Encoded; NaN where there is none.
        moment: Which of equal documents is the one to take: the last, labelled ones first.
        vector: Reads its vector, if one was kept.
        same: What documents have in common that are the same one; by default their text.
        content: What tells this record from every other, for the fingerprint.
    """

    id: str
    text: str | None
    characters: int
    score: float
    language: str | None
    source: str
    group: str
    label: float
    moment: str
    vector: Callable[[], Vector | None] | None
    same: bytes | None
    content: str


class Gathering:
    """Takes rows in.

    Args:
        most: Documents that are held, and as many labelled ones.
        seed: Which ones.

    Attributes:
        counts: By name: see ``MonitorWindow``.
    """

    def __init__(self, most: int, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._cut = max(2_000, min(_LONGEST, _CHARACTERS // most))
        self._sample, self._labelled = _Held(most, seed), _Held(most, seed)
        self._distinct = _Distinct()
        self._sum = 0

    def add(self, row: Row) -> None:
        """Count a document, and hold it if it is one of the sample."""
        self.counts["records"] += 1
        self._note(row)
        if row.text is not None:
            self.counts["with_text"] += 1
            if not row.text or row.text.isspace():
                self.counts["empty"] += 1
                return
            self.counts["broken_encoding"] += is_broken(row.text)
        elif row.characters == 0:
            self.counts["empty"] += 1
            return
        if row.same is None:
            row = replace(row, same=text_hash(row.text or ""))
        mark = row.same or b""
        self._distinct.add(mark)
        if not np.isnan(row.score):
            self.counts["scored"] += 1
        self._hold(self._sample, mark, row)
        self.add_labelled(row, mark)

    def add_labelled(self, row: Row, mark: bytes | None = None) -> None:
        """Hold a document for its label only, if it has one: it is no part of the window."""
        if not np.isnan(row.label):
            self.counts["labelled"] += 1
            if mark is None:
                self._note(row)
            self._hold(self._labelled, mark or row.same or text_hash(row.text or ""), row)

    def sample(self) -> list[Row]:
        """What is held of the window, each document once."""
        return self._sample.rows()

    def labelled(self) -> list[Row]:
        """What is held of the labelled documents, each once."""
        return self._labelled.rows()

    def repeated(self) -> int:
        """Documents whose text came before; an estimate where there are very many."""
        return self._distinct.repeated()

    def fingerprint(self) -> str:
        """sha256 over all that was taken in, in hexadecimal.

        A sum of hashes, so that no order counts (Clarke et al. 2003, section 5).
        """
        told = f"{self.counts['records']} {self._sum:x}"
        return hashlib.sha256(told.encode()).hexdigest()

    def _note(self, row: Row) -> None:
        label = "" if np.isnan(row.label) else repr(float(row.label))
        told = f"{row.content}\x00{label}".encode("utf-8", "replace")
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(told).digest())) % _MODULUS

    def _hold(self, held: _Held, mark: bytes, row: Row) -> None:
        if held.wants(mark, row.moment):
            read = row.vector() if row.vector is not None else None
            held.put(mark, self._plain(row, read))

    def _plain(self, row: Row, read: Vector | None) -> Row:
        """The row with its vector read, and no longer than is held."""
        text = None if row.text is None else _encodable(row.text[: self._cut])
        return replace(
            row,
            id=_encodable(row.id[:_NAME]),
            source=_encodable(row.source[:_NAME]),
            group=_encodable(row.group[:_NAME]),
            language=None if row.language is None else _encodable(row.language[:20]),
            text=text,
            vector=None if read is None else (lambda: read),
        )


class _Held:
    """The rows whose marks have the lowest seeded hashes: a sample that knows no order."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._key = most, seed.to_bytes(16, "big")
        self._rows: dict[bytes, Row] = {}
        self._heap: list[tuple[int, bytes]] = []

    def wants(self, mark: bytes, moment: str) -> bool:
        """Whether a row is to be held; of rows with the same mark that of the last moment is."""
        known = self._rows.get(mark)
        if known is not None:
            return moment > known.moment
        return len(self._heap) < self._most or self._rank(mark) < -self._heap[0][0]

    def put(self, mark: bytes, row: Row) -> None:
        """Hold a row that is wanted; another may have to go."""
        if mark not in self._rows:
            entry = (-self._rank(mark), mark)
            if len(self._heap) < self._most:
                heapq.heappush(self._heap, entry)
            else:
                del self._rows[heapq.heappushpop(self._heap, entry)[1]]
        self._rows[mark] = row

    def rows(self) -> list[Row]:
        """In an order that depends on the seed."""
        return [self._rows[mark] for _, mark in sorted(self._heap, reverse=True)]

    def _rank(self, mark: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(mark, digest_size=8, key=self._key).digest())


class _Distinct:
    """How many marks were seen before, in bounded memory (Gibbons 2001, distinct sampling)."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()
        self._mask, self._total = 0, 0

    def add(self, mark: bytes) -> None:
        """See a mark."""
        self._total += 1
        if self._drawn(mark):
            self._seen[mark] += 1
            while len(self._seen) > _TRACKED:
                self._mask = 2 * self._mask + 1
                self._seen = Counter({m: n for m, n in self._seen.items() if self._drawn(m)})

    def _drawn(self, mark: bytes) -> bool:
        return not self._mask or not int.from_bytes(mark[-8:]) & self._mask

    def repeated(self) -> int:
        """Marks that were seen before, scaled up from those that are tracked."""
        tracked = self._seen.total()
        return round(self._total * (1 - len(self._seen) / tracked)) if tracked else 0


def _encodable(text: str) -> str:
    """The text with a question mark for each lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
