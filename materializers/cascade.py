"""Cascades as artifacts: the folder that ``Cascade.save`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.folders import download, upload
from tamis.scoring.cascade import Cascade, read_cascade


class CascadeMaterializer(BaseMaterializer):
    """Safetensors and JSON."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Cascade,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def load(self, data_type: type[Any]) -> Cascade:
        """The cascade, read from a local copy of the artifact."""
        with self.get_temporary_directory(delete_at_exit=True) as folder:
            download(self.uri, Path(folder))
            return read_cascade(Path(folder))

    def save(self, data: Cascade) -> None:
        """Write the cascade's folder."""
        with self.get_temporary_directory(delete_at_exit=True) as folder:
            data.save(Path(folder))
            upload(Path(folder), self.uri)

    def extract_metadata(self, data: Cascade) -> dict[str, Any]:
        """What a person wants to know without opening it."""
        low, high = data.info.band.edges
        return {
            "encoder": data.info.encoder,
            "backend": data.info.backend,
            "threshold": data.info.threshold,
            "band": f"{low:.4g} to {high:.4g}",
        }

    def compute_content_hash(self, data: Cascade) -> str | None:
        """What decides its scores."""
        return data.fingerprint
