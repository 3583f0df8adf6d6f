"""Exact duplicates of a corpus, by 128-bit hashes that are joined section by section.

A shard's pass writes its hashes, sorted, into one work file; tasks over ranges of the 256 sections
(the first byte of a hash) read just their ranges of all files, and write down which rows repeat an
earlier one; the worker of a shard then reads the rows that concern it. No one holds all hashes.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.store import HashingFile, OutputStore
from tamis.errors import DataError

SECTIONS = 256
RECORDS_PER_TASK = 20_000_000
"""Hashes that one ``find_duplicates`` should read: under 3 GB even if all of them repeat."""
SMALLEST_TASK = 500_000
"""Hashes below which another worker is not worth opening every file once more."""
THREADS = 16
"""Files that a task reads at once: on an object store, waiting is all there is to it."""

Removed = NDArray[np.void]
Item = TypeVar("Item")
Result = TypeVar("Result")

HASHES = b"tamis-h\x01"
DUPLICATES = b"tamis-d\x01"

_HEADER = struct.Struct("<8s3Q")
_OFFSET = np.dtype("<u8")
_HASH = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("row", "<u4")])
_FOUND = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("position", "<u4"), ("row", "<u4")])
DUPLICATE = np.dtype(
    [("position", "<u4"), ("row", "<u8"), ("owner_position", "<u4"), ("owner_row", "<u8")]
)

_SPLIT_BYTES = 1 << 20
"""Up to here blanks are folded by splitting words: faster, and a bytes object for each word."""
_FOLD = bytes.maketrans(
    b"\t\n\r\x0b\x0c\x1c\x1d\x1e\x1fABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"         abcdefghijklmnopqrstuvwxyz",
)


def text_hash(text: str) -> bytes:
    """128-bit xxh3 (16 bytes) of a text in NFC, lower case, runs of blanks made one space.

    Crawls differ in these: how characters are composed, headlines in capitals, where lines are
    wrapped. Punctuation stays, as it is what tells code and formulas apart. Blanks are those of
    ASCII, the no-break space and the ideographic space.
    """
    import xxhash

    if not text.isascii():
        text = unicodedata.normalize("NFC", text).lower()
        text = text.replace("\u00a0", " ").replace("\u3000", " ")
    data = text.encode("utf-8", "surrogatepass").translate(_FOLD)
    if len(data) <= _SPLIT_BYTES:
        data = b" ".join(data.split())
    while b"  " in data:  # slower, and in no more memory than the text: halves every run
        data = data.replace(b"  ", b" ")
    return xxhash.xxh3_128_digest(data.strip(b" "))


def write_hashes(
    store: OutputStore,
    path: str,
    digests: Sequence[bytes] | NDArray[np.uint8],
    rows: NDArray[Any] | Sequence[int],
) -> HashingFile:
    """Write the hashes of a shard's documents, sorted, behind the offsets of the 256 sections.

    Args:
        store: Where to.
        path: The file.
        digests: Hash of each document: n times 16 bytes, or an array (n, 16).
        rows: Row of each document in the shard (n), below 2^32.

    Returns:
        The finished file, for its size and sha256.

    Raises:
        DataError: The lengths differ, or a row is out of range.
    """
    if not isinstance(digests, np.ndarray):
        digests = np.frombuffer(b"".join(digests), dtype=np.uint8)
    halves = np.ascontiguousarray(digests, dtype=np.uint8).reshape(-1, 16).view(">u8")
    numbers = np.asarray(rows, dtype=np.int64)
    if len(numbers) != len(halves):
        raise DataError(f"{path}: {len(halves)} hashes but {len(numbers)} rows")
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= 1 << 32):
        raise DataError(f"{path}: rows must lie between 0 and 2^32")
    records = np.empty(len(halves), dtype=_HASH)
    order = np.lexsort((numbers, halves[:, 1], halves[:, 0]))
    records["hi"], records["lo"] = halves[order].T
    records["row"] = numbers[order]
    first_bytes = (records["hi"] >> np.uint64(56)).astype(np.int64)
    offsets = np.searchsorted(first_bytes, np.arange(SECTIONS + 1)).astype(_OFFSET)
    with store.create(path) as file:
        file.write(header(HASHES, len(records)))
        file.write(offsets.tobytes())
        file.write(records.tobytes())
    written: HashingFile = file
    return written


def sections_for(documents: int, workers: int) -> list[range]:
    """Ranges of sections, one a task: enough to bound a task's memory and to use the workers.

    Args:
        documents: Hashes in all files.
        workers: Tasks that run at the same time.
    """
    bounded = -(-documents // RECORDS_PER_TASK)
    useful = min(workers, documents // SMALLEST_TASK)
    tasks = min(SECTIONS, max(1, bounded, useful))
    edges = [SECTIONS * task // tasks for task in range(tasks + 1)]
    return [range(start, stop) for start, stop in pairwise(edges)]


def find_duplicates(store: OutputStore, paths: Sequence[str], sections: range, out: str) -> int:
    """Find all documents whose hash an earlier document has; a task over a range of sections.

    Of each group the first by (position, row) is the owner and stays.

    Args:
        store: Where all files lie.
        paths: The shards' files of ``write_hashes``, by position.
        sections: Consecutive sections, such as one of ``sections_for``.
        out: File to write, for ``read_duplicates``.

    Returns:
        How many duplicates were found.

    Raises:
        DataError: A file is missing, damaged or of another version.
    """

    def read(path: str) -> NDArray[np.void]:
        with open_work(store, path, HASHES) as file:
            return _read_sections(file, sections)

    parts = list(read_all(paths, read))
    found = _repeated(parts)
    del parts
    # The files are sorted by (hash, row) and follow by position; the sort is stable.
    found = found[np.lexsort((found["lo"], found["hi"]))]
    is_owner = np.ones(len(found), dtype=bool)
    is_owner[1:] = (found["hi"][1:] != found["hi"][:-1]) | (found["lo"][1:] != found["lo"][:-1])
    owner = np.maximum.accumulate(np.where(is_owner, np.arange(len(found)), 0))[~is_owner]
    records = np.empty(len(owner), dtype=DUPLICATE)
    for field in ("position", "row"):
        records[field] = found[field][~is_owner]
        records[f"owner_{field}"] = found[field][owner]
    write_removed(store, out, DUPLICATES, records, len(paths))
    return len(records)


def _read_sections(file: WorkFile, sections: range) -> NDArray[np.void]:
    (count,) = file.sizes[:1]
    start = (SECTIONS + 1) * _OFFSET.itemsize
    file.expect(start + count * _HASH.itemsize)
    offsets = file.read(_OFFSET, SECTIONS + 1, 0)
    if offsets[0] != 0 or offsets[-1] != count or (offsets[1:] < offsets[:-1]).any():
        raise DataError(f"{file.name} is damaged: its sections overlap")
    first, last = int(offsets[sections.start]), int(offsets[sections.stop])
    return file.read(_HASH, last - first, start + first * _HASH.itemsize)


def _repeated(parts: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """Records whose first 64 bits occur more than once, with their position."""
    hi = np.concatenate([part["hi"] for part in parts] or [np.empty(0, dtype=np.uint64)])
    order = np.argsort(hi)
    hi = hi[order]
    equal = hi[1:] == hi[:-1]
    is_repeated = np.zeros(len(hi), dtype=bool)
    is_repeated[order[1:][equal]] = True
    is_repeated[order[:-1][equal]] = True
    del hi, order
    found = np.empty(np.count_nonzero(is_repeated), dtype=_FOUND)
    seen = used = 0
    for position, part in enumerate(parts):
        chosen = part[is_repeated[seen : seen + len(part)]]
        target = found[used : used + len(chosen)]
        target["position"] = position
        for field in ("hi", "lo", "row"):
            target[field] = chosen[field]
        seen, used = seen + len(part), used + len(chosen)
    return found


def read_duplicates(
    store: OutputStore, outs: Sequence[str], position: int
) -> dict[int, tuple[int, int]]:
    """Duplicates in one shard: row -> (position, row) of the document that stays.

    Args:
        store: Where the files lie.
        outs: All files that ``find_duplicates`` wrote.
        position: The shard's position.

    Raises:
        DataError: A file is missing, damaged or of another version, or knows no such shard.
    """
    found: dict[int, tuple[int, int]] = {}

    def read(path: str) -> Removed:
        return read_removed_records(store, path, DUPLICATES, DUPLICATE, position)

    for records in read_all(outs, read):
        owners = zip(records["owner_position"].tolist(), records["owner_row"].tolist(), strict=True)
        found.update(zip(records["row"].tolist(), owners, strict=True))
    return found


# Work files: what the duplicate stages share.


def header(kind: bytes, *sizes: int) -> bytes:
    """Beginning of a work file: its kind (8 bytes, the last is the version), up to 3 sizes."""
    return _HEADER.pack(kind, *sizes, *[0] * (3 - len(sizes)))


class WorkFile:
    """A work file that is read by ranges.

    Attributes:
        name: What to call it in errors.
        sizes: The three sizes of its header.
    """

    def __init__(self, file: IO[bytes], name: str, kind: bytes) -> None:
        self.file, self.name = file, name
        self.size = file.seek(0, 2)
        file.seek(0)
        data = file.read(_HEADER.size)
        if len(data) < _HEADER.size or data[:7] != kind[:7]:
            raise DataError(f"{name} is not the work file it should be")
        if data[7] != kind[7]:
            raise DataError(f"{name} has version {data[7]}, this is version {kind[7]}")
        self.sizes: tuple[int, int, int] = _HEADER.unpack(data)[1:]

    def expect(self, body: int) -> None:
        """Raise ``DataError`` unless ``body`` bytes follow the header."""
        if self.size != _HEADER.size + body:
            raise DataError(f"{self.name} is damaged: {self.size} bytes, not {_HEADER.size + body}")

    def tail(self, start: int) -> bytes:
        """All that begins ``start`` bytes after the header."""
        self.file.seek(_HEADER.size + start)
        return self.file.read()

    def read(self, dtype: np.dtype[Any], count: int, start: int) -> NDArray[Any]:
        """``count`` items that begin ``start`` bytes after the header."""
        if count == 0:
            return np.empty(0, dtype=dtype)
        self.file.seek(_HEADER.size + start)
        data = self.file.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise DataError(f"{self.name} is damaged: it ends early")
        return np.frombuffer(data, dtype=dtype)


@contextmanager
def open_work(store: OutputStore, path: str, kind: bytes) -> Iterator[WorkFile]:
    """Open a work file; raises ``DataError`` when it is missing or of another kind or version."""
    name = f"{store.url}: {path}"
    try:
        file = store.open(path)
    except FileNotFoundError:
        raise DataError(f"{name} is not there") from None
    with file:
        yield WorkFile(file, name, kind)


def read_all(items: Sequence[Item], read: Callable[[Item], Result]) -> Iterator[Result]:
    """``read`` of every item, in order, some of them at once in threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(read, items)


