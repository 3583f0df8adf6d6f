"""Files of windows: their names, their rows, and what they say of themselves."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.corpus.store import HashingFile
from tamis.monitoring.records import SCHEMA
from tamis.monitoring.segments import QUARANTINE

MERGED, DROPS = b"tamis.segments", b"tamis.dropped"
"""Metadata: segments that were taken in and may still be there; dropped records by the minute."""
GROUP_ROWS = 2_000


def open_window(path: Path) -> pq.ParquetFile | None:
    """A window for reading; None if it is not there, damaged, or has other columns."""
    try:
        found = pq.ParquetFile(path, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None
    if found.schema_arrow.remove_metadata().names != SCHEMA.names:
        found.close()
        return None
    return found


def window_writer(sink: HashingFile) -> pq.ParquetWriter:
    """Writes rows of ``SCHEMA``."""
    return pq.ParquetWriter(
        pa.PythonFile(sink, "w"), SCHEMA, compression="zstd", write_page_checksum=True
    )


def copy_rows(old: pq.ParquetFile, writer: pq.ParquetWriter, keep: Any = None) -> int:
    """Copy the rows of a window, small groups of them joined.

    Args:
        old: The window.
        writer: Takes them.
        keep: Makes of a table what is to stay of it; all stays by default.

    Returns:
        Groups that cannot be read, and were left out.
    """
    damaged, waiting, rows = 0, [], 0
    for number in range(old.num_row_groups):
        try:
            table = old.read_row_group(number, use_threads=False)
        except (OSError, pa.ArrowException):
            damaged += 1
            continue
        table = table if keep is None else keep(table)
        waiting.append(table)
        rows += table.num_rows
        if rows >= GROUP_ROWS:
            writer.write_table(pa.concat_tables(waiting).combine_chunks(), GROUP_ROWS)
            waiting, rows = [], 0
    if rows:
        writer.write_table(pa.concat_tables(waiting).combine_chunks(), GROUP_ROWS)
    return damaged


def merged_of(window: pq.ParquetFile | None) -> set[str]:
    """Segments that a window has taken in and that may still be there."""
    found = _fact(window, MERGED)
    return set(found) if isinstance(found, list) else set()


def drops_of(window: pq.ParquetFile | None) -> dict[str, int]:
    """Records that were dropped, by the minute (``2026-01-31T23:59``)."""
    found = _fact(window, DROPS)
    if not isinstance(found, dict):
        return {}
    return {at: count for at, count in found.items() if isinstance(count, int)}


def facts_of(window: pq.ParquetFile) -> dict[bytes, bytes]:
    """What a window says of itself, as metadata for one that takes its place."""
    found = window.metadata.metadata or {}
    return {key: found[key] for key in (MERGED, DROPS) if key in found}


def _fact(window: pq.ParquetFile | None, key: bytes) -> Any:
    facts: Mapping[bytes, bytes] = (window.metadata.metadata or {}) if window is not None else {}
    try:
        return json.loads(facts.get(key, b"null"))
    except ValueError:
        return None


def set_aside(folder: Path, path: Path) -> None:
    """Move a window that cannot be read to the quarantine."""
    (folder / QUARANTINE).mkdir(mode=0o700, exist_ok=True)
    path.replace(folder / QUARANTINE / f"{path.stem}-{secrets.token_hex(4)}.damaged")
