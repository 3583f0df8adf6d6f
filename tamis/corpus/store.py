"""Where a run's output lies: a local folder or an object store, behind one small interface."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec

from tamis.errors import DataError, UsageError

PARTS = ("kept", "dropped", "quarantine")
RUN = "run.json"
REPORTS = ("report.json", "report.html")

_MANIFEST = "manifest.jsonl"
_RECORDS = "manifest"
_LOCK = ".lock"
_TEMPORARY = ".tmp-"
_OURS = re.compile(r"\d{5,}-[A-Za-z0-9._-]+\.(parquet|jsonl\.zst)")


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
    def append(self, position: int, record: bytes) -> None:
        """Add one record (no line feed inside) to the manifest, durably."""

    @abstractmethod
    def records(self) -> Iterator[bytes]:
        """Records of the manifest; one that was torn by a crash is left out."""

    @abstractmethod
    def repair(self) -> None:
        """Remove what a killed run left behind: temporary files and a torn manifest line."""

    def lock(self) -> None:  # noqa: B027 - an object store has no locks
        """Keep other runs out until ``unlock`` or the end of the process.

        Raises:
            UsageError: Another run holds the lock.
        """

    def unlock(self) -> None:  # noqa: B027
        """Give the lock back."""

    def read(self, path: str) -> bytes:
        """A whole small file; raises ``FileNotFoundError``."""
        with self.open(path) as file:
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        """Replace a whole small file."""
        with self.create(path) as file:
            file.write(data)

    def clear(self) -> None:
        """Remove a run's files, and nothing else; the manifest goes first.

        So a kill in between leaves an output that trusts less than it has, never more.
        """
        self.remove(_MANIFEST)
        for name in self.names(_RECORDS):
            self.remove(f"{_RECORDS}/{name}")
        for part in PARTS:
            for name in self.names(part):
                if _OURS.fullmatch(name) or name.startswith(_TEMPORARY):
                    self.remove(f"{part}/{name}")
        for name in (*REPORTS, *PARTS, _RECORDS, RUN):
            self.remove(name)


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
        if not final.parent.is_dir():
            final.parent.mkdir(parents=True, exist_ok=True)
            _fsync_folder(self.root)
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

    def append(self, position: int, record: bytes) -> None:
        """See ``OutputStore``."""
        path = self.root / _MANIFEST
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(record + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _fsync_folder(self.root)

    def records(self) -> Iterator[bytes]:
        """See ``OutputStore``."""
        path = self.root / _MANIFEST
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
        path = self.root / _MANIFEST
        if not path.exists():
            return
        with path.open("r+b") as file:
            whole = sum(len(line) for line in file if line.endswith(b"\n"))
            file.truncate(whole)
            os.fsync(file.fileno())

    def lock(self) -> None:
        """See ``OutputStore``."""
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise UsageError(
                f"another run is writing to {self.url}; wait for its end or choose another output"
            ) from None
        self._lock = descriptor

    def unlock(self) -> None:
        """See ``OutputStore``."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class RemoteStore(OutputStore):
    """An object store: one PUT a file, and one manifest object a shard, as nothing appends."""

    def __init__(self, url: str, fs: Any, root: str) -> None:
        super().__init__(url)
        self.fs, self.root = fs, root.rstrip("/")

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    @contextmanager
    def create(self, path: str) -> Iterator[HashingFile]:
        """See ``OutputStore``. The file is made on local disk, then sent at once."""
        with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
            local = Path(folder) / "file"
            with local.open("wb") as raw:
                yield HashingFile(raw)
            self.fs.makedirs(self._path(path).rpartition("/")[0], exist_ok=True)
            self.fs.put_file(str(local), self._path(path))

    def open(self, path: str) -> IO[bytes]:
        """See ``OutputStore``."""
        file: IO[bytes] = self.fs.open(self._path(path), "rb")
        return file

    def names(self, folder: str = "") -> list[str]:
        """See ``OutputStore``."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found} - {""})

    def remove(self, path: str) -> None:
        """See ``OutputStore``."""
        full = self._path(path)
        if self.fs.isfile(full):
            self.fs.rm_file(full)
        elif self.fs.isdir(full) and not self.fs.ls(full, detail=False):
            self.fs.rmdir(full)

    def append(self, position: int, record: bytes) -> None:
        """See ``OutputStore``."""
        self.write(f"{_RECORDS}/{position:05d}.json", record)

    def records(self) -> Iterator[bytes]:
        """See ``OutputStore``."""
        for name in self.names(_RECORDS):
            yield self.read(f"{_RECORDS}/{name}")

    def repair(self) -> None:
        """See ``OutputStore``; an object store never shows half a file."""


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
