"""Near-duplicates of a corpus: MinHash, locality-sensitive hashing and verification, over files.

A shard's pass writes signatures; one task a band finds documents that agree in it; one last task
compares these candidates by their bytes, joins what is similar and keeps the best of each cluster.
Documents are named by keys: the position of the shard in the upper 32 bits, and the index in the
shard's signature file in the lower.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.dedup import Clusters
from tamis.corpus.exact import (
    WorkFile,
    header,
    open_work,
    read_all,
    read_removed_records,
    write_removed,
)
from tamis.corpus.minhash import Signatures, Signer, similarity
from tamis.corpus.store import HashingFile, OutputStore
from tamis.errors import DataError

__all__ = [
    "NearResult",
    "Signatures",
    "Signer",
    "candidate_edges",
    "read_removed",
    "resolve",
    "similarity",
    "write_signatures",
]

DOCUMENTS_PER_PASS = 30_000_000
"""Hashes of a band held at once, about 40 bytes each; of more, the band is read several times."""
BYTES_IN_MEMORY = 1 << 30
"""Signature bytes of candidates beyond which they lie in a temporary file."""

SIGNATURES = b"tamis-s\x01"
EDGES = b"tamis-e\x01"
REMOVED = b"tamis-r\x01"

_KEY = np.dtype("<u8")
_SCORE = np.dtype("<f8")
_BYTE = np.dtype("u1")
_LOW = np.uint64((1 << 32) - 1)
_BLOCK = 8192
_EDGE = np.dtype([("first", _KEY), ("other", _KEY)])
_REMOVED = np.dtype(
    [
        ("position", "<u4"),
        ("row", "<u8"),
        ("kept_position", "<u4"),
        ("kept_row", "<u8"),
        ("similarity", "<f4"),
    ]
)


@dataclass(frozen=True, slots=True)
class NearResult:
    """What ``resolve`` found.

    Attributes:
        clusters: Groups of near-duplicates.
        removed: Documents in them but for the best of each.
        candidates: Pairs whose signatures were compared.
        verified: Those that reached the threshold.
    """

    clusters: int
    removed: int
    candidates: int
    verified: int


def write_signatures(
    store: OutputStore,
    path: str,
    signatures: Signatures,
    rows: NDArray[np.uint64],
    scores: NDArray[np.float64],
) -> HashingFile:
    """Write the signatures of a shard's documents, so that one band is one range.

    Args:
        store: Where to.
        path: The file.
        signatures: Of the documents (n).
        rows: Row of each document in the shard (n).
        scores: What decides which document of a cluster stays (n); NaN loses to any other.

    Returns:
        The finished file, for its size and sha256.

    Raises:
        DataError: The lengths differ.
    """
    count, bands = signatures.bands.shape
    permutations = signatures.codes.shape[1]
    if not count == len(signatures.codes) == len(rows) == len(scores):
        raise DataError(f"{path}: signatures, rows and scores differ in length")
    with store.create(path) as file:
        file.write(header(SIGNATURES, count, bands, permutations // bands))
        for band in signatures.bands.T:
            file.write(_bytes(band, _KEY))
        file.write(_bytes(signatures.codes, _BYTE))
        file.write(_bytes(rows, _KEY))
        file.write(_bytes(scores, _SCORE))
    written: HashingFile = file
    return written


def _bytes(values: NDArray[Any], kind: np.dtype[Any]) -> memoryview | bytes:
    """The bytes of an array, without another copy of them where it lies in one piece."""
    # An empty array has no view.
    return np.ascontiguousarray(values, dtype=kind).data.cast("B") if values.size else b""


class _Shard:
    """A signature file opened for reading."""

    def __init__(self, file: WorkFile) -> None:
        self.file = file
        self.count, self.bands, rows = file.sizes
        self.permutations = self.bands * rows
        self.codes_at = self.bands * self.count * _KEY.itemsize
        self.rows_at = self.codes_at + self.count * self.permutations
        self.scores_at = self.rows_at + self.count * _KEY.itemsize
        file.expect(self.scores_at + self.count * _SCORE.itemsize)

    def band(self, band: int) -> NDArray[np.uint64]:
        """Hashes of one band (count,)."""
        if not 0 <= band < self.bands:
            raise DataError(f"{self.file.name} has {self.bands} bands, none at {band}")
        return self.file.read(_KEY, self.count, band * self.count * _KEY.itemsize)

    def codes(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Bytes of some documents, sorted by index: only the blocks that they lie in are read."""
        found = np.empty((len(indices), self.permutations), dtype=_BYTE)
        block_of = indices // _BLOCK
        for block in np.unique(block_of).tolist():
            begin = block * _BLOCK
            size = min(_BLOCK, self.count - begin)
            start = self.codes_at + begin * self.permutations
            data = self.file.read(_BYTE, size * self.permutations, start)
            wanted = block_of == block
            found[wanted] = data.reshape(size, -1)[indices[wanted] - begin]
        return found


