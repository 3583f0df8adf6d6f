"""The journal of a search on a shared store, so that another machine can go on with it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tamis.tuning.search import Search


class Journal:
    """A file on this machine that is copied to a folder, which may be on an object store.

    Args:
        search: Whose journal.
        folder: Local folder or fsspec URL.
        scratch: Local folder for the file itself.
    """

    def __init__(self, search: Search, folder: str, scratch: Path) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self._fs, root = url_to_fs(folder)
        self._there = f"{root.rstrip('/')}/{search.key()}.journal"
        self._local = isinstance(self._fs, LocalFileSystem)
        self.file = Path(self._there) if self._local else scratch / f"{search.key()}.journal"

    def fetch(self) -> None:
        """Take up what an earlier run left, where that is longer than what is here."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self._local:
            return
        with suppress(FileNotFoundError):
            here = self.file.stat().st_size if self.file.is_file() else -1
            if self._fs.info(self._there)["size"] > here:
                self._fs.get_file(self._there, str(self.file))

    def keep(self) -> None:
        """Copy the file to the folder."""
        if not self._local:
            self._fs.makedirs(self._there.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(self.file), self._there)
