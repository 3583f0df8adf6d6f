"""Segments: files of JSON lines that one process appends to, and locks for as long as it does.

Whoever else works in the folder tells by the lock whether a segment is still written to; the
kernel takes it from a process that is killed. A segment appears under its name only once it is
locked, and is never opened for writing again after it was closed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from tamis.errors import OutputBusy

SEGMENTS = "segments"
FEEDBACK = "feedback"
WINDOWS = "windows"
QUARANTINE = "quarantine"
FORGOTTEN = "forgotten.jsonl"
"""Hashes of the ids whose deletion was asked for."""
SETTINGS = "log.json"
LOCK = ".lock"

_LONGEST_LINE = 16 << 20
_NAME = re.compile(r"(\d{8}T\d{6})-\d{1,10}-[0-9a-f]{8}\.jsonl")
_WINDOW = re.compile(r"(\d{4}-\d{2}-\d{2})(?:T(\d{2}))?\.parquet")
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_HIDDEN, _TEMPORARY = ".new-", ".tmp-"
_ABANDONED_SECONDS = 600.0
_POLL_SECONDS = 0.2


class SegmentWriter:
    """Appends lines to segments of a folder, closing one and beginning another as they grow.

    Not for several threads at a time.

    Args:
        folder: Where; made, for its owner alone, if it is not there.
        max_bytes: Size from which a segment is closed.
        max_seconds: Age from which it is.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, folder: Path, max_bytes: int, max_seconds: float) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.max_bytes, self.max_seconds = folder, max_bytes, max_seconds
        self.size = 0
        self._file = -1
        self._began = 0.0

    def append(self, lines: bytes) -> None:
        """Hand whole lines, each with its line feed, to the operating system.

        Raises:
            OSError: They could not be written; nothing of them stays in the segment.
        """
        if self._file < 0:
            self._begin()
        view = memoryview(lines)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self.size)
            self.close()
            raise
        self.size += len(lines)

    def sync(self) -> None:
        """Have the disk keep what was written.

        Raises:
            OSError: The disk failed.
        """
        if self._file >= 0:
            os.fdatasync(self._file)

    def rotate(self) -> bool:
        """Close the segment if it is large or old enough; whether it was."""
        age = time.monotonic() - self._began
        due = self._file >= 0 and (self.size >= self.max_bytes or age >= self.max_seconds)
        if due:
            self.close()
        return due

    def close(self) -> None:
        """Close the segment, if one is open; the next append begins another."""
        if self._file >= 0:
            with suppress(OSError):
                os.fdatasync(self._file)
            os.close(self._file)
        self._file, self.size = -1, 0

    def _begin(self) -> None:
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"{started}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        hidden = self.folder / f"{_HIDDEN}{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        file = os.open(hidden, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            hidden.rename(self.folder / name)
            sync_folder(self.folder)
        except OSError:
            os.close(file)
            raise
        self._file, self.size, self._began = file, 0, time.monotonic()


@dataclass(frozen=True)
class BadLine:
    """A line that is no record.

    Attributes:
        number: Of the line, from 1.
        reason: ``torn``, ``too_long`` or what else is wrong with it.
        raw: How it begins.
    """

    number: int
    reason: str
    raw: bytes


def names(folder: Path) -> list[str]:
    """Segments of a folder, the oldest first; nothing else that lies there."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name))


def started(name: str) -> datetime:
    """When a segment was begun, to the second, by its name."""
    found = _NAME.fullmatch(name)
    return datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) if found else _EPOCH


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_closed(path: Path) -> bool:
    """Whether nobody writes to a segment any more; False where it is gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def lines(path: Path) -> Iterator[tuple[int, bytes] | BadLine]:
    """Number (from 1) and content of each line; of one that is torn or too long, what is wrong.

    No more than a line is held, and of a line that is too long no more than its limit. A segment
    that is gone has none.
    """
    number, skipping = 0, False
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while piece := file.readline(_LONGEST_LINE):
            ended = piece.endswith(b"\n")
            if not skipping:
                number += 1
                if ended:
                    yield number, piece[:-1]
                else:
                    reason = "too_long" if len(piece) >= _LONGEST_LINE else "torn"
                    yield BadLine(number, reason, piece[:2_048])
            skipping = not ended


def name_of(at: datetime, kind: Literal["hour", "day"]) -> str:
    """Name of the window that a moment belongs to."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H" if kind == "hour" else "%Y-%m-%d") + ".parquet"


def span_of(name: str) -> tuple[datetime, datetime] | None:
    """From when until when a window is, by its name; None for what is no window."""
    found = _WINDOW.fullmatch(name)
    if found is None:
        return None
    try:
        start = datetime.strptime(found[1] + (found[2] or "00"), "%Y-%m-%d%H").replace(tzinfo=UTC)
    except ValueError:
        return None
    return start, start + (_HOUR if found[2] else _DAY)


def window_files(folder: Path) -> list[tuple[Path, datetime, datetime]]:
    """Windows of a log with their spans, by time."""
    found = []
    if (folder / WINDOWS).is_dir():
        for path in (folder / WINDOWS).iterdir():
            if (span := span_of(path.name)) is not None:
                found.append((path, *span))
    return sorted(found, key=lambda each: (each[1], each[2]))


def remove_abandoned(folder: Path) -> None:
    """Remove files that a killed process had not named yet."""
    for pattern in (f"{_HIDDEN}*", f"{_TEMPORARY}*"):
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


@contextmanager
def maintaining(folder: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Keep others from moving or deleting files of a log; its writers go on.

    Args:
        folder: Of the log.
        wait_seconds: How long to wait for another that does.

    Raises:
        OutputBusy: Another still does.
        OSError: The folder cannot be written to.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise OutputBusy(f"another process maintains the log {folder}") from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a small file as a whole, durably.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(6)}"
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
