"""Reports and decisions as artifacts: JSON, with a page for the dashboard where there is one."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from pydantic import BaseModel
from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer


class ReportMaterializer(BaseMaterializer):
    """The JSON of a pydantic model; its ``to_html``, where it has one, is shown."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (BaseModel,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def load(self, data_type: type[Any]) -> Any:
        """The model, validated again."""
        with fileio.open(f"{self.uri}/report.json", "r") as file:
            return data_type.model_validate_json(file.read())

    def save(self, data: BaseModel) -> None:
        """Write the JSON."""
        with fileio.open(f"{self.uri}/report.json", "w") as file:
            file.write(data.model_dump_json(indent=1))

    def save_visualizations(self, data: BaseModel) -> dict[str, VisualizationType]:
        """Write the page, if the model has one."""
        to_html = getattr(data, "to_html", None)
        if to_html is None:
            return {}
        path = f"{self.uri}/report.html"
        with fileio.open(path, "w") as file:
            file.write(to_html())
        return {path: VisualizationType.HTML}

    def compute_content_hash(self, data: BaseModel) -> str | None:
        """Hash of the JSON."""
        return hashlib.sha256(data.model_dump_json().encode()).hexdigest()
