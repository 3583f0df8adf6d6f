"""A few rows of an output's files, at random or by their place, without reading the files whole.

Of Parquet, the columns that decide (``reason``, ``score``, ``row``) are read first and texts only
of the rows that are shown. JSON lines can only be read from their beginning.
"""

from __future__ import annotations

import heapq
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.corpus.store import OutputStore
from tamis.corpus.streams import CHUNK, lines

PARQUET_ROWS = 100_000
"""Most rows of one Parquet file whose deciding columns are looked at."""
LINES_ROWS = 20_000
"""Most lines of one file of JSON lines that are looked at."""

_BATCH = 64
_BLOCK_LINES = 512
_LONGEST_LINE = 256_000_000
_FIELD = 1_000
_LONG = 8_192
_LIGHT = ["reason", "score", "row"]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pick:
    """A row that may be shown.

    Attributes:
        rank: Lower ones are shown first.
        path: Its file.
        index: Of the row in the file, from 0.
        row: The row, where it was read already.
    """

    rank: float
    path: str
    index: int
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a file, as far as they are needed to choose among them.

    Attributes:
        index: Places in the file (n,).
        reasons: Names of the reasons, and for each row which of them it has (n,).
        scores: NaN where there is none (n,).
        numbers: Rows of the input (n,).
        rows: The rows themselves, where reading a part of them costs as much.
    """

    index: NDArray[np.int64]
    reasons: tuple[list[str], NDArray[np.int64]]
    scores: NDArray[np.float64]
    numbers: NDArray[np.int64]
    rows: list[Row] | None = None


class Lowest:
    """The picks with the lowest ranks among all that are offered.

    Args:
        size: How many.
        total: How many there are to be offered in all.

    Attributes:
        seen: How many were offered.
    """

    def __init__(self, size: int, total: int) -> None:
        self.size, self.total, self.seen = size, total, 0
        self._heap: list[tuple[float, str, int, Pick]] = []

    def offer(self, path: str, block: Block, where: NDArray[np.int64], ranks: Any) -> None:
        """Offer the rows ``where`` (m,) of a block with their ranks (m,)."""
        self.seen += len(where)
        for i in np.argsort(ranks, kind="stable")[: self.size].tolist():
            at = int(where[i])
            row = block.rows[at] if block.rows is not None else None
            pick = Pick(float(ranks[i]), path, int(block.index[at]), row)
            # The ends of the heap are the highest ranks: those give way.
            entry = (-pick.rank, pick.path, -pick.index, pick)
            if len(self._heap) < self.size:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heappushpop(self._heap, entry)

    @property
    def full(self) -> bool:
        """Whether there are as many as wanted, or as there are."""
        return len(self._heap) >= self.size or self.seen >= self.total

    def picks(self) -> list[Pick]:
        """Lowest rank first."""
        found = [entry[3] for entry in self._heap]
        return sorted(found, key=lambda pick: (pick.rank, pick.path, pick.index))


@dataclass
class RowReader:
    """Reads rows of an output's files within bounds.

    Attributes:
        store: The output.
        cut: Characters that are kept of a text.
        looked_at: Rows of which something was read.
        problems: Files that could not be read, and why.
    """

    store: OutputStore
    cut: int
    looked_at: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def blocks(self, path: str, rng: np.random.Generator) -> Iterator[Block]:
        """Rows of a file to choose among; of a large file only some."""
        with self._noted(path):
            yield from self._parquet(path, rng) if _is_parquet(path) else self._lines(path)

    def _parquet(self, path: str, rng: np.random.Generator) -> Iterator[Block]:
        with self.store.open(path) as raw:
            file = pq.ParquetFile(raw)
            starts, left = _starts(file), PARQUET_ROWS
            for group in rng.permutation(file.num_row_groups).tolist():
                at = starts[group]
                for batch in file.iter_batches(8_192, [group], _LIGHT, use_threads=False):
                    self.looked_at += batch.num_rows
                    left -= batch.num_rows
                    index = np.arange(at, at + batch.num_rows)
                    at += batch.num_rows
                    yield _light_block(index, batch)
                    if left <= 0:
                        return

    def _lines(self, path: str) -> Iterator[Block]:
        rows: list[Row] = []
        at = 0
        for row in self._decoded(path):
            rows.append(row)
            if len(rows) == _BLOCK_LINES:
                yield _full_block(at, rows)
                at, rows = at + len(rows), []
        if rows:
            yield _full_block(at, rows)

    def _decoded(self, path: str) -> Iterator[Row]:
        with self.store.open(path) as raw, pa.CompressedInputStream(raw, "zstd") as stream:
            pieces = iter(lambda: stream.read(CHUNK), b"")
            for line in lines(pieces, _LONGEST_LINE):
                row = msgspec.json.decode(line.data, type=dict[str, Any])
                self.looked_at += 1
                yield self._shortened(row)
                if line.number >= LINES_ROWS:
                    return

    def _shortened(self, row: Row) -> Row:
        """A row without the ends of its long texts; ``characters`` says how long its text was."""
        text = row.get("text")
        characters = {"characters": len(text)} if isinstance(text, str) else {}
        limits = {"text": self.cut, "raw": _LONG, "metadata": _LONG}
        cut = {k: v[: limits.get(k, _FIELD)] if isinstance(v, str) else v for k, v in row.items()}
        return cut | characters

    def complete(self, picks: Iterable[Pick]) -> dict[tuple[str, int], Row]:
        """The rows of picks, by file and place; those that cannot be read are left out."""
        found: dict[tuple[str, int], Row] = {}
        missing: dict[str, set[int]] = defaultdict(set)
        for pick in picks:
            if pick.row is not None:
                found[pick.path, pick.index] = pick.row
            else:
                missing[pick.path].add(pick.index)
        for path, places in missing.items():
            with self._noted(path), self.store.open(path) as raw:
                for at, row in self._at(pq.ParquetFile(raw), places):
                    found[path, at] = row
        return found

    def numbered(self, path: str, numbers: Collection[int]) -> dict[int, Row]:
        """The rows of a file that have these row numbers, as far as they are found cheaply."""
        found: dict[int, Row] = {}
        with self._noted(path):
            if not _is_parquet(path):
                for row in self._decoded(path):
                    if row["row"] in numbers:
                        found[row["row"]] = row
                    if len(found) == len(numbers) or row["row"] > max(numbers):
                        break
                return found
            with self.store.open(path) as raw:
                file = pq.ParquetFile(raw)
                places = self._places(file, numbers)
                found = {row["row"]: row for _, row in self._at(file, places)}
        return found

    def _places(self, file: pq.ParquetFile, numbers: Collection[int]) -> set[int]:
        """Where in a file the rows with these numbers are, by the statistics of its row groups."""
        wanted, places = np.array(sorted(numbers)), set()
        column = file.schema_arrow.get_field_index("row")
        for group, start in enumerate(_starts(file)):
            known = file.metadata.row_group(group).column(column).statistics
            if known is not None and known.has_min_max:
                inside = (wanted >= known.min) & (wanted <= known.max)
                if not inside.any():
                    continue
            table = file.read_row_group(group, ["row"], use_threads=False)
            self.looked_at += table.num_rows
            here = np.flatnonzero(np.isin(table.column(0).to_numpy(), wanted))
            places |= {start + at for at in here.tolist()}
        return places

    def _at(self, file: pq.ParquetFile, places: set[int]) -> Iterator[tuple[int, Row]]:
        """Whole rows at some places of a file, a small batch at a time."""
        starts = _starts(file)
        for group, start in enumerate(starts):
            end = start + file.metadata.row_group(group).num_rows
            here = {place for place in places if start <= place < end}
            if not here:
                continue
            at = start
            for batch in file.iter_batches(_BATCH, [group], use_threads=False):
                for place in sorted(p for p in here if at <= p < at + batch.num_rows):
                    self.looked_at += 1
                    yield place, self._shortened(batch.slice(place - at, 1).to_pylist()[0])
                at += batch.num_rows
                if at > max(here):
                    break

    @contextmanager
    def _noted(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, pa.ArrowException, msgspec.MsgspecError) as error:
            self.problems[path] = f"{type(error).__name__}: {error}"[:300]


def file_random(seed: int, path: str) -> np.random.Generator:
    """Random numbers that depend on the seed and the file, not on what was read before."""
    return np.random.default_rng([seed, zlib.crc32(path.encode())])


def offer_by_reason(
    path: str,
    block: Block,
    wanted: Mapping[str, Lowest],
    rng: np.random.Generator,
    name_of_all: str = "",
) -> None:
    """Offer each row at random to the group of its reason, or all rows to one group."""
    ranks = rng.random(len(block.index))
    names, codes = block.reasons
    if name_of_all:
        names, codes = [name_of_all], np.zeros(len(ranks), dtype=np.int64)
    for code, name in enumerate(names):
        if name in wanted:
            where = np.flatnonzero(codes == code)
            wanted[name].offer(path, block, where, ranks[where])


def _is_parquet(path: str) -> bool:
    return path.endswith(".parquet")


def _starts(file: pq.ParquetFile) -> list[int]:
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return [0, *np.cumsum(sizes).tolist()][: len(sizes)]


def _light_block(index: NDArray[np.int64], batch: pa.RecordBatch) -> Block:
    encoded = batch.column("reason").fill_null("").dictionary_encode()
    return Block(
        index=index,
        reasons=(encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)),
        scores=batch.column("score").to_numpy(zero_copy_only=False).astype(np.float64),
        numbers=batch.column("row").to_numpy(zero_copy_only=False).astype(np.int64),
    )


def _full_block(start: int, rows: list[Row]) -> Block:
    names = sorted({str(row["reason"]) for row in rows})
    code = {name: i for i, name in enumerate(names)}
    scores = [row.get("score") for row in rows]
    return Block(
        index=np.arange(start, start + len(rows)),
        reasons=(names, np.array([code[str(row["reason"])] for row in rows], dtype=np.int64)),
        scores=np.array([np.nan if s is None else float(s) for s in scores]),
        numbers=np.array([int(row["row"]) for row in rows], dtype=np.int64),
        rows=rows,
    )
