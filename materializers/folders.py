"""Copy folders between this machine and an artifact store."""

from __future__ import annotations

from pathlib import Path

from zenml.io import fileio


def upload(folder: Path, uri: str) -> None:
    """Copy every file of a folder below a URI."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = f"{uri}/{path.relative_to(folder).as_posix()}"
            fileio.makedirs(target.rsplit("/", 1)[0])
            fileio.copy(str(path), target, overwrite=True)


def download(uri: str, folder: Path) -> None:
    """Copy every file below a URI into a folder."""
    for root, _, files in fileio.walk(uri):
        below = str(root).removeprefix(uri).strip("/")
        for name in files:
            plain = name.decode() if isinstance(name, bytes) else str(name)
            target = folder / below / plain
            target.parent.mkdir(parents=True, exist_ok=True)
            fileio.copy(f"{root!s}/{plain}", str(target), overwrite=True)
