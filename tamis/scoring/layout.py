"""Where a run puts its intermediate work, all of it below ``work/`` of the output."""

from __future__ import annotations

from tamis.corpus.readers import Shard

CANDIDATES = "work/candidates"
"""What would be kept, before near-duplicates are taken out."""


def shard_stem(position: int, shard: Shard, run: str = "") -> str:
    """First part of the names of a shard's files."""
    return f"{position:05d}-{shard.name}" + (f".{run}" if run else "")


def hash_path(position: int) -> str:
    """Hashes of the documents of a shard."""
    return f"work/hashes/{position:05d}.bin"


def exact_paths(tasks: int) -> list[str]:
    """Exact duplicates of the corpus, one file a task."""
    return [f"work/repeated/{task:03d}.bin" for task in range(tasks)]


def signature_path(position: int) -> str:
    """MinHash signatures of the candidates of a shard."""
    return f"work/signatures/{position:05d}.bin"


def edges_path(band: int) -> str:
    """Pairs of candidates that share a band."""
    return f"work/edges/{band:03d}.bin"


REMOVED = "work/removed.bin"
"""Near-duplicates that another document stands for."""


def record_path(position: int) -> str:
    """The record of a sifted shard, before near-duplicates are taken out."""
    return f"work/sifted/{position:05d}.json"
