"""Compaction: closed segments of the request log become Parquet windows.

A window is replaced as a whole, and names the segments it has taken in as long as they are there.
So a compaction that is killed at any moment is done again by the next, and no record is lost or
there twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.corpus.store import HashingFile, LocalStore
from tamis.monitoring.forgotten import Forgotten
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.records import Line, Rows, read_segment
from tamis.monitoring.request_log import Dropped
from tamis.monitoring.segments import (
    QUARANTINE,
    SEGMENTS,
    WINDOWS,
    BadLine,
    is_closed,
    maintaining,
    name_of,
    names,
    remove_abandoned,
    started,
    write_atomically,
)
from tamis.monitoring.window_files import (
    DROPS,
    MERGED,
    copy_rows,
    drops_of,
    merged_of,
    open_window,
    set_aside,
    window_writer,
)

_NOTED = 200
"""Lines of a segment that the quarantine shows; all are counted."""
WAIT_SECONDS = 60.0
"""How long to wait for another process that maintains a log."""


@dataclass(frozen=True)
class Compaction:
    """What became of segments.

    Attributes:
        segments: Segments that were taken in.
        records: Records of them.
        quarantined: Lines that are no records.
        windows: Names of the windows that were written.
        damaged: Windows, or groups of their rows, that cannot be read any more.
    """

    segments: int
    records: int
    quarantined: int
    windows: tuple[str, ...]
    damaged: int


def compact(
    folder: Path, settings: RequestLogSettings, wait_seconds: float = WAIT_SECONDS
) -> Compaction:
    """Take all closed segments of a log into windows, and remove them.

    Args:
        folder: Of the log.
        settings: Whether a window is an hour or a day.
        wait_seconds: How long to wait for another process that maintains the log.

    Raises:
        OutputBusy: Another process still does.
        OSError: A file cannot be written.
    """
    with maintaining(folder, wait_seconds):
        return compact_held(folder, settings)


def compact_held(folder: Path, settings: RequestLogSettings) -> Compaction:
    """Likewise, for a caller that keeps others out (``maintaining``).

    Raises:
        OSError: A file cannot be written.
    """
    segments = folder / SEGMENTS
    for each in (folder, segments, folder / WINDOWS, folder / QUARANTINE):
        remove_abandoned(each)
    closed = [name for name in names(segments) if is_closed(segments / name)]
    merge = _Merge(folder, settings, Forgotten(folder))
    # A few hours at a time, so that few windows are open at once.
    for _, group in groupby(closed, key=lambda name: name_of(started(name), "hour")):
        merge.take(list(group))
    return Compaction(
        segments=len(closed),
        records=merge.records,
        quarantined=merge.quarantined,
        windows=tuple(sorted(merge.written)),
        damaged=merge.damaged,
    )


class _Merge:
    def __init__(self, folder: Path, settings: RequestLogSettings, forgotten: Forgotten) -> None:
        self.folder, self.kind, self.forgotten = folder, settings.window, forgotten
        self.store = LocalStore(str(folder), folder)
        self.records = self.quarantined = self.damaged = 0
        self.written: set[str] = set()

    def take(self, group: Sequence[str]) -> None:
        """Take segments into the windows that their records belong to, then remove them."""
        segments = self.folder / SEGMENTS
        with ExitStack() as stack:
            parts: dict[str, _Part] = {}

            def part_of(at: datetime) -> _Part:
                name = name_of(at, self.kind)
                if name not in parts:
                    parts[name] = stack.enter_context(self._part(name, group))
                return parts[name]

            for segment in group:
                bad: list[BadLine] = []
                count = 0
                for item in read_segment(segments / segment):
                    if isinstance(item, BadLine):
                        count += 1
                        bad += [item] if len(bad) < _NOTED else []
                    elif isinstance(item, Dropped):
                        part_of(item.at).note(segment, item)
                    elif not self.forgotten.holds(item.id, item.at):
                        self.records += 1
                        part_of(item.at).add(segment, item)
                if count:
                    self._quarantine(segment, count, bad)
            for part in parts.values():
                part.finish()
        self.written |= set(parts)
        for segment in group:
            (segments / segment).unlink(missing_ok=True)

    @contextmanager
    def _part(self, name: str, group: Sequence[str]) -> Iterator[_Part]:
        path = self.folder / WINDOWS / name
        old = open_window(path)
        if old is None and path.exists():
            set_aside(self.folder, path)
            self.damaged += 1
        with self.store.create(f"{WINDOWS}/{name}") as sink:
            try:
                part = _Part(sink, old, group, set(names(self.folder / SEGMENTS)))
                self.damaged += part.damaged
                yield part
            except BaseException:
                sink.abandon()
                raise

    def _quarantine(self, segment: str, count: int, bad: Sequence[BadLine]) -> None:
        self.quarantined += count
        noted = [
            {"line": each.number, "reason": each.reason, "raw": each.raw.decode("utf-8", "replace")}
            for each in bad
        ]
        (self.folder / QUARANTINE).mkdir(mode=0o700, exist_ok=True)
        found = msgspec.json.encode({"segment": segment, "count": count, "lines": noted})
        write_atomically(self.folder / QUARANTINE / f"{segment.removesuffix('l')}", found + b"\n")


class _Part:
    """A window that is being written: what it held before, then new records."""

    def __init__(
        self,
        sink: HashingFile,
        old: pq.ParquetFile | None,
        group: Sequence[str],
        there: set[str],
    ) -> None:
        self._writer = window_writer(sink)
        self._rows = Rows()
        self._done = merged_of(old)
        self._merged = sorted((self._done & there) | set(group))
        self._drops = Counter(drops_of(old))
        self.damaged = copy_rows(old, self._writer) if old is not None else 0

    def add(self, segment: str, line: Line) -> None:
        """Add a record, unless an earlier compaction did."""
        if segment not in self._done:
            self._write(self._rows.add(line))

    def note(self, segment: str, dropped: Dropped) -> None:
        """Count records that were dropped, likewise."""
        if segment not in self._done:
            self._drops[dropped.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")] += dropped.count

    def finish(self) -> None:
        """Write what is left, and what the window has to say of itself."""
        self._write(self._rows.take())
        facts = {MERGED: json.dumps(self._merged), DROPS: json.dumps(dict(self._drops))}
        self._writer.add_key_value_metadata(facts)
        self._writer.close()

    def _write(self, batch: pa.RecordBatch | None) -> None:
        if batch is not None:
            self._writer.write_batch(batch)
