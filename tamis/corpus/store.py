"""Where a run's output lies: a local folder or an object store, behind one small interface."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from tamis.errors import DataError, OutputBusy, UsageError

PARTS = ("kept", "dropped", "duplicates", "quarantine")
WORK = "work"
"""Folder of intermediate files, all of them ours; ``work/LEDGER.jsonl`` are further records."""
RUN = "run.json"
REPORTS = ("report.json", "report.html", "inspect.html")

MANIFEST = "manifest.jsonl"
RECORDS = "manifest"
LOCK = ".lock"
_TEMPORARY = ".tmp-"
_OURS = re.compile(r"\d{5,}-[A-Za-z0-9._-]+\.(parquet|jsonl\.zst)")
_LEDGER = re.compile(r"[a-z][a-z0-9_-]*")


class HashingFile(io.RawIOBase):
    """Counts and hashes what is written through it.

    Attributes:
        size: Bytes written.
        sha256: Hash object over them.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self.raw, self.size, self.sha256 = raw, 0, hashlib.sha256()
        self.abandoned = False

    def abandon(self) -> None:
        """Swallow what is still to come: Arrow's writers write a last time when they are freed."""
        self.abandoned = True

    def write(self, data: Any) -> int:
        """Write bytes (anything with the buffer protocol)."""
        view = memoryview(data).cast("B")
        if self.abandoned:
            return len(view)
        self.raw.write(view)
        self.sha256.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def writable(self) -> bool:
        """Always true."""
        return True


class OutputStore(ABC):
    """Files of one output. A file is there whole or not at all; paths are relative."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def create(self, path: str) -> Any:
        """Context manager that yields a ``HashingFile``; the file appears when it ends well."""

    @abstractmethod
    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading; raises ``FileNotFoundError``."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """Sorted names in a folder; empty when there is no such folder."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file, or an empty folder; nothing happens when there is none."""

    @abstractmethod
    def remove_tree(self, path: str) -> None:
        """Remove a folder and all below it; nothing happens when there is none."""

    @abstractmethod
    def append(self, position: int, record: bytes, ledger: str = "") -> None:
        """Add one record (no line feed inside) to the manifest or a ledger of its own, durably.

        Raises:
            EngineError: The lock was lost, so another run may be writing.
        """

    @abstractmethod
    def records(self, ledger: str = "") -> Iterator[bytes]:
        """Records of the manifest or of a ledger; one that was torn by a crash is left out."""

    @abstractmethod
    def repair(self) -> None:
        """Remove what a killed run left behind: temporary files and torn lines of records."""

    @abstractmethod
    def lock(self) -> None:
        """Keep other runs out until ``unlock`` or the end of the process.

        Raises:
            UsageError: Another run holds the lock.
        """

    @abstractmethod
    def unlock(self) -> None:
        """Give the lock back."""

    def read(self, path: str) -> bytes:
        """A whole small file; raises ``FileNotFoundError``."""
        with self.open(path) as file:
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        """Replace a whole small file."""
        with self.create(path) as file:
            file.write(data)

    def clear(self, keep_table: bool = False) -> None:
        """Remove a run's files, and nothing else; the manifest goes first.

        So a kill in between leaves an output that trusts less than it has, never more.

        Args:
            keep_table: Leave ``run.json`` and the files of rows, which earlier versions of a
                Delta table name; the caller replaces the first, ``sweep`` takes what no one needs.
        """
        self.remove(MANIFEST)
        for name in self.names(RECORDS):
            self.remove(f"{RECORDS}/{name}")
        self.remove_tree(WORK)
        for part in () if keep_table else PARTS:
            for name in self.names(part):
                if _OURS.fullmatch(name) or name.startswith(_TEMPORARY):
                    self.remove(f"{part}/{name}")
        for name in (*REPORTS, RECORDS) if keep_table else (*REPORTS, *PARTS, RECORDS, RUN):
            self.remove(name)

    def sweep(self, named: Collection[str], run: str = "") -> int:
        """Remove files of rows that killed runs and workers left, and return how many.

        No worker may be writing: its temporary files go too.

        Args:
            named: Paths of the files to stay, as the manifest has them.
            run: Of kept, dropped and duplicates, remove only files of this run (their names have
                ``.RUN.`` in them): others may belong to earlier versions of a Delta table.
        """
        left = []
        for part in PARTS:
            every = not run or part == "quarantine"
            for name in self.names(part):
                ours = _OURS.fullmatch(name) and (every or f".{run}." in name)
                if name.startswith(_TEMPORARY) or (ours and f"{part}/{name}" not in named):
                    left.append(f"{part}/{name}")
        for path in left:
            self.remove(path)
        return len(left)