def write_removed(
    store: OutputStore, path: str, kind: bytes, records: Removed, shards: int
) -> HashingFile:
    """Write rows to be removed, sorted, behind an index by shard.

    Args:
        store: Where to.
        path: The file.
        kind: Of the work file.
        records: With fields ``position`` and ``row`` among others (n); any order.
        shards: Number of shards.
    """
    records = records[np.lexsort((records["row"], records["position"]))]
    index = np.searchsorted(records["position"], np.arange(shards + 1)).astype(_OFFSET)
    with store.create(path) as file:
        file.write(header(kind, shards, len(records)))
        file.write(index.tobytes())
        file.write(records.tobytes())
    written: HashingFile = file
    return written


def read_removed_records(
    store: OutputStore, path: str, kind: bytes, dtype: np.dtype[Any], position: int
) -> Removed:
    """Records of one shard in a file of ``write_removed``, sorted by row.

    Raises:
        DataError: The file is missing, damaged or of another version, or knows no such shard.
    """
    with open_work(store, path, kind) as file:
        shards, count, _ = file.sizes
        start = (shards + 1) * _OFFSET.itemsize
        file.expect(start + count * dtype.itemsize)
        if not 0 <= position < shards:
            raise DataError(f"{file.name} knows {shards} shards, none at {position}")
        first, last = file.read(_OFFSET, 2, position * _OFFSET.itemsize).tolist()
        if not first <= last <= count:
            raise DataError(f"{file.name} is damaged: its index is out of range")
        return file.read(dtype, last - first, start + first * dtype.itemsize)
