"""The embedded pool as a corpus of shards on disk, laid out once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pyarrow as pa

from tamis.corpus import packages

EMBEDDED = "packages"
"""The input name that means this pool."""

DOCUMENTS_PER_SHARD = 1_000


def pool_shards(folder: Path, workers: int = 1) -> Path:
    """Lay the pool out as JSONL.zst shards, unless the same pool is there already.

    Args:
        folder: Folder for corpora; the pool gets one of its own, named after the versions of
            the installed packages.
        workers: Processes that read the packages.

    Returns:
        The folder with the shards.

    Raises:
        DataError: A package that carries documents is not installed.
    """
    target = folder / f"packages-{packages.version()[:12]}"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        staging = Path(name) / "pool"
        staging.mkdir()
        documents = packages.read_pool(workers=workers)
        for number, block in enumerate(_blocks(documents)):
            _write(staging / f"pool-{number:03d}.jsonl.zst", block)
        if not target.is_dir():
            staging.rename(target)
    return target


def _blocks(
    documents: Iterator[packages.PackageDocument],
) -> Iterator[list[packages.PackageDocument]]:
    while block := list(islice(documents, DOCUMENTS_PER_SHARD)):
        yield block


def _write(path: Path, block: list[packages.PackageDocument]) -> None:
    lines = (
        msgspec.json.encode(
            {"id": document.origin, "source": document.genre, "text": document.text}
        )
        for document in block
    )
    with pa.output_stream(str(path), compression="zstd") as out:
        out.write(b"\n".join(lines) + b"\n")
