"""Documents that share a run of words with an evaluation set (Brown et al. 2020, appendix C)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.corpus.settings import DecontaminationSettings
from tamis.corpus.streams import BrokenStream, Compression, chunks, lines, open_tracked
from tamis.corpus.text_statistics import Words, longer
from tamis.errors import UsageError

SHORTEST_RUN = 8
"""Words that a whole text of an evaluation set must have to be looked for, if under ``ngram``."""

_KEY = "filter.decontamination.files"
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_KNOWN = ".jsonl, .ndjson, .json, .csv, .txt (each also with .gz or .zst) and .parquet"
_LONGEST_LINE = 100_000_000
_BATCH = 250_000
_STRIDE, _OVERLAP = 1_000_000, 10_000

Hashes = NDArray[np.uint64]


class Decontaminator:
    """Finds texts that hold a run of words of an evaluation set.

    Words are runs of letters, digits and combining marks in lower case; punctuation and blanks
    between them do not count. Every string of a row counts by itself, in lists and objects too; a
    text file has a row in each line. A string with fewer words than ``ngram`` is looked for as a
    whole if it has at least :data:`SHORTEST_RUN` words, else not at all. What many rows share, such
    as one long instruction, is looked for as well: leave such columns out of the file.

    Runs are compared by 64-bit hashes alone: 10^9 documents of 10^3 runs against an index of 10^6
    have a chance of 5% that one document is dropped for nothing. A run of more than 10,000
    characters may be missed.

    Args:
        settings: Evaluation files, words in a run and how many different runs must be found.

    Attributes:
        runs: Different runs that are looked for.
        too_short: Rows of the evaluation sets of which no string can be found.

    Raises:
        UsageError: A file is missing, cannot be read, or has no string long enough.
    """

    def __init__(self, settings: DecontaminationSettings) -> None:
        self._ngram, self._least = settings.ngram, settings.min_matches
        self._names = [PurePosixPath(file).name for file in settings.files]
        self.too_short = 0
        found = [self._index(file) for file in settings.files]
        every = np.concatenate([hashes for hashes, _ in found] or [np.zeros(0, np.uint64)])
        files = np.repeat(np.arange(len(found)), [len(hashes) for hashes, _ in found])
        # A run of several files belongs to the first of them.
        self._runs, first = np.unique(every, return_index=True)
        self._files = files[first].astype(np.int32)
        self._sizes = sorted({size for _, sizes in found for size in sizes})
        self.runs = len(self._runs)
        bits = max(10, (16 * self.runs).bit_length())
        self._shift = np.uint64(64 - bits)
        # One byte for each prefix of a hash: nearly all runs of a text are told by one look.
        self._prefixes = np.zeros(1 << bits, dtype=bool)
        self._prefixes[self._runs >> self._shift] = True

    def reason(self, text: str) -> str | None:
        """``contaminated:FILE`` with the file of the run found first, or None."""
        if not self.runs:
            return None
        found: dict[int, None] = {}
        for start in range(0, max(1, len(text) - _OVERLAP), _STRIDE):
            found |= dict.fromkeys(self._places(text[start : start + _STRIDE + _OVERLAP]))
            if len(found) >= self._least:
                return f"contaminated:{self._names[self._files[next(iter(found))]]}"
        return None

    def _places(self, text: str) -> list[int]:
        """Positions in the index of the runs that a text holds, for each size from the left."""
        words = Words(text.lower()).hashes
        places: list[int] = []
        grams = words
        for size in range(1, self._sizes[-1] + 1):
            if size > 1:
                grams = longer(grams, words, size)
            if size in self._sizes and len(grams):
                likely = grams[self._prefixes[grams >> self._shift]]
                near = np.minimum(np.searchsorted(self._runs, likely), self.runs - 1)
                places += near[self._runs[near] == likely].tolist()
        return places

    def _index(self, file: str) -> tuple[Hashes, set[int]]:
        """Different runs of a file, and which numbers of words they have."""
        parts: list[Hashes] = []
        sizes: set[int] = set()
        for rows in _batches(file):
            hashes, present, short = self._runs_of(rows)
            parts.append(np.unique(hashes))
            sizes |= present
            self.too_short += short
        runs = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)
        if not len(runs):
            raise UsageError(
                f"{_KEY}: {file!r} has no text of at least {min(self._ngram, SHORTEST_RUN)} words"
            )
        return runs, sizes

    def _runs_of(self, rows: Sequence[Sequence[str]]) -> tuple[Hashes, set[int], int]:
        """Runs of several rows at once, their sizes, and how many rows have none."""
        texts = [text.lower() for row in rows for text in row]
        row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
        words = Words("\n".join(texts))
        owner = np.searchsorted(ends, words.starts, side="right")
        counts = np.bincount(owner, minlength=len(texts))
        first = np.cumsum(counts) - counts
        sizes = np.where(counts < self._ngram, counts, self._ngram)
        sizes[sizes < min(self._ngram, SHORTEST_RUN)] = 0
        parts: list[Hashes] = [np.zeros(0, np.uint64)]
        grams = words.hashes
        for size in range(1, self._ngram + 1):
            if size > 1:
                grams = longer(grams, words.hashes, size)
            if size == self._ngram:
                parts.append(grams[owner[: len(grams)] == owner[size - 1 :]])
            else:
                parts.append(grams[first[sizes == size]])
        findable = np.zeros(len(rows), dtype=bool)
        findable[row_of[sizes > 0]] = True
        present = set(sizes[sizes > 0].tolist())
        return np.concatenate(parts), present, len(rows) - int(findable.sum())


def fingerprint(settings: DecontaminationSettings) -> str:
    """sha256 over names and content of the evaluation files, in hexadecimal.

    Raises:
        UsageError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for file in settings.files:
        content = hashlib.sha256()
        try:
            for chunk in chunks(file, "none"):
                content.update(chunk)
        except (OSError, ValueError, ImportError) as error:
            raise _unreadable(file, error) from error
        digest.update(f"{PurePosixPath(file).name}\n{content.hexdigest()}\n".encode())
    return digest.hexdigest()


