"""Read a shard row by row: what can be read is a document, the rest is quarantined.

Broken input never stops a run and is never passed over in silence; a failing storage raises
``OSError``, so that the shard is read again rather than believed to be short.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.corpus.document import Document, Quarantined, content_hash, normalise
from tamis.corpus.shards import Format, Shard, format_of, list_shards
from tamis.corpus.streams import HEAD, BrokenStream, Line, chunks, lines, open_tracked
from tamis.task import Columns

__all__ = ["Format", "ReadLimits", "Shard", "format_of", "list_shards", "read_shard"]

_BOM = b"\xef\xbb\xbf"
Row = Document | Quarantined


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on what is held in memory.

    Attributes:
        max_line_bytes: Longest line, CSV record or text; a longer one is quarantined.
        batch_rows: Rows of a Parquet file decoded at a time.
    """

    max_line_bytes: int = 20_000_000
    batch_rows: int = 1_024


def read_shard(
    shard: Shard, columns: Columns, limits: ReadLimits | None = None
) -> Iterator[Document | Quarantined]:
    """Stream the rows of a shard in order.

    Text, id and source leave the row; every other column is the document's metadata (the label
    and group columns too). Without an id column, ``id`` is used where the data have it, and the
    content hash where they do not; without a source column, ``source`` likewise. Blank lines are
    no rows.

    Args:
        shard: What to read.
        columns: Which column holds what.
        limits: Bounds on memory.

    Raises:
        OSError: The storage failed; nothing is wrong with the data.
    """
    limits = limits or ReadLimits()
    if shard.size == 0:
        return
    rows = _Rows(shard.name, columns, limits)
    if shard.format == "parquet":
        yield from _parquet(shard, rows)
        return
    cut = lines(chunks(shard.url, shard.compression), limits.max_line_bytes)
    reader = _jsonl(cut, rows) if shard.format == "jsonl" else _csv(cut, rows)
    try:
        yield from reader
    except BrokenStream as error:
        place = f"line {error.line}"
        yield rows.broken(place, f"corrupt_{shard.compression}", f"{error}", error.partial)


class _Rows:
    """Turns what a format's reader found into documents, counting rows from 0."""

    def __init__(self, shard: str, columns: Columns, limits: ReadLimits) -> None:
        self.shard, self.limits, self.next = shard, limits, 0
        self.text = columns.text
        self.id = columns.id or "id"
        self.source = columns.source or "source"
        # A column may serve twice; whoever trains looks for these two in the metadata.
        self.shared = {columns.label, columns.group}

    def broken(self, place: str, reason: str, detail: str, raw: bytes = b"") -> Quarantined:
        """A row that could not be read."""
        self.next += 1
        return Quarantined(self.shard, self.next - 1, place, reason, detail, raw[:HEAD])

    def unreadable(self, place: str, reason: str, detail: str) -> Quarantined:
        """The whole shard, where not a row could be told apart."""
        return Quarantined(self.shard, -1, place, reason, detail)

    def row(self, place: str, fields: dict[str, Any], raw: bytes) -> Row:
        """A document from named values, or the reason why it is none."""
        if fields.get(self.text) is None:
            return self.broken(place, "missing_text", f"no value in {self.text!r}", raw)
        text = fields.pop(self.text)
        if not isinstance(text, str):
            kind = type(text).__name__
            return self.broken(place, "text_not_string", f"{self.text!r} holds a {kind}", raw)
        text = text.replace("\x00", "")
        if not text or text.isspace():
            return self.broken(place, "empty_text", f"{self.text!r} is empty", raw)
        if len(text) > self.limits.max_line_bytes:
            return self.broken(place, "too_long", f"{len(text):,} characters", raw)
        given = self._take(fields, self.id)
        identity = given or content_hash(normalise(text))
        source = self._take(fields, self.source) or ""
        self.next += 1
        return Document(
            identity, text, source, self.shard, self.next - 1, fields, id_given=bool(given)
        )

    def _take(self, fields: dict[str, Any], key: str) -> str | None:
        value = fields.get(key)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            if key not in self.shared:
                del fields[key]
            return str(value)
        if value is None and key not in self.shared:
            fields.pop(key, None)
        return None


def _without_bom(line: Line) -> bytes:
    return line.data.removeprefix(_BOM) if line.number == 1 else line.data


def _jsonl(cut: Iterator[Line], rows: _Rows) -> Iterator[Row]:
    decode = msgspec.json.Decoder().decode
    for line in cut:
        place, data = f"line {line.number}", _without_bom(line)
        if not line.whole:
            yield rows.broken(place, "too_long", f"a line of {line.length:,} bytes", data)
            continue
        if not data or data.isspace():
            continue
        try:
            value = decode(data.replace(b"\x00", b""))
        except UnicodeDecodeError as error:
            yield rows.broken(place, "invalid_utf8", str(error), data)
            continue
        except (msgspec.DecodeError, RecursionError) as error:
            yield rows.broken(place, "invalid_json", str(error), data)
            continue
        if isinstance(value, dict):
            yield rows.row(place, value, data)
        else:
            detail = f"a JSON {type(value).__name__} where an object should be"
            yield rows.broken(place, "not_an_object", detail, data)


