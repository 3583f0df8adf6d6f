"""Send a folder through Ray's object store to nodes that share no file system with the driver."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tamis.errors import EngineError


@dataclass(frozen=True)
class ShippedFolder:
    """A folder's files, in the object store.

    Attributes:
        names: Path of each file below the folder.
        hashes: sha256 of each, in hexadecimal.
        contents: Reference to each one's bytes.
    """

    names: tuple[str, ...]
    hashes: tuple[str, ...]
    contents: tuple[Any, ...]

    @property
    def digest(self) -> str:
        """sha256 over names and content."""
        lines = [f"{name} {sha}" for name, sha in zip(self.names, self.hashes, strict=True)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def unpack(self) -> Path:
        """Write the files to this node's temporary folder, where they are not there already.

        The folder's name is the digest of what is in it, and what is found there is verified,
        so all processes of a node, and later runs, share one copy.

        Returns:
            The folder.

        Raises:
            EngineError: What arrived, or what was found, is not what was sent.
            OSError: There is no room for it.
        """
        import ray

        user = os.getuid() if hasattr(os, "getuid") else 0
        folder = Path(tempfile.gettempdir()) / f"tamis-model-{user}-{self.digest[:32]}"
        if not folder.exists():
            fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
            try:
                for name, content in zip(self.names, self.contents, strict=True):
                    path = fresh / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(ray.get(content))
                fresh.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was first
                    raise
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        self._verify(folder)
        return folder

    def _verify(self, folder: Path) -> None:
        for name, sha in zip(self.names, self.hashes, strict=True):
            path = folder / name
            if not path.is_file() or _sha256(path) != sha:
                raise EngineError(f"{path} is not the model's file that was sent; remove {folder}")


def ship_folder(folder: str) -> ShippedFolder:
    """Put the files of a folder into the object store.

    Args:
        folder: On the driver's machine.

    Raises:
        EngineError: It cannot be read, or holds nothing.
    """
    import ray

    root = Path(folder)
    try:
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        if not paths:
            raise EngineError(f"model {folder}: there are no files to send")
        return ShippedFolder(
            names=tuple(path.relative_to(root).as_posix() for path in paths),
            hashes=tuple(_sha256(path) for path in paths),
            contents=tuple(ray.put(np.fromfile(path, dtype=np.uint8)) for path in paths),
        )
    except OSError as error:
        raise EngineError(f"model {folder}: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
