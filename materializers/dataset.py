"""Labelled documents as artifacts: one Parquet table and one JSON."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pyarrow.parquet as parquet
from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.folders import download, upload
from tamis.corpus.dataset import Dataset, DatasetInfo

MOST_SOURCES = 100
"""Sources that are counted one by one in the metadata; a database keeps those."""


class DatasetMaterializer(BaseMaterializer):
    """Parquet and JSON."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Dataset,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Any]) -> Dataset:
        """The documents and what is known of them."""
        with self.get_temporary_directory(delete_at_exit=True) as name:
            folder = Path(name)
            download(self.uri, folder)
            info = DatasetInfo.model_validate_json((folder / "info.json").read_text("utf-8"))
            return Dataset(table=parquet.read_table(folder / "documents.parquet"), info=info)

    def save(self, data: Dataset) -> None:
        """Write the table and the JSON."""
        with self.get_temporary_directory(delete_at_exit=True) as name:
            folder = Path(name)
            parquet.write_table(data.table, folder / "documents.parquet", compression="zstd")
            (folder / "info.json").write_text(data.info.model_dump_json(indent=1), "utf-8")
            upload(folder, self.uri)

    def extract_metadata(self, data: Dataset) -> dict[str, Any]:
        """What ``data list`` shows without reading the documents."""
        info = data.info
        return {
            "task": info.task,
            "fingerprint": info.fingerprint,
            "documents": info.documents,
            "labelled": info.labelled,
            "left_out": len(info.left_out),
            "sources": _largest(info.sources),
            "labels_by": info.labels_by,
            "licences": info.licences,
        }

    def compute_content_hash(self, data: Dataset) -> str | None:
        """sha256 over every row in order: groups and sources count, as in what follows."""
        digest = hashlib.sha256(data.info.model_dump_json().encode())
        for batch in data.table.to_batches():
            for row in batch.to_pylist():
                digest.update(msgspec.json.encode(row) + b"\n")
        return digest.hexdigest()


def _largest(sources: dict[str, int]) -> dict[str, int]:
    """Counts by source, those of the smallest together where there are very many."""
    if len(sources) <= MOST_SOURCES:
        return sources
    ordered = sorted(sources.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[MOST_SOURCES:])
    return dict(ordered[:MOST_SOURCES]) | {"(others)": rest}
