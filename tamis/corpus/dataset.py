"""Labelled documents: the table that is ingested, validated, split and trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("label", pa.float64()),
        ("second_label", pa.float64()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("group", pa.string()),
        ("sha256", pa.string()),
    ]
)


class LeftOut(BaseModel):
    """A document that could not be used.

    Attributes:
        origin: Where it is from: a file and row, a package and path.
        reason: Short reason, such as ``hash_mismatch`` or ``bad_label``.
        detail: One sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str
    reason: str
    detail: str


class DatasetInfo(BaseModel):
    """What is known of a set of labelled documents.

    Attributes:
        task: Name of the task.
        fingerprint: sha256 over every id, content hash and label.
        documents: How many documents there are.
        labelled: How many of them carry a label.
        sources: Documents by source.
        licences: Licence by source.
        labels_by: Who made the labels.
        left_out: Documents that could not be used, with the reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    fingerprint: str
    documents: int
    labelled: int
    sources: dict[str, int]
    licences: dict[str, str]
    labels_by: str
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Dataset:
    """Documents in a table of ``SCHEMA``, with what is known of them.

    ``label`` holds the target's encoded label, NaN where there is none.
    """

    table: pa.Table
    info: DatasetInfo

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def texts(self) -> list[str]:
        """The texts, in order."""
        return list(self.table["text"].to_pylist())

    def strings(self, column: str) -> NDArray[np.str_]:
        """A text column as an array (n,)."""
        return np.array(self.table[column].to_pylist(), dtype=str)

    def floats(self, column: str) -> NDArray[np.float64]:
        """A number column as an array (n,), NaN where empty."""
        return np.asarray(self.table[column].to_numpy(zero_copy_only=False), dtype=np.float64)

    @property
    def labels(self) -> NDArray[np.float64]:
        """Encoded labels (n,)."""
        return self.floats("label")

    def take(self, rows: NDArray[Any]) -> Dataset:
        """Some of the documents, in the order given."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return build(self.table.take(pa.array(rows)), self.info)


def build(table: pa.Table, info: DatasetInfo) -> Dataset:
    """A dataset whose counts and fingerprint are those of its table."""
    labels = table["label"].to_pylist()
    counts: dict[str, int] = {}
    for source in table["source"].to_pylist():
        counts[source] = counts.get(source, 0) + 1
    update = {
        "fingerprint": fingerprint(table),
        "documents": table.num_rows,
        "labelled": sum(label is not None and label == label for label in labels),
        "sources": dict(sorted(counts.items())),
    }
    return Dataset(table=table, info=info.model_copy(update=update))


def fingerprint(table: pa.Table) -> str:
    """sha256 over every document's id, content hash and label, whatever their order."""
    columns = [table[name].to_pylist() for name in ("id", "sha256", "label")]
    rows = sorted("\t".join(map(str, row)) for row in zip(*columns, strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """Several datasets as one; a document that comes twice (same id) is kept once, the first."""
    table = pa.concat_tables([dataset.table for dataset in datasets])
    _, first = np.unique(np.array(table["id"].to_pylist(), dtype=str), return_index=True)
    infos = [dataset.info for dataset in datasets]
    info = infos[0].model_copy(
        update={
            "licences": {k: v for each in infos for k, v in each.licences.items()},
            "labels_by": "; ".join(dict.fromkeys(each.labels_by for each in infos)),
            "left_out": tuple(item for each in infos for item in each.left_out),
        }
    )
    return build(table.take(pa.array(np.sort(first))), info)
