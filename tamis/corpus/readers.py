"""Read a shard row by row: what can be read is a document, the rest is quarantined.

Broken input never stops a run and is never passed over in silence; a failing storage raises
``OSError``, so that the shard is read again rather than believed to be short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tamis.corpus.columnar import read_parquet
from tamis.corpus.document import Document, Quarantined
from tamis.corpus.rows import ReadLimits, Row, Rows
from tamis.corpus.settings import HtmlSettings
from tamis.corpus.shards import Format, Shard, format_of, list_shards
from tamis.corpus.source_settings import TableForm
from tamis.corpus.streams import HEAD, BrokenStream, ReadMeter, chunks, lines
from tamis.corpus.tables import read_csv, read_jsonl
from tamis.corpus.warc import read_warc
from tamis.task import Columns

_TABS = re.compile(r"\.tsv(\.gz|\.zst)?$", re.IGNORECASE)

__all__ = ["Format", "ReadLimits", "ReadMeter", "Shard", "format_of", "list_shards", "read_shard"]


def read_shard(
    shard: Shard,
    columns: Columns,
    limits: ReadLimits | None = None,
    html: HtmlSettings | None = None,
    meter: ReadMeter | None = None,
    table: TableForm | None = None,
) -> Iterator[Document | Quarantined]:
    """Stream the rows of a shard in order.

    Text, id and source leave the row; every other column is the document's metadata (the label
    and group columns too). Without an id column, ``id`` is used where the data have it, and the
    content hash where they do not; without a source column, ``source`` likewise. Blank lines are
    no rows. A text file is one row; of WARC and WET files the responses and conversions are, see
    ``read_warc``. These three have no columns.

    Args:
        shard: What to read.
        columns: Which column holds what.
        limits: Bounds on memory.
        html: How pages become text.
        meter: Told how far the reading has come.
        table: How a table of text is written; the shard is one then, whatever its name says.

    Raises:
        OSError: The storage failed; nothing is wrong with the data.
    """
    limits = limits or ReadLimits()
    rows = Rows(shard.name, columns, limits)
    if table is None and _TABS.search(shard.url):
        table = TableForm(delimiter="\t")
    if shard.format == "parquet" and table is None:
        yield from read_parquet(shard, rows, meter)
        return
    data = chunks(shard.url, shard.compression, limits.max_ratio, shard.size, meter)
    if table is not None:
        yield from _whole(read_csv(lines(data, limits.max_line_bytes), rows, table), rows)
        return
    if shard.format == "text":
        yield from _text(data, rows)
        return
    if shard.format in ("warc", "wet"):
        yield from read_warc(data, rows, html or HtmlSettings())
        return
    cut = lines(data, limits.max_line_bytes)
    reader = read_jsonl(cut, rows) if shard.format == "jsonl" else read_csv(cut, rows)
    yield from _whole(reader, rows)


def _whole(reader: Iterator[Row], rows: Rows) -> Iterator[Row]:
    """The rows of a stream, and where it breaks off if it does."""
    try:
        yield from reader
    except BrokenStream as error:
        yield rows.broken(f"line {error.line}", error.reason, f"{error}", error.partial)


def _text(data: Iterator[bytes], rows: Rows) -> Iterator[Row]:
    """The file as one document."""
    found = bytearray()
    place = "whole file"
    try:
        for chunk in data:
            found += chunk
            if len(found) > rows.limits.max_line_bytes:
                detail = f"over {rows.limits.max_line_bytes:,} bytes"
                yield rows.broken(place, "too_long", detail, bytes(found[:HEAD]))
                return
    except BrokenStream as error:
        yield rows.broken(place, error.reason, str(error), bytes(found[:HEAD]))
        return
    if not found:
        return
    raw = bytes(found[:HEAD])
    try:
        text = found.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield rows.broken(place, "invalid_utf8", str(error), raw)
        return
    yield rows.document(place, text, None, "", {}, raw)
