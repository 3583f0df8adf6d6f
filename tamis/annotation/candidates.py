"""Which documents of a corpus may be annotated: each content once, none that has a label.

Of a corpus of any size a random sample of distinct contents is kept: those whose seeded hash is
smallest (bottom-k sampling: Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches",
section 3). A copy has the hash of its original, so copies weigh nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from tamis.annotation.selection import Considered
from tamis.corpus.document import Document, Quarantined, content_hash, normalise
from tamis.corpus.readers import Shard, read_shard
from tamis.corpus.rows import ReadLimits
from tamis.corpus.source_settings import Columns
from tamis.fingerprint import sha256_of

MOST_BYTES = 2**29
"""Of text held in memory."""
LONGEST = 2_000_000


class _Sample:
    """The documents with the smallest keys, within bounds on number and memory."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self.held: dict[str, Document] = {}
        self._heap: list[tuple[int, str]] = []
        self._bar = 1 << 256  # keys from here on are out, now and for ever

    def offer(self, key: int, sha256: str, document: Document) -> None:
        if key >= self._bar:
            return
        heapq.heappush(self._heap, (-key, sha256))
        self.held[sha256] = document
        self.bytes += len(document.text)
        while len(self.held) > self.most or (self.bytes > MOST_BYTES and len(self.held) > 1):
            worst, name = heapq.heappop(self._heap)
            self._bar = -worst
            self.bytes -= len(self.held.pop(name).text)

    def ordered(self) -> list[tuple[str, Document]]:
        return [(name, self.held[name]) for _, name in sorted(self._heap, reverse=True)]


def candidates(
    shards: Sequence[Shard],
    columns: Columns,
    labelled: AbstractSet[str],
    most: int,
    seed: int,
) -> tuple[list[tuple[str, Document]], Considered]:
    """Read a corpus and draw from it.

    Args:
        shards: The corpus.
        columns: Which column holds what.
        labelled: Content hashes of documents that have a label.
        most: How many to draw.
        seed: Of the draw.

    Returns:
        Content hashes and documents, in random order, so that a beginning of the list is a
        random sample, too; and what the input held.

    Raises:
        OSError: The storage failed.
    """
    sample, limits = _Sample(most), ReadLimits(max_line_bytes=LONGEST)
    read = unreadable = known = copies = 0
    for shard in shards:
        for row in read_shard(shard, columns, limits):
            read += 1
            if isinstance(row, Quarantined) or not _is_unicode(row.text):
                unreadable += 1
                continue
            sha256 = content_hash(normalise(row.text))
            if sha256 in labelled:
                known += 1
            elif sha256 in sample.held:
                copies += 1
            else:
                sample.offer(int(sha256_of((str(seed), sha256)), 16), sha256, row)
    found = sample.ordered()
    return found, Considered(
        read=read, unreadable=unreadable, labelled=known, duplicates=copies, considered=len(found)
    )


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; JSON may hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
