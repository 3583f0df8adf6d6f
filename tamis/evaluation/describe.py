"""The model card of a trained classifier, from the artifacts of its run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tamis.corpus.dataset import DatasetInfo
from tamis.corpus.split import Assignment
from tamis.evaluation.card import (
    CardInput,
    DataFacts,
    LabelFacts,
    ModelFacts,
    SplitSizes,
    model_card,
)
from tamis.evaluation.figures import Evaluation
from tamis.models.classifier import ClassifierInfo
from tamis.models.settings import HubBackbone, PackageBackbone
from tamis.task import Task

_LONG = {
    "head": "the beginning",
    "head_tail": "the beginning and the end",
    "windows_mean": "up to {windows} windows (their mean)",
    "windows_max": "up to {windows} windows (their maximum)",
}


def describe(
    task: Task,
    version: str,
    created: str,
    data: DatasetInfo,
    assignment: Assignment,
    info: ClassifierInfo,
    evaluation: Evaluation,
    code_version: str,
) -> tuple[dict[str, Any], str]:
    """The card as JSON data and as Markdown."""
    backbone = info.backbone
    if isinstance(backbone, PackageBackbone):
        name, sha256 = backbone.package, backbone.sha256
    elif isinstance(backbone, HubBackbone):
        name, sha256 = f"{backbone.model}@{backbone.revision}", ""
    else:
        name, sha256 = backbone.path, ""
    by_model = "language model" in data.labels_by
    licences: Counter[str] = Counter()
    for source, count in data.sources.items():
        licences[data.licences.get(source, "unknown")] += count
    return model_card(
        CardInput(
            name=task.name,
            version=version,
            created=created,
            task=task.name,
            description=task.description or task.name,
            target=task.target,
            intended_use=(
                "Deciding which documents of a large corpus are worth keeping for training.",
            ),
            out_of_scope=("Judging people, or a single document where the decision matters.",),
            data=DataFacts(
                fingerprint=data.fingerprint,
                documents=data.documents,
                origin=", ".join(f"{source.kind} source" for source in task.sources),
                sources=data.sources,
                licences=dict(licences),
                labels=LabelFacts(made_by="llm" if by_model else "unknown", who=data.labels_by),
                left_out=dict(Counter(item.reason for item in data.left_out)),
            ),
            split=SplitSizes(**{side: len(ids) for side, ids in assignment.sides.items()}),
            model=ModelFacts(
                family=f"{info.family}, {info.train}",
                backbone=name,
                backbone_sha256=sha256,
                layer=info.layer,
                pooling=info.pooling,
                head=info.head,
                max_tokens=info.text.max_tokens,
                max_characters=info.text.max_characters,
                long=_LONG[info.text.long].format(windows=info.text.windows),
            ),
            evaluation=evaluation,
            code_version=code_version,
            seed=info.seed,
        )
    )