class _TooLong(Exception):
    """A CSV record over the limit."""


class _CsvLines:
    """Feeds a csv reader, remembering what the record at hand was made of."""

    def __init__(self, cut: Iterator[Line], limit: int) -> None:
        self.cut, self.limit = cut, limit
        self.start_record()

    def start_record(self) -> None:
        self.first = self.last = self.size = 0
        self.head, self.valid = b"", True

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = next(self.cut)
        data = _without_bom(line)
        self.first, self.last = self.first or line.number, line.number
        self.size += line.length + 1
        if len(self.head) < HEAD:
            self.head += data[:HEAD] + b"\n"
        if self.size > self.limit + 1:
            raise _TooLong(f"a record of over {self.limit:,} bytes")
        try:
            return data.decode() + "\n"
        except UnicodeDecodeError:
            self.valid = False
            return data.decode(errors="replace") + "\n"

    @property
    def place(self) -> str:
        return f"line {self.first}" + (f"-{self.last}" if self.last > self.first else "")


def _csv(cut: Iterator[Line], rows: _Rows) -> Iterator[Row]:
    csv.field_size_limit(rows.limits.max_line_bytes + 1)
    feed = _CsvLines(cut, rows.limits.max_line_bytes)
    reader = csv.reader(feed, strict=True)
    header: list[str] | None = None
    while True:
        feed.start_record()
        try:
            values = next(reader)
        except StopIteration:
            return
        except (csv.Error, _TooLong) as error:
            reason = "too_long" if isinstance(error, _TooLong) else "invalid_csv"
            if header is None:
                yield rows.unreadable(feed.place, "bad_header", str(error))
                return
            yield rows.broken(feed.place, reason, str(error), feed.head)
            continue
        if not values:
            continue
        if header is None:
            header = values
            if values.count(rows.text) != 1 or len(set(values)) < len(values) or not feed.valid:
                yield rows.unreadable(feed.place, "bad_header", _bad_header(values, rows.text))
                return
        elif not feed.valid:
            yield rows.broken(feed.place, "invalid_utf8", "bytes that are not UTF-8", feed.head)
        elif len(values) != len(header):
            detail = f"{len(values)} fields where the header has {len(header)}"
            yield rows.broken(feed.place, "wrong_field_count", detail, feed.head)
        else:
            yield rows.row(feed.place, dict(zip(header, values, strict=True)), feed.head)


def _bad_header(names: Sequence[str], text: str) -> str:
    shown = ", ".join(name[:40] for name in names[:20])
    return f"no single column {text!r} among distinct columns; there are: {shown}"


def _parquet(shard: Shard, rows: _Rows) -> Iterator[Row]:
    with open_tracked(shard.url) as file:
        try:
            parquet = pq.ParquetFile(file, buffer_size=1 << 20, page_checksum_verification=True)
            names = list(parquet.schema_arrow.names)
            groups = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            if file.error is not None:
                raise file.error from None
            yield rows.unreadable("footer", "corrupt_parquet", str(error))
            return
        if names.count(rows.text) != 1:
            yield rows.unreadable("schema", "missing_column", _bad_header(names, rows.text))
            return
        first = 0
        for group, count in enumerate(groups):
            rows.next = first
            try:
                for batch in parquet.iter_batches(
                    rows.limits.batch_rows, row_groups=[group], use_threads=False
                ):
                    yield from _batch(batch, names, rows)
            except (OSError, pa.ArrowException) as error:
                if file.error is not None:
                    raise file.error from None
                if lost := first + count - rows.next:
                    detail = f"{lost:,} of its {count:,} rows are lost: {error}"
                    yield rows.broken(f"row group {group}", "corrupt_parquet", detail)
            first += count


class _Unreadable:
    """A value that Arrow holds and Python cannot."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


def _batch(batch: pa.RecordBatch, names: list[str], rows: _Rows) -> Iterator[Row]:
    table = [_values(column) for column in batch.columns]
    for values in zip(*table, strict=True):
        fields = dict(zip(names, values, strict=True))
        place = f"row {rows.next}"
        bad = next((n for n, v in fields.items() if isinstance(v, _Unreadable)), None)
        text = fields[rows.text]
        if bad is not None:
            raw = fields[bad].raw
            reason = "invalid_utf8" if raw else "invalid_value"
            yield rows.broken(place, reason, f"in column {bad!r}", raw)
            continue
        if isinstance(text, bytes):
            try:
                fields[rows.text] = text.decode()
            except UnicodeDecodeError as error:
                yield rows.broken(place, "invalid_utf8", str(error), text)
                continue
        yield rows.row(place, fields, b"")


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        buffer = scalar.as_buffer() if hasattr(scalar, "as_buffer") else None
        return _Unreadable(buffer.to_pybytes()[:HEAD] if buffer else b"")
