"""JSON lines and CSV: rows with named values from lines of text."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tamis.corpus.rows import Row, Rows
from tamis.corpus.source_settings import TableForm
from tamis.corpus.streams import HEAD, Line

_BOM = b"\xef\xbb\xbf"
_MAX_DEPTH = 200


def _without_bom(line: Line) -> bytes:
    return line.data.removeprefix(_BOM) if line.number == 1 else line.data


def read_jsonl(cut: Iterator[Line], rows: Rows) -> Iterator[Row]:
    """One JSON object a line."""
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
            if data.count(b"[") + data.count(b"{") > _MAX_DEPTH and _deep(value):
                detail = f"values inside values, over {_MAX_DEPTH} levels"
                yield rows.broken(place, "invalid_json", detail, data)
                continue
            yield rows.row(place, value, data)
        else:
            detail = f"a JSON {type(value).__name__} where an object should be"
            yield rows.broken(place, "not_an_object", detail, data)


def _deep(value: Any) -> bool:
    """Whether a value is nested so deeply that writing it may not succeed."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


class _TooLong(Exception):
    """A CSV record over the limit."""


class _CsvLines:
    """Feeds a csv reader, remembering what the record at hand was made of."""

    def __init__(self, cut: Iterator[Line], limit: int, encoding: str) -> None:
        self.cut, self.limit, self.encoding = cut, limit, encoding
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
            return data.decode(self.encoding) + "\n"
        except UnicodeDecodeError:
            self.valid = False
            return data.decode(self.encoding, errors="replace") + "\n"

    @property
    def place(self) -> str:
        return f"line {self.first}" + (f"-{self.last}" if self.last > self.first else "")


def read_csv(cut: Iterator[Line], rows: Rows, form: TableForm | None = None) -> Iterator[Row]:
    """CSV with a header, as RFC 4180 has it, or a table of another form."""
    form = form or TableForm()
    csv.field_size_limit(rows.limits.max_line_bytes + 1)
    feed = _CsvLines(cut, rows.limits.max_line_bytes, form.encoding)
    reader = csv.reader(
        feed,
        strict=True,
        delimiter=form.delimiter,
        quoting=csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
    )
    header: list[str] | None = list(form.header) or None
    if header is not None and rows.text not in header:
        yield rows.unreadable("header", "bad_header", bad_header(header, rows.text))
        return
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
                yield rows.unreadable(feed.place, "bad_header", bad_header(values, rows.text))
                return
        elif not feed.valid:
            yield rows.broken(
                feed.place, "invalid_utf8", f"bytes that are not {form.encoding.upper()}", feed.head
            )
        elif len(values) != len(header):
            detail = f"{len(values)} fields where the header has {len(header)}"
            yield rows.broken(feed.place, "wrong_field_count", detail, feed.head)
        else:
            yield rows.row(feed.place, dict(zip(header, values, strict=True)), feed.head)


def bad_header(names: Sequence[str], text: str) -> str:
    """One sentence on column names that do not serve."""
    shown = ", ".join(name[:40] for name in names[:20])
    return f"no single column {text!r} among distinct columns; there are: {shown}"
