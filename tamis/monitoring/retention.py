"""What a request log gives up: what is too old, what is too much, and what somebody asks for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from tamis.monitoring import forgotten
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.segments import (
    FEEDBACK,
    QUARANTINE,
    SEGMENTS,
    WINDOWS,
    is_closed,
    maintaining,
    names,
    remove_abandoned,
    started,
    window_files,
    write_atomically,
)


@dataclass(frozen=True)
class Purged:
    """What was deleted.

    Attributes:
        files: How many.
        bytes: Their size.
    """

    files: int
    bytes: int


@dataclass(frozen=True)
class Forgot:
    """What was deleted for a request.

    Attributes:
        records: Of requests, in windows; those in open segments go when they are closed.
        labels: Of feedback.
    """

    records: int
    labels: int


@dataclass(frozen=True)
class _Held:
    path: Path
    ended: datetime
    size: int


def purge(
    folder: Path, settings: RequestLogSettings, now: datetime, wait_seconds: float = 0.0
) -> Purged:
    """Delete requests, texts and feedback that are too old, then the oldest of what is too much.

    A window goes as a whole, once its last moment is too old. What a living process still writes
    to stays.

    Args:
        folder: Of the log.
        settings: Ages and sizes.
        now: The time, UTC.
        wait_seconds: How long to wait for another process that maintains the log.

    Raises:
        OutputBusy: Another process does.
        OSError: A file cannot be deleted.
    """
    cutoff = now - timedelta(days=settings.retention_days)
    with maintaining(folder, wait_seconds):
        for each in (folder, folder / SEGMENTS, folder / FEEDBACK, folder / WINDOWS):
            remove_abandoned(each)
        gone: list[_Held] = []
        for found, most in (
            (_requests(folder), settings.max_bytes),
            (_labels(folder, cutoff), settings.feedback_bytes),
        ):
            size = sum(held.size for held in found)
            for held in sorted(found, key=lambda each: each.ended):
                if held.ended <= cutoff or size > most:
                    held.path.unlink(missing_ok=True)
                    size -= held.size
                    gone.append(held)
        forgotten.expire(folder, cutoff)
        current = forgotten.Forgotten(folder)
        if current:
            _forget_labels(folder, current)
    return Purged(len(gone), sum(held.size for held in gone))


def forget(folder: Path, documents: Sequence[str], now: datetime) -> Forgot:
    """Delete every record and label of some documents, as of now.

    Args:
        folder: Of the log.
        documents: Their ids.
        now: Records and labels up to this moment go.

    Raises:
        UsageError: There is no such log.
        OutputBusy: Another process maintains it.
        OSError: A file cannot be written.
    """
    from tamis.monitoring.windows import Reader

    with Reader(folder) as reader:
        forgotten.add(folder, documents, now)
        current = forgotten.Forgotten(folder)
        records = sum(_forget_records(path, current) for path in reader.windows(None, None))
        labels = _forget_labels(folder, current)
        _forget_lines(folder, documents)
    return Forgot(records, labels)


def _requests(folder: Path) -> list[_Held]:
    found = [_held(path, end) for path, _, end in window_files(folder)]
    for name in names(folder / SEGMENTS):
        path = folder / SEGMENTS / name
        if is_closed(path):
            found.append(_held(path))
    if (folder / QUARANTINE).is_dir():
        found += [_held(path) for path in (folder / QUARANTINE).iterdir()]
    return [held for held in found if held.size >= 0]


def _labels(folder: Path, cutoff: datetime) -> list[_Held]:
    held = [_held(folder / FEEDBACK / name) for name in names(folder / FEEDBACK)]
    # Nobody appends to a segment this old, though a process may still have it open.
    free = [each for each in held if each.ended <= cutoff or is_closed(each.path)]
    return [each for each in free if each.size >= 0]


def _held(path: Path, ended: datetime | None = None) -> _Held:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return _Held(path, started(path.name), -1)
    return _Held(path, ended or datetime.fromtimestamp(facts.st_mtime, UTC), facts.st_size)


def _forget_records(path: Path, current: forgotten.Forgotten) -> int:
    """Write a window anew without some documents, if it holds any."""
    import pyarrow as pa

    from tamis.corpus.store import LocalStore
    from tamis.monitoring.window_files import copy_rows, facts_of, open_window, window_writer

    window = open_window(path)
    if window is None:
        return 0
    gone = 0

    def keep(table: pa.Table) -> pa.Table:
        nonlocal gone
        rows = zip(table["id"].to_pylist(), table["at"].to_pylist(), strict=True)
        stays = [not current.holds(name, at) for name, at in rows]
        gone += len(stays) - sum(stays)
        return table.filter(pa.array(stays, pa.bool_()))

    for number in range(window.num_row_groups):
        with suppress(OSError, pa.ArrowException):
            keep(window.read_row_group(number, columns=["id", "at"], use_threads=False))
    if not gone:
        return 0
    found, gone = gone, 0
    with LocalStore(str(path.parent), path.parent).create(path.name) as sink:
        try:
            writer = window_writer(sink)
            copy_rows(window, writer, keep)
            writer.add_key_value_metadata(facts_of(window))
            writer.close()
        except BaseException:
            sink.abandon()
            raise
    return found


def _forget_labels(folder: Path, current: forgotten.Forgotten) -> int:
    """Write closed segments of feedback anew without labels of some documents."""
    from tamis.monitoring.feedback import Label
    from tamis.monitoring.segments import lines

    decode = msgspec.json.Decoder(Label).decode
    gone = 0
    for name in names(folder / FEEDBACK):
        path = folder / FEEDBACK / name
        if not is_closed(path):
            continue
        kept, lost = [], 0
        for item in lines(path):
            if not isinstance(item, tuple):
                continue
            try:
                label = decode(item[1])
                if current.holds(label.id, label.at):
                    lost += 1
                    continue
            except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
                pass
            kept.append(item[1] + b"\n")
        if lost:
            write_atomically(path, b"".join(kept))
            gone += lost
    return gone


def _forget_lines(folder: Path, documents: Sequence[str]) -> None:
    """Empty what the quarantine holds of some documents; damaged windows cannot be looked into."""
    quarantine = folder / QUARANTINE
    for path in sorted(quarantine.glob("*.damaged")):
        path.unlink(missing_ok=True)
    marks = [msgspec.json.encode(name.encode("utf-8", "replace").decode()) for name in documents]
    for path in sorted(quarantine.glob("*.json")):
        try:
            found = msgspec.json.decode(path.read_bytes())
            noted = [each for each in found["lines"] if not _names(str(each["raw"]), marks)]
        except (msgspec.MsgspecError, KeyError, TypeError):
            continue
        if len(noted) < len(found["lines"]):
            write_atomically(path, msgspec.json.encode({**found, "lines": noted}) + b"\n")


def _names(raw: str, marks: Sequence[bytes]) -> bool:
    return any(mark in raw.encode() for mark in marks)