def _batches(file: str) -> Iterator[list[list[str]]]:
    """The strings of the rows of a file, some hundred thousand characters at a time."""
    batch: list[list[str]] = []
    characters = 0
    try:
        for row in _rows(file):
            batch.append(row)
            characters += sum(map(len, row)) + 1
            if characters >= _BATCH:
                yield batch
                batch, characters = [], 0
    except (
        OSError,
        ValueError,
        ImportError,
        RecursionError,
        BrokenStream,
        csv.Error,
        pa.ArrowException,
        msgspec.MsgspecError,
    ) as error:
        raise _unreadable(file, error) from error
    if batch:
        yield batch


def _unreadable(file: str, error: Exception) -> UsageError:
    return UsageError(f"{_KEY}: {file!r} cannot be read: {error or type(error).__name__}")


def _rows(file: str) -> Iterator[list[str]]:
    """The strings of each row of a file."""
    path = PurePosixPath(file.lower())
    compression = _COMPRESSIONS.get(path.suffix, "none")
    suffix = path.suffix if compression == "none" else PurePosixPath(path.stem).suffix
    if suffix == ".parquet" and compression == "none":
        yield from _parquet(file)
    elif suffix == ".csv":
        records = csv.reader(_lines(file, compression), strict=True)
        next(records, None)
        yield from records
    elif suffix == ".txt":
        yield from ([line] for line in _lines(file, compression) if line.strip())
    elif suffix in (".jsonl", ".ndjson", ".json"):
        yield from _json(file, compression)
    else:
        raise ValueError(f"it is of no known format; known are {_KNOWN}")


def _lines(file: str, compression: Compression) -> Iterator[str]:
    for line in lines(chunks(file, compression), _LONGEST_LINE):
        if not line.whole:
            raise ValueError(f"line {line.number} is over {_LONGEST_LINE:,} bytes")
        yield line.data.decode("utf-8-sig" if line.number == 1 else "utf-8") + "\n"


def _json(file: str, compression: Compression) -> Iterator[list[str]]:
    for number, line in enumerate(_lines(file, compression), 1):
        if line.isspace():
            continue
        try:
            value = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(f"line {number} is not one JSON value ({error})") from None
        # A whole array in one line is as good as a row in each line.
        for row in value if isinstance(value, list) else [value]:
            yield _strings(row)


def _parquet(file: str) -> Iterator[list[str]]:
    with open_tracked(file) as raw:
        for batch in pq.ParquetFile(raw).iter_batches(256, use_threads=False):
            for row in batch.to_pylist():
                yield _strings(row)


def _strings(value: Any) -> list[str]:
    """Every string in a value of lists and objects."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found
