"""Write the documents of a data version to a file that a task can read again."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.corpus.dataset import Dataset
from tamis.errors import UsageError

if TYPE_CHECKING:
    from tamis.target import Target

COLUMNS = ("id", "text", "label", "source", "origin", "group", "sha256")
SUFFIXES = (".parquet", ".jsonl", ".csv")


def export(dataset: Dataset, path: Path, target: Target) -> None:
    """Write documents so that a ``files`` source reads them again; a file there is replaced.

    Labels are written as the task's files have them. The file appears when it is complete.

    Args:
        dataset: The documents.
        path: The file; its suffix, one of ``SUFFIXES``, says how it is written.
        target: By which the labels were encoded.

    Raises:
        UsageError: The file cannot be written.
        DataError: A label is none of the target's.
    """
    import numpy as np
    import pyarrow as pa

    from tamis.corpus.data_diff import decode

    labels = [None if np.isnan(each) else decode(target, each) for each in dataset.labels.tolist()]
    table = dataset.table.select(COLUMNS)
    label = pa.array(labels, pa.float64() if target.kind == "ordinal" else pa.string())
    table = table.set_column(COLUMNS.index("label"), "label", label)
    put(path, lambda file: _WRITERS[path.suffix](table, file), "FILE")


def check_target(path: Path, force: bool) -> None:
    """Find out before the work whether a file may be written.

    Args:
        path: The file.
        force: Whether one that is there may be replaced.

    Raises:
        UsageError: No format belongs to its suffix, it is there, or there is no such folder.
    """
    given = f"FILE: given {str(path)!r}"
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{given}; allowed: a name that ends in {', '.join(SUFFIXES)}")
    check_folder(path, "FILE")
    if path.exists() and not force:
        raise UsageError(f"{given}, which is there; allowed: another name, or --force")


def check_folder(path: Path | None, where: str) -> None:
    """Find out before the work whether a file, if one was asked for, can be written after it.

    Raises:
        UsageError: The folder does not exist or is not writable, or the file is a folder.
    """
    if path is None:
        return
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"{where}: given {str(path)!r}; allowed: a file that can be written")


def put(path: Path, write: Callable[[Path], object], where: str) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        UsageError: It cannot be written.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        told = error.strerror or type(error).__name__
        raise UsageError(f"{where}: given {str(path)!r}; allowed: a file that can be written "
                         f"({told})") from None  # fmt: skip
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(table: Any, path: Path) -> None:
    import pyarrow.parquet as parquet

    parquet.write_table(table, path, compression="zstd")


def _write_jsonl(table: Any, path: Path) -> None:
    import msgspec

    with path.open("wb") as file:
        for batch in table.to_batches():
            file.writelines(msgspec.json.encode(row) + b"\n" for row in batch.to_pylist())


def _write_csv(table: Any, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table.column_names)
        writer.writeheader()
        for batch in table.to_batches():
            writer.writerows(batch.to_pylist())


_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    ".parquet": _write_parquet,
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
}
