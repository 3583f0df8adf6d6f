"""Classifiers as artifacts: the folder that ``Classifier.save`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.folders import download, upload
from tamis.models.classifier import Classifier, as_dict, digest, load_classifier


class ClassifierMaterializer(BaseMaterializer):
    """Safetensors and JSON."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Classifier,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def load(self, data_type: type[Any]) -> Classifier:
        """The classifier, read from a local copy of the artifact."""
        with self.get_temporary_directory(delete_at_exit=True) as folder:
            download(self.uri, Path(folder))
            return load_classifier(Path(folder))

    def save(self, data: Classifier) -> None:
        """Write the classifier's folder."""
        with self.get_temporary_directory(delete_at_exit=True) as folder:
            data.save(Path(folder))
            upload(Path(folder), self.uri)

    def extract_metadata(self, data: Classifier) -> dict[str, Any]:
        """What a person wants to know without opening it."""
        facts = as_dict(data.info)
        return {key: facts[key] for key in ("layer", "pooling", "head", "threshold")}

    def compute_content_hash(self, data: Classifier) -> str | None:
        """Hash over the files, so that the same classifier counts as the same artifact."""
        with self.get_temporary_directory(delete_at_exit=True) as folder:
            data.save(Path(folder))
            return digest(folder)
