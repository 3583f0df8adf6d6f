"""Parquet: rows of one row group after the other, a few megabytes at a time.

What the metadata of a file claim is checked where it can be; a single page is decoded as a whole,
and Parquet lets it have up to 2 GiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.corpus.rows import Row, Rows
from tamis.corpus.shards import Shard
from tamis.corpus.streams import HEAD, RATIO_FROM, ReadMeter, TrackedFile, open_tracked
from tamis.corpus.tables import bad_header

_BATCH_BYTES = 1 << 25
_REPEATED_BYTES = 1 << 26
_GROUP_BYTES = 1 << 36
_GROUP_ROWS = 1 << 40
# Without pre-buffering a column is read page by page, not as a whole.
_READING: dict[str, Any] = {
    "buffer_size": 1 << 20,
    "pre_buffer": False,
    "page_checksum_verification": True,
}
_BINARY = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)


def read_parquet(shard: Shard, rows: Rows, meter: ReadMeter | None = None) -> Iterator[Row]:
    """Rows of a Parquet file; a row group that cannot be read costs its own rows only.

    Args:
        shard: The file.
        rows: Makes documents.
        meter: Told of the progress.

    Raises:
        OSError: The storage failed; nothing is wrong with the data.
    """
    with open_tracked(shard.url, shard.size) as file:
        if not file.read(1):
            return
        file.seek(0)
        try:
            parquet = pq.ParquetFile(file, **_READING)
            names = list(parquet.schema_arrow.names)
            groups = [parquet.metadata.row_group(g) for g in range(parquet.num_row_groups)]
            counts = [group.num_rows for group in groups]
        except Exception as error:  # damaged metadata come out of Arrow as anything
            _raise_storage(file)
            yield rows.unreadable("footer", "corrupt_parquet", str(error))
            return
        if names.count(rows.text) != 1:
            yield rows.unreadable("schema", "missing_column", bad_header(names, rows.text))
            return
        total = max(1, sum(counts))
        for number, (group, count) in enumerate(zip(groups, counts, strict=True)):
            place, first = f"row group {number}", rows.next
            try:
                if bomb := _bomb(group, rows.limits.max_ratio):
                    yield rows.broken(place, "zip_bomb", bomb)
                    rows.next = first + max(1, min(count, _GROUP_ROWS))
                    continue
                if not 0 <= count < _GROUP_ROWS:
                    raise ValueError(f"it claims {count:,} rows")
                size = _batch_rows(file, parquet.metadata, number, rows.limits.batch_rows)
                for batch in parquet.iter_batches(size, row_groups=[number], use_threads=False):
                    yield from _batch(batch, names, rows)
                    if meter is not None:
                        meter.share = min(1.0, rows.next / total)
                detail = "it ends early"
            except Exception as error:  # see above
                _raise_storage(file)
                detail = str(error)
            sound = 0 <= count < _GROUP_ROWS
            if (lost := first + count - rows.next) > 0 or not sound:
                detail = f"{lost:,} of its {count:,} rows are lost: {detail}"
                yield rows.broken(place, "corrupt_parquet", detail)
            if sound:
                rows.next = max(rows.next, first + count)


def _raise_storage(file: TrackedFile) -> None:
    if file.error is not None:
        raise file.error from None


def _bomb(group: Any, max_ratio: int) -> str:
    """Why a row group must not be decoded; empty when it may."""
    if group.num_rows >= 0 and group.total_byte_size > _GROUP_BYTES:
        return f"a row group of {group.total_byte_size:,} bytes"
    for i in range(group.num_columns):
        column = group.column(i)
        size, packed = column.total_uncompressed_size, max(1, column.total_compressed_size)
        if size > RATIO_FROM and size > max_ratio * packed:
            return f"column {column.path_in_schema}: {packed:,} bytes become {size:,}"
    return ""


def _batch_rows(file: TrackedFile, metadata: Any, number: int, most: int) -> int:
    """Rows to decode at a time, so that a batch stays small whatever a row weighs."""
    group = metadata.row_group(number)
    weight = max(1, group.total_byte_size // max(1, group.num_rows))
    repeated = 1
    for i in range(group.num_columns):
        column = group.column(i)
        if column.physical_type != "BYTE_ARRAY" or not column.has_dictionary_page:
            continue
        # One long value of a dictionary may stand in every row: its page bounds such a value.
        total, packed = max(0, column.total_uncompressed_size), max(1, column.total_compressed_size)
        page = column.data_page_offset - column.dictionary_page_offset
        share = 2 * page / packed if 0 < page <= packed else 1.0
        bound = int(total * min(1.0, share))
        if bound * most > _REPEATED_BYTES and "." not in column.path_in_schema:
            bound = min(bound, _longest(file, metadata, number, column.path_in_schema) or bound)
        repeated += bound
    rows: int = min(most, _BATCH_BYTES // weight, _REPEATED_BYTES // repeated)
    return max(1, rows)


def _longest(file: TrackedFile, metadata: Any, number: int, name: str) -> int:
    """Bytes of the longest value in the dictionary of a column; 0 where that cannot be seen."""
    reader = pq.ParquetFile(file, metadata=metadata, read_dictionary=[name], **_READING)
    (column,) = next(reader.iter_batches(1, row_groups=[number], columns=[name])).columns
    # The first page brings the whole dictionary; one that does without has its own value only.
    if not pa.types.is_dictionary(column.type) or len(column.dictionary) < 2:
        return 0
    return int(pc.max(pc.binary_length(column.dictionary)).as_py() or 0)


class _Bad:
    """A value that is there and of no use."""

    def __init__(self, reason: str, raw: bytes, detail: str = "") -> None:
        self.reason, self.raw, self.detail = reason, raw, detail


class _Mixed(list[Any]):
    """Values of a column among which some may be bad."""


def _batch(batch: pa.RecordBatch, names: list[str], rows: Rows) -> Iterator[Row]:
    limit = rows.limits.max_line_bytes
    table = [_values(column, limit) for column in batch.columns]
    checked = [
        name for name, column in zip(names, table, strict=True) if isinstance(column, _Mixed)
    ]
    is_string = any(kind(batch.schema.field(rows.text).type) for kind in _BINARY[:2])
    if is_string and not checked:
        for values in zip(*table, strict=True):
            yield rows.row("", dict(zip(names, values, strict=True)), b"")
        return
    for values in zip(*table, strict=True):
        yield _row(dict(zip(names, values, strict=True)), checked, rows)


def _row(fields: dict[str, Any], checked: list[str], rows: Rows) -> Row:
    for name in checked:
        value = fields[name]
        if isinstance(value, _Bad):
            detail = f"in column {name!r}{value.detail}"
            return rows.broken("", value.reason, detail, value.raw)
    text = fields[rows.text]
    if isinstance(text, bytes):
        try:
            fields[rows.text] = text.decode()
        except UnicodeDecodeError as error:
            return rows.broken("", "invalid_utf8", str(error), text)
    return rows.row("", fields, b"")


def _values(column: Any, limit: int) -> list[Any]:
    """The values of a column as Python has them; a dictionary's are made once each."""
    if pa.types.is_dictionary(column.type):
        used = column.indices.unique().drop_null()
        known = dict(
            zip(used.to_pylist(), _values(column.dictionary.take(used), limit), strict=True)
        )
        kind = _Mixed if any(isinstance(value, _Bad) for value in known.values()) else list
        return kind(known.get(index) for index in column.indices.to_pylist())
    try:
        if any(check(column.type) for check in _BINARY):
            longest = pc.max(pc.binary_length(column)).as_py() or 0
            if longest > limit:
                return _Mixed(_value(scalar, limit) for scalar in column)
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return _Mixed(_value(scalar, limit) for scalar in column)


def _value(scalar: Any, limit: int) -> Any:
    buffer = scalar.as_buffer() if hasattr(scalar, "as_buffer") else None
    if buffer is not None and buffer.size > limit:
        head = buffer.slice(0, min(HEAD, limit)).to_pybytes()
        return _Bad("too_long", head, f": {buffer.size:,} bytes")
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        head = buffer.slice(0, min(HEAD, buffer.size)).to_pybytes() if buffer else b""
        return _Bad("invalid_utf8" if head else "invalid_value", head)
