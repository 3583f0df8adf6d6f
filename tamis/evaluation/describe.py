"""The model card of a trained classifier, from the artifacts of its run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tamis.corpus.dataset import DatasetInfo
from tamis.corpus.split import Assignment
from tamis.evaluation.behaviour_figures import BehaviourReport
from tamis.evaluation.card import (
    CardInput,
    DataFacts,
    LabelFacts,
    ModelCard,
    ModelFacts,
    SplitSizes,
    model_card,
)
from tamis.evaluation.figures import Evaluation
from tamis.evaluation.footprint import Footprint
from tamis.models.info import ClassifierInfo, EncoderInfo, LinearInfo, RecurrentInfo
from tamis.models.log import TrainingLog
from tamis.models.settings import Backbone, HubBackbone, PackageBackbone
from tamis.task import Task

_LONG = {
    "head": "the beginning",
    "head_tail": "the beginning and the end",
    "windows_mean": "up to {windows} windows (their mean)",
    "windows_max": "up to {windows} windows (their maximum)",
}


@dataclass(frozen=True)
class Known:
    """What a run knows of a model.

    Attributes:
        info: What the classifier says of itself.
        data: The labelled documents.
        assignment: Their split.
        evaluation: The figures.
        log: How it was trained.
        behaviour: Its behaviour tests, where they were run.
        code_version: Version or commit of the code.
    """

    info: ClassifierInfo
    data: DatasetInfo
    assignment: Assignment
    evaluation: Evaluation
    log: TrainingLog
    behaviour: BehaviourReport | None
    code_version: str


def describe(task: Task, version: str, created: str, known: Known) -> ModelCard:
    """The card of a version that was made at a time (ISO 8601)."""
    info, log, card = known.info, known.log, task.card
    return model_card(
        CardInput(
            name=task.name,
            version=version,
            created=created,
            task=task.name,
            task_fingerprint=task.fingerprint(),
            description=task.description or task.name,
            target=task.target,
            intended_use=card.intended_use,
            out_of_scope=card.out_of_scope,
            limits=card.limits,
            contacts=card.contacts,
            licence=card.licence or "not stated",
            data=_data(task, known.data),
            split=SplitSizes(**{side: len(ids) for side, ids in known.assignment.sides.items()}),
            model=ModelFacts(
                family=f"{info.family}, {info.variant}",
                head=info.head,
                own=own_facts(info),
                preparation=info.text.preparation,
                max_tokens=info.text.max_tokens,
                max_characters=info.text.max_characters,
                long=_LONG[info.text.long].format(windows=info.text.windows),
            ),
            evaluation=known.evaluation,
            behaviour=known.behaviour,
            footprint=Footprint(
                cpu_seconds=log.cpu_seconds, wall_seconds=log.wall_seconds, machine=log.machine
            ),
            code_version=known.code_version,
            seed=info.seed,
        )
    )


def _data(task: Task, data: DatasetInfo) -> DataFacts:
    licences: Counter[str] = Counter()
    for source, count in data.sources.items():
        licences[data.licences.get(source, "unknown")] += count
    by_model = "language model" in data.labels_by
    return DataFacts(
        fingerprint=data.fingerprint,
        documents=data.documents,
        origin=", ".join(f"{source.kind} source" for source in task.sources),
        sources=data.sources,
        licences=dict(licences),
        labels=LabelFacts(
            made_by=task.card.labels or ("llm" if by_model else "unknown"),
            who=data.labels_by,
            instructions=task.card.rubric or "",
        ),
        left_out=dict(Counter(item.reason for item in data.left_out)),
    )


def own_facts(info: ClassifierInfo) -> dict[str, str]:
    """What only a classifier's family has, in words."""
    if isinstance(info, EncoderInfo):
        name, sha256 = _backbone(info.backbone)
        return {
            "Backbone": name,
            "Weights (sha256)": sha256 or "not recorded",
            "Layer": str(info.layer),
            "Pooling": info.pooling,
        }
    if isinstance(info, LinearInfo):
        letters = info.characters
        return {
            "Word n-grams": f"{info.words[0]} to {info.words[1]}",
            "Character n-grams": f"{letters[0]} to {letters[1]}" if letters else "none",
        }
    if isinstance(info, RecurrentInfo):
        return {
            "Word vectors": f"{info.vectors}, {info.size} dimensions",
            "Network": f"{info.network}, {info.hidden} units",
        }
    return {}


def _backbone(backbone: Backbone) -> tuple[str, str]:
    """Name of a backbone, and the hash of its weights where it is pinned."""
    if isinstance(backbone, PackageBackbone):
        return backbone.package, backbone.sha256
    if isinstance(backbone, HubBackbone):
        return f"{backbone.model}@{backbone.revision}", ""
    return backbone.path, ""