def candidate_edges(store: OutputStore, paths: Sequence[str], band: int, out: str) -> int:
    """Find documents that agree in a band; a task for one band.

    Of each group of equal hashes, edges lead from its first document to every other: as many as
    documents, however large a group is.

    Args:
        store: Where all files lie.
        paths: The shards' files of ``write_signatures``, by position.
        band: From 0.
        out: File to write, for ``resolve``.

    Returns:
        How many edges were found.

    Raises:
        DataError: A file is missing, damaged or of another version.
    """

    def count(path: str) -> int:
        with open_work(store, path, SIGNATURES) as file:
            return file.sizes[0]

    passes = max(1, -(-sum(read_all(paths, count)) // DOCUMENTS_PER_PASS))
    edges = 0
    with store.create(out) as file:
        file.write(header(EDGES, len(paths), band))
        for number in range(passes):
            found = _stars(*_band_members(store, paths, band, number, passes))
            file.write(found.tobytes())
            edges += len(found)
        file.write(header(EDGES, edges))
    return edges


def _band_members(
    store: OutputStore, paths: Sequence[str], band: int, number: int, passes: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes and keys of the documents that are this pass's turn, by key."""

    def read(task: tuple[int, str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        position, path = task
        with open_work(store, path, SIGNATURES) as file:
            hashes = _Shard(file).band(band)
        keys = np.arange(len(hashes), dtype=np.uint64) | np.uint64(position << 32)
        if passes > 1:
            chosen = hashes % np.uint64(passes) == np.uint64(number)
            return hashes[chosen], keys[chosen]
        return hashes, keys

    empty = np.empty(0, dtype=np.uint64)
    parts = [(empty, empty), *read_all(list(enumerate(paths)), read)]
    hashes = np.concatenate([part[0] for part in parts])
    return hashes, np.concatenate([part[1] for part in parts])


def _stars(hashes: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.void]:
    order = np.argsort(hashes)
    ordered = hashes[order]
    equal = ordered[1:] == ordered[:-1]
    inside = np.zeros(len(hashes), dtype=bool)
    inside[1:] |= equal
    inside[:-1] |= equal
    hashes, keys = ordered[inside], keys[order[inside]]
    order = np.lexsort((keys, hashes))
    hashes, keys = hashes[order], keys[order]
    is_first = np.ones(len(hashes), dtype=bool)
    is_first[1:] = hashes[1:] != hashes[:-1]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(hashes)), 0))
    edges = np.empty(np.count_nonzero(~is_first), dtype=_EDGE)
    edges["first"], edges["other"] = keys[first[~is_first]], keys[~is_first]
    return edges


def resolve(
    store: OutputStore,
    paths: Sequence[str],
    edge_files: Sequence[str],
    threshold: float,
    out: str,
) -> NearResult:
    """Verify candidates, join them to clusters, keep the best-scored of each; one task.

    Band by band: the members of a group are compared with its first; where some are not similar
    to it, all pairs of a group of up to 16 are compared, and in a larger one each that is left
    becomes the leader of the rest in turn, up to 16 times. Pairs that are joined already are not
    compared again. So nothing that agrees in a band is lost but pairs in groups of more than 16,
    and these have their other bands. Clusters are connected components: a document may be less
    similar to the one kept than the threshold, as a chain leads there.

    It holds about 60 bytes for each document with a candidate, and its signature bytes up to
    1 GB; more of those lie in a temporary file.

    Args:
        store: Where all files lie.
        paths: The shards' files of ``write_signatures``, by position.
        edge_files: What ``candidate_edges`` wrote for each band.
        threshold: Estimated Jaccard similarity from which two documents are the same.
        out: File to write, for ``read_removed``.

    Raises:
        DataError: A file is missing, damaged or of another version.
    """
    keys = np.empty(0, dtype=np.uint64)
    for edges in _read_edges(store, edge_files):
        keys = np.union1d(keys, edges.view(_KEY))
    documents = _read_candidates(store, paths, keys)
    clusters = Clusters(documents.codes, threshold)
    for edges in _read_edges(store, edge_files):
        first, other = (np.searchsorted(keys, edges[name]) for name in ("first", "other"))
        clusters.join_band(first, other)
    records, count = _removals(documents, clusters.labels)
    write_removed(store, out, REMOVED, records, len(paths))
    return NearResult(count, len(records), clusters.candidates, clusters.verified)


def read_removed(store: OutputStore, out: str, position: int) -> dict[int, tuple[int, int, float]]:
    """What goes of one shard: row -> (position, row) of the document kept, similarity to it.

    Raises:
        DataError: The file is missing, damaged or of another version, or knows no such shard.
    """
    records = read_removed_records(store, out, REMOVED, _REMOVED, position)
    fields = ("kept_position", "kept_row", "similarity")
    kept = zip(*(records[field].tolist() for field in fields), strict=True)
    return dict(zip(records["row"].tolist(), kept, strict=True))


def _read_edges(store: OutputStore, paths: Sequence[str]) -> Iterator[NDArray[np.void]]:
    for path in paths:
        with open_work(store, path, EDGES) as file:
            body = max(0, file.size - 2 * len(header(EDGES)))
            count = body // _EDGE.itemsize
            if file.tail(body) != header(EDGES, count):
                raise DataError(f"{file.name} is damaged: it ends early")
            yield file.read(_EDGE, count, 0)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Documents with a candidate (m), by key."""

    positions: NDArray[np.uint64]
    rows: NDArray[np.uint64]
    scores: NDArray[np.float64]
    codes: NDArray[np.uint8]


def _read_candidates(
    store: OutputStore, paths: Sequence[str], keys: NDArray[np.uint64]
) -> _Candidates:
    positions, indices = keys >> np.uint64(32), (keys & _LOW).astype(np.int64)
    shards, starts = np.unique(positions, return_index=True)
    stops = np.append(starts, len(keys))[1:]
    if len(shards) and shards[-1] >= len(paths):
        raise DataError(f"{store.url}: an edge leads to shard {shards[-1]} of {len(paths)}")
    rows, scores = np.empty(len(keys), dtype=_KEY), np.empty(len(keys), dtype=_SCORE)
    permutations = 0
    if len(shards):
        with open_work(store, paths[int(shards[0])], SIGNATURES) as file:
            permutations = _Shard(file).permutations
    codes = _space(len(keys), permutations)

    def read(place: tuple[int, int, int]) -> None:
        position, start, stop = place
        with open_work(store, paths[position], SIGNATURES) as file:
            shard = _Shard(file)
            wanted = indices[start:stop]
            if wanted[-1] >= shard.count or shard.permutations != permutations:
                raise DataError(f"{file.name} is not the one in which edges were found")
            rows[start:stop] = file.read(_KEY, shard.count, shard.rows_at)[wanted]
            scores[start:stop] = file.read(_SCORE, shard.count, shard.scores_at)[wanted]
            codes[start:stop] = shard.codes(wanted)

    places = list(zip(shards.tolist(), starts.tolist(), stops.tolist(), strict=True))
    for _ in read_all(places, read):
        pass
    return _Candidates(positions, rows, scores, codes)


def _space(documents: int, permutations: int) -> NDArray[Any]:
    if documents * permutations <= BYTES_IN_MEMORY:
        return np.empty((documents, permutations), dtype=_BYTE)
    with tempfile.TemporaryFile(prefix="tamis-") as file:  # the mapping keeps it after its end
        return np.memmap(file, dtype=_BYTE, shape=(documents, permutations))


def _removals(documents: _Candidates, labels: NDArray[np.int64]) -> tuple[NDArray[np.void], int]:
    """Records of all but the best of each cluster, and the number of clusters of several."""
    # NaN sorts last, whatever its sign.
    order = np.lexsort((documents.rows, documents.positions, -documents.scores, labels))
    is_best = np.ones(len(order), dtype=bool)
    is_best[1:] = labels[order[1:]] != labels[order[:-1]]
    best = np.maximum.accumulate(np.where(is_best, np.arange(len(order)), 0))
    removed, kept = order[~is_best], order[best[~is_best]]
    records = np.empty(len(removed), dtype=_REMOVED)
    records["position"], records["row"] = documents.positions[removed], documents.rows[removed]
    records["kept_position"] = documents.positions[kept]
    records["kept_row"] = documents.rows[kept]
    for start in range(0, len(removed), _BLOCK):
        block = slice(start, start + _BLOCK)
        records["similarity"][block] = similarity(
            documents.codes[removed[block]], documents.codes[kept[block]]
        )
    return records, len(np.unique(labels[removed]))
