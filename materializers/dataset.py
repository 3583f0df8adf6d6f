"""Labelled documents as artifacts: one Parquet table and one JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as parquet
from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.folders import download, upload
from tamis.corpus.dataset import Dataset, DatasetInfo


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
        """Counts and the content fingerprint."""
        info = data.info
        return {
            "fingerprint": info.fingerprint,
            "documents": info.documents,
            "labelled": info.labelled,
            "left_out": len(info.left_out),
            "licences": info.licences,
        }

    def compute_content_hash(self, data: Dataset) -> str | None:
        """The content fingerprint."""
        return data.info.fingerprint
