"""Write the rows of one part of a shard's output: Parquet, or JSON lines under zstd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.corpus.manifest import FileRecord
from tamis.corpus.store import HashingFile, OutputStore

OutputFormat = Literal["parquet", "jsonl.zst", "delta"]
"""``delta`` is Parquet files that the log of a Delta table names."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("score", pa.float64()),
        ("student_score", pa.float64()),
        ("encoder_score", pa.float64()),
        ("decision", pa.string()),
        ("reason", pa.string()),
        ("model_version", pa.string()),
        ("language", pa.string()),
        ("language_probability", pa.float64()),
        ("pii_found", pa.int64()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float64()),
        ("tokens", pa.int64()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("metadata", pa.string()),
    ]
)
"""Columns of kept, dropped and duplicate rows; ``metadata`` is a JSON object."""

_GROUP_ROWS = 8_192
_GROUP_CHARACTERS = 32_000_000


class PartWriter:
    """Rows into one file; see ``part_writer``.

    Attributes:
        rows: Rows written so far.
        record: What to commit; there once the file is.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.record: FileRecord | None = None

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows."""
        self.rows += len(rows)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append the rows of a batch of ``SCHEMA``."""
        self.write(batch.to_pylist())

    def finish(self) -> None:
        """Flush everything to the file."""


class _JsonlWriter(PartWriter):
    def __init__(self, sink: HashingFile) -> None:
        super().__init__()
        self.stream = pa.CompressedOutputStream(pa.PythonFile(sink, "w"), "zstd")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().write(rows)
        self.stream.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))

    def finish(self) -> None:
        self.stream.close()


class _ParquetWriter(PartWriter):
    def __init__(self, sink: HashingFile) -> None:
        super().__init__()
        self.writer = pq.ParquetWriter(
            pa.PythonFile(sink, "w"), SCHEMA, compression="zstd", write_page_checksum=True
        )
        self.pending: list[Mapping[str, Any]] = []
        self.characters = 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().write(rows)
        self.pending += rows
        self.characters += sum(len(row["text"]) for row in rows)
        if len(self.pending) >= _GROUP_ROWS or self.characters >= _GROUP_CHARACTERS:
            self._flush()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._flush()
        self.rows += batch.num_rows
        self.writer.write_batch(batch)

    def _flush(self) -> None:
        if self.pending:
            self.writer.write_table(pa.Table.from_pylist(self.pending, SCHEMA))
        self.pending, self.characters = [], 0

    def finish(self) -> None:
        self._flush()
        self.writer.close()


def suffix(form: OutputFormat) -> str:
    """Suffix of the files of a format."""
    return "parquet" if form == "delta" else form


@contextmanager
def part_writer(store: OutputStore, path: str) -> Iterator[PartWriter]:
    """Write one file by its suffix; it appears, with ``record`` set, when the block ends well.

    Args:
        store: Where.
        path: Below the store's root; ``.parquet`` holds rows of ``SCHEMA``, anything else is
            JSON lines under zstd.
    """
    with store.create(path) as sink:
        writer = _ParquetWriter(sink) if path.endswith(".parquet") else _JsonlWriter(sink)
        try:
            yield writer
            writer.finish()
        except BaseException:
            sink.abandon()
            raise
    writer.record = FileRecord(
        path=path, rows=writer.rows, bytes=sink.size, sha256=sink.sha256.hexdigest()
    )