class LocalStore(OutputStore):
    """A folder: temporary name, fsync, rename, fsync of the folder; an appended manifest."""

    def __init__(self, url: str, root: Path) -> None:
        super().__init__(url)
        self.root = root
        self._lock: int | None = None

    @contextmanager
    def create(self, path: str) -> Iterator[HashingFile]:
        """See ``OutputStore``."""
        final = self.root / path
        self._make_folder(final.parent)
        temporary = final.parent / f"{_TEMPORARY}{secrets.token_hex(6)}"
        try:
            with temporary.open("wb") as raw:
                yield HashingFile(raw)
                raw.flush()
                os.fsync(raw.fileno())
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync_folder(final.parent)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            while folder != self.root:
                folder = folder.parent
                _fsync_folder(folder)

    def open(self, path: str) -> IO[bytes]:
        """See ``OutputStore``."""
        return (self.root / path).open("rb")

    def names(self, folder: str = "") -> list[str]:
        """See ``OutputStore``."""
        path = self.root / folder
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def remove(self, path: str) -> None:
        """See ``OutputStore``."""
        target = self.root / path
        if not target.is_dir():
            target.unlink(missing_ok=True)
        elif not any(target.iterdir()):
            target.rmdir()

    def remove_tree(self, path: str) -> None:
        """See ``OutputStore``; links are removed, never followed."""
        target = self.root / checked_path(path)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def _ledger(self, ledger: str) -> Path:
        return self.root / (f"{WORK}/{checked_ledger(ledger)}.jsonl" if ledger else MANIFEST)

    def append(self, position: int, record: bytes, ledger: str = "") -> None:
        """See ``OutputStore``."""
        path = self._ledger(ledger)
        self._make_folder(path.parent)
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(record + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _fsync_folder(path.parent)

    def records(self, ledger: str = "") -> Iterator[bytes]:
        """See ``OutputStore``."""
        path = self._ledger(ledger)
        if not path.exists():
            return
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]

    def repair(self) -> None:
        """See ``OutputStore``."""
        for folder in ("", *PARTS):
            for name in self.names(folder):
                if name.startswith(_TEMPORARY):
                    self.remove(f"{folder}/{name}" if folder else name)
        work = self.root / WORK
        for path in list(work.rglob(f"{_TEMPORARY}*")):
            self.remove_tree(str(path.relative_to(self.root)))
        for path in (self.root / MANIFEST, *work.glob("*.jsonl")):
            if path.exists():
                _cut_torn_line(path)

    def lock(self) -> None:
        """See ``OutputStore``."""
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise OutputBusy(
                f"another run is writing to {self.url}; wait for its end or choose another output"
            ) from None
        self._lock = descriptor

    def unlock(self) -> None:
        """See ``OutputStore``."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def open_store(url: str) -> OutputStore:
    """The store for a local path or fsspec URL; nothing is made yet.

    Raises:
        UsageError: The URL's protocol is unknown or its library is missing.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UsageError(f"output {url!r} cannot be opened: {error}") from None
    if "local" in fs.protocol or "file" in fs.protocol:
        return LocalStore(url, Path(path))
    from tamis.corpus.remote import RemoteStore  # which builds on this module

    return RemoteStore(url, fs, path)


def check_sha256(store: OutputStore, path: str, expected: str) -> None:
    """Compare a file with its recorded hash.

    Raises:
        DataError: It differs, or the file is gone.
    """
    try:
        with store.open(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except FileNotFoundError:
        raise DataError(f"{store.url}: {path} is in the manifest but not there") from None
    if found != expected:
        raise DataError(
            f"{store.url}: {path} is not what was written (sha256 {found[:12]}…, "
            f"recorded {expected[:12]}…)"
        )


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut_torn_line(path: Path) -> None:
    with path.open("r+b") as file:
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(whole)
        os.fsync(file.fileno())


def checked_ledger(ledger: str) -> str:
    """The name of a ledger; raises ``ValueError`` for one that is no plain word."""
    if not _LEDGER.fullmatch(ledger):
        raise ValueError(f"no name for a ledger: {ledger!r}")
    return ledger


def checked_path(path: str) -> str:
    """A path below an output; raises ``ValueError`` for the output itself and what is above."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"no path below an output: {path!r}")
    return path
