"""An output on an object store, by fsspec."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tamis.corpus.lease import Lease
from tamis.corpus.store import (
    LOCK,
    RECORDS,
    WORK,
    HashingFile,
    OutputStore,
    checked_ledger,
    checked_path,
)
from tamis.errors import TamisError

_RECORD = re.compile(r"\d{5,}\.json")
_AT_ONCE = 64
"""Small objects that are read together."""


class RemoteStore(OutputStore):
    """An object store: one PUT a file, and one manifest object a shard, as nothing appends.

    Large files are sent in pieces; on Google Cloud Storage, S3 and Azure the object appears
    with the last of them (``memory://`` shows it growing). Each is first made whole in the
    folder for temporary files, whose disk must hold the largest file of each worker.
    """

    def __init__(self, url: str, fs: Any, root: str) -> None:
        super().__init__(url)
        self.fs, self.root = fs, root.rstrip("/")
        self._lease: Lease | None = None

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    @contextmanager
    def create(self, path: str) -> Iterator[HashingFile]:
        """See ``OutputStore``. The file is made on local disk, then sent at once."""
        with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
            local = Path(folder) / "file"
            with local.open("wb") as raw:
                yield HashingFile(raw)
            with self._storage():
                self.fs.makedirs(self._path(path).rpartition("/")[0], exist_ok=True)
                self.fs.put_file(str(local), self._path(path))

    @contextmanager
    def _storage(self) -> Iterator[None]:
        """Turn what clients raise when a storage fails into ``OSError``, which engines retry.

        Theirs are errors of many kinds: gcsfs 2024.12 has an ``AttributeError`` for an upload of
        over 5 MB that fails.
        """
        try:
            yield
        except (OSError, TamisError):
            raise
        except Exception as error:
            raise OSError(f"{self.url}: {type(error).__name__}: {error}") from error

    def open(self, path: str) -> IO[bytes]:
        """See ``OutputStore``."""
        with self._storage():
            file: IO[bytes] = self.fs.open(self._path(path), "rb")
        return file

    def read(self, path: str) -> bytes:
        """See ``OutputStore``."""
        with self._storage():
            data: bytes = self.fs.cat_file(self._path(path))
        return data

    def names(self, folder: str = "") -> list[str]:
        """See ``OutputStore``."""
        try:
            with self._storage():
                self.fs.invalidate_cache()
                found = self.fs.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found} - {""})

    def remove(self, path: str) -> None:
        """See ``OutputStore``."""
        full = self._path(path)
        with self._storage():
            if self.fs.isfile(full):
                self.fs.rm_file(full)
            elif self.fs.isdir(full) and not self.fs.ls(full, detail=False):
                self.fs.rmdir(full)

    def remove_tree(self, path: str) -> None:
        """See ``OutputStore``."""
        full = self._path(checked_path(path))
        with self._storage(), suppress(FileNotFoundError):
            self.fs.invalidate_cache()
            self.fs.rm(full, recursive=True)

    def _ledger(self, ledger: str) -> str:
        return f"{WORK}/{checked_ledger(ledger)}" if ledger else RECORDS

    def append(self, position: int, record: bytes, ledger: str = "") -> None:
        """See ``OutputStore``."""
        if self._lease is not None:
            with self._storage():
                self._lease.check()
        self.write(f"{self._ledger(ledger)}/{position:05d}.json", record)

    def records(self, ledger: str = "") -> Iterator[bytes]:
        """See ``OutputStore``."""
        folder = self._ledger(ledger)
        names = [name for name in self.names(folder) if _RECORD.fullmatch(name)]
        for first in range(0, len(names), _AT_ONCE):
            paths = [self._path(f"{folder}/{name}") for name in names[first : first + _AT_ONCE]]
            with self._storage():
                found = self.fs.cat(paths)
            yield from (found[path] for path in paths)

    def repair(self) -> None:
        """See ``OutputStore``; an object store never shows half a file."""

    def lock(self) -> None:
        """See ``OutputStore``; it lapses when a killed run stops renewing it, see ``lease``."""
        lease = Lease(self.fs, self._path(LOCK), self.url)
        with self._storage():
            lease.acquire()
        self._lease = lease

    def unlock(self) -> None:
        """See ``OutputStore``."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
