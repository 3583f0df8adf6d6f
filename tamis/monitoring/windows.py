"""Windows: what the request log holds of a span of time, as Arrow tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.errors import UsageError
from tamis.monitoring.compaction import WAIT_SECONDS, Compaction, compact, compact_held
from tamis.monitoring.forgotten import Forgotten
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.records import SCHEMA, Rows, read_segment
from tamis.monitoring.request_log import Dropped
from tamis.monitoring.segments import (
    QUARANTINE,
    SEGMENTS,
    SETTINGS,
    BadLine,
    maintaining,
    names,
    started,
    window_files,
)
from tamis.monitoring.window_files import GROUP_ROWS, drops_of, open_window


@dataclass(frozen=True)
class Window:
    """Records of a span of time.

    Attributes:
        table: Rows of ``SCHEMA``, or some of its columns, by time.
        start: From when.
        end: Until when, exclusive.
        dropped: Records that were dropped then, by the minute.
        quarantined: Lines of segments begun then that are no records.
    """

    table: pa.Table
    start: datetime
    end: datetime
    dropped: int
    quarantined: int


class Reader:
    """A look at a log that nobody moves meanwhile; closed segments are taken into windows first.

    A context manager. Writers go on; what they write into open segments meanwhile may be seen.

    Args:
        folder: Of the log.
        settings: Of the log; those that its last service had by default.
        wait_seconds: How long to wait for another process that maintains it.

    Raises:
        UsageError: There is no such log.
        OutputBusy: Another process still maintains it.
    """

    def __init__(
        self,
        folder: Path,
        settings: RequestLogSettings | None = None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        if not folder.is_dir():
            raise UsageError(f"request log: given {str(folder)!r}; allowed: a folder that there is")
        self.folder = folder
        self.settings = settings or settings_of(folder)
        self._wait = wait_seconds
        self._stack = ExitStack()

    def __enter__(self) -> Reader:
        self._stack.enter_context(maintaining(self.folder, self._wait))
        self.compaction: Compaction = compact_held(self.folder, self.settings)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def batches(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        columns: Sequence[str] | None = None,
        shadow: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Records of a span of time, window by window, then those of open segments.

        Args:
            start: From when; the beginning by default.
            end: Until when, exclusive; now by default.
            columns: Some of ``SCHEMA``; all by default.
            shadow: Whether records of shadow versions come too.
        """
        names_of = list(columns or SCHEMA.names)
        for batch in self._all(start, end, [*dict.fromkeys([*names_of, "at", "shadow"])]):
            kept = _within(batch, start, end, shadow)
            if kept.num_rows:
                yield kept.select(names_of)

    def _all(
        self, start: datetime | None, end: datetime | None, columns: list[str]
    ) -> Iterator[pa.RecordBatch]:
        for path in self.windows(start, end):
            found = open_window(path)
            if found is not None:
                yield from _readable(found, columns)
        forgotten, rows = Forgotten(self.folder), Rows()
        for name in names(self.folder / SEGMENTS):
            for item in read_segment(self.folder / SEGMENTS / name):
                if isinstance(item, Dropped | BadLine) or forgotten.holds(item.id, item.at):
                    continue
                if (full := rows.add(item)) is not None:
                    yield full.select(columns)
        if (rest := rows.take()) is not None:
            yield rest.select(columns)

    def windows(self, start: datetime | None, end: datetime | None) -> list[Path]:
        """Files of windows that a span of time touches, by time."""
        return [
            path
            for path, first, last in window_files(self.folder)
            if (end is None or first < end) and (start is None or last > start)
        ]

    def dropped(self, start: datetime | None = None, end: datetime | None = None) -> int:
        """Records that were dropped in a span of time, by the minute."""
        total = 0
        for path in self.windows(start, end):
            found = open_window(path)
            drops = drops_of(found).items()
            total += sum(count for at, count in drops if _in(_minute(at), start, end))
        for name in names(self.folder / SEGMENTS):
            for item in read_segment(self.folder / SEGMENTS / name):
                if isinstance(item, Dropped) and _in(item.at, start, end):
                    total += item.count
        return total

    def quarantined(self, start: datetime | None = None, end: datetime | None = None) -> int:
        """Lines that are no records, of segments that were begun in a span of time."""
        total = 0
        for path in sorted((self.folder / QUARANTINE).glob("*.json")):
            if _in(started(f"{path.name}l"), start, end):
                try:
                    total += int(msgspec.json.decode(path.read_bytes())["count"])
                except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
                    total += 1
        return total


def read_window(
    folder: Path,
    start: datetime,
    end: datetime,
    *,
    columns: Sequence[str] | None = None,
    shadow: bool = False,
    max_records: int = 1_000_000,
) -> Window:
    """Records of a span of time as a table, by time; those of the last minute too.

    Args:
        folder: Of the log.
        start: From when.
        end: Until when, exclusive.
        columns: Some of ``SCHEMA``; all by default.
        shadow: Whether records of shadow versions come too.
        max_records: Most that are read.

    Raises:
        UsageError: There is no such log, or more records.
        OutputBusy: Another process maintains the log.
    """
    wanted = list(columns or SCHEMA.names)
    found: list[pa.RecordBatch] = []
    rows = 0
    with Reader(folder) as reader:
        for batch in reader.batches(start, end, [*dict.fromkeys([*wanted, "at"])], shadow):
            found.append(batch)
            rows += batch.num_rows
            if rows > max_records:
                raise UsageError(
                    f"request log: more than {max_records:,} records from {start:%Y-%m-%d %H:%M} "
                    f"to {end:%Y-%m-%d %H:%M}; choose a shorter span"
                )
        dropped, quarantined = reader.dropped(start, end), reader.quarantined(start, end)
    schema = pa.schema([SCHEMA.field(name) for name in dict.fromkeys([*wanted, "at"])])
    table = pa.Table.from_batches(found, schema).sort_by("at").select(wanted)
    return Window(table, start, end, dropped, quarantined)


def settings_of(folder: Path) -> RequestLogSettings:
    """Settings of the service that last wrote to a log; defaults where nothing can be told."""
    from pydantic import ValidationError

    try:
        facts = msgspec.json.decode((folder / SETTINGS).read_bytes())
        return RequestLogSettings.model_validate_json(json.dumps(facts["settings"]))
    except (OSError, msgspec.MsgspecError, KeyError, TypeError, ValidationError):
        return RequestLogSettings()


def _readable(window: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of a window, without the groups that are damaged."""
    for number in range(window.num_row_groups):
        try:
            table = window.read_row_group(number, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException):
            continue
        yield from table.select(columns).to_batches(GROUP_ROWS)


def _within(
    batch: pa.RecordBatch, start: datetime | None, end: datetime | None, shadow: bool
) -> pa.RecordBatch:
    """The rows of a span of time, those of shadow versions only if they are wanted."""
    kind = SCHEMA.field("at").type
    if start is not None:
        batch = batch.filter(pc.greater_equal(batch["at"], pa.scalar(start, kind)))
    if end is not None:
        batch = batch.filter(pc.less(batch["at"], pa.scalar(end, kind)))
    return batch if shadow else batch.filter(pc.invert(batch["shadow"]))


def _in(at: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or at >= start) and (end is None or at < end)


def _minute(at: str) -> datetime:
    try:
        return datetime.strptime(at, "%Y-%m-%dT%H:%M").replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


__all__ = ["Compaction", "Reader", "Window", "compact", "read_window", "settings_of"]
