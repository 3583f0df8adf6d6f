"""Train the classifier that a task asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.errors import ConfigError
from tamis.models import selection
from tamis.models.backbone import cut, load_backbone
from tamis.models.classifier import Classifier, ClassifierInfo, TrainedOn
from tamis.models.encoder import Encoder, Progress
from tamis.models.selection import Problem
from tamis.task import Task

REFERENCE_SIZE = 1_600


class TriedCombination(BaseModel):
    """One layer, pooling and head, and its figure on validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: int
    pooling: str
    head: str
    figure: float


class HeldOutScores(BaseModel):
    """Scores of nested cross-validation: no document scored by a model that saw its group.

    Attributes:
        ids: Documents (n).
        fold: Fold of each (n).
        scores: Held-out score of each (n), calibrated without its fold.
        thresholds: Threshold of each fold's model (folds).
        raw: Score of each before calibration (n); none in logs of before there was any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: tuple[str, ...]
    fold: tuple[int, ...]
    scores: tuple[float, ...]
    thresholds: tuple[float, ...]
    raw: tuple[float, ...] = ()


class TrainingLog(BaseModel):
    """How a classifier came about.

    Attributes:
        task: Name of the task.
        train: ``frozen`` or ``full``.
        metric: Metric by which combinations or epochs were compared on validation.
        documents: Documents by side.
        tried: Combinations (frozen), best first.
        epochs: Validation figure after each epoch (full).
        chosen: What was taken, in words.
        threshold: Score from which a document is kept.
        calibration: What the calibration of scores rests on, or why there is none, in words.
        held_out: Cross-validated scores, where the family affords them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    train: str
    metric: str
    documents: dict[str, int]
    tried: tuple[TriedCombination, ...] = ()
    epochs: tuple[float, ...] = ()
    chosen: str
    threshold: float
    calibration: str = ""
    held_out: HeldOutScores | None = None

    def to_html(self) -> str:
        """One self-contained page."""
        rows: list[tuple[object, ...]] = [
            (t.layer, t.pooling, t.head, f"{t.figure:.4f}") for t in self.tried
        ]
        rows += [("", "", f"epoch {n + 1}", f"{f:.4f}") for n, f in enumerate(self.epochs)]
        body = html.table(("layer", "pooling", "head", f"{self.metric} on validation"), rows)
        scores = f" Scores: {self.calibration}." if self.calibration else ""
        lead = f"Taken: {self.chosen}; threshold {self.threshold:.3f}.{scores}"
        return html.page(f"Training of {self.task}", body, lead)


@dataclass(frozen=True)
class Trained:
    """A classifier and the log of its making."""

    classifier: Classifier
    log: TrainingLog


def train(
    task: Task,
    dataset: Dataset,
    assignment: Assignment,
    checkpoints: Path,
    progress: Progress | None = None,
) -> Trained:
    """Train on the training side, choose on the validation side; the test side is not looked at.

    Args:
        task: The task.
        dataset: Documents that hold every id of the assignment.
        assignment: The split.
        checkpoints: Folder where fine-tuning leaves its checkpoints, so that a killed run
            resumes; it is emptied when training is complete.
        progress: Told how many documents were embedded.

    Raises:
        ConfigError: A layer that the backbone does not have.
        ModelError: The backbone's weights are missing or not those that were pinned.
    """
    labelled = dataset.take(~np.isnan(dataset.labels))
    if task.model.train == "full":
        from tamis.models.finetune import finetune

        return finetune(task, labelled, assignment, checkpoints)
    return _train_frozen(task, labelled, assignment, progress)


def _train_frozen(
    task: Task, dataset: Dataset, assignment: Assignment, progress: Progress | None
) -> Trained:
    settings = task.model.frozen
    model, tokenizer = load_backbone(task.model.backbone)
    check_length(task, model)
    encoder = Encoder(model, tokenizer, task.text)
    layers = settings.layers or tuple(range(1, encoder.depth + 1))
    if max(layers) > encoder.depth:
        allowed = f"layers from 1 to {encoder.depth}"
        raise ConfigError(task.name, "model.frozen.layers", max(layers), allowed)
    features, _ = encoder.features(dataset.texts(), layers, settings.poolings, progress)
    problem = problem_of(task, dataset, assignment)
    rows = {side: assignment.rows(dataset, side) for side in ("train", "validation", "test")}
    fitted = selection.fit_frozen(problem, features, rows["train"], rows["validation"])
    best = fitted.choice.best
    encoder = Encoder(cut(model, best.layer), tokenizer, task.text)
    seen = np.concatenate([rows["train"], rows["validation"]])
    info = info_of(
        task,
        assignment,
        best.layer,
        best.pooling,
        str(best.candidate),
        fitted.head.formula,
        fitted.threshold,
    )
    vectors = features[best.layer, best.pooling]
    reference = reference_sample(vectors[seen], task.seed)
    classifier = Classifier(info, encoder, fitted.head, reference, fitted.calibration.score_map)
    log = TrainingLog(
        task=task.name,
        train="frozen",
        metric=task.metric,
        documents={side: len(where) for side, where in rows.items()},
        tried=tuple(
            TriedCombination(
                layer=t.layer, pooling=t.pooling, head=str(t.candidate), figure=t.figure
            )
            for t in fitted.choice.trials
        ),
        chosen=f"layer {best.layer} of {len(layers)} tried, {best.pooling} pooling, "
        f"{best.candidate}",
        threshold=fitted.threshold,
        calibration=fitted.calibration.note,
        held_out=_held_out(task, dataset, problem, features),
    )
    return Trained(classifier, log)


def check_length(task: Task, model: Any) -> None:
    """Do nothing when the backbone can read as many tokens as the task wants.

    Raises:
        ConfigError: It cannot.
    """
    most = getattr(model.config, "max_position_embeddings", task.text.max_tokens)
    if task.text.max_tokens > most:
        allowed = f"at most {most}, which is what the backbone reads"
        raise ConfigError(task.name, "text.max_tokens", task.text.max_tokens, allowed)


def problem_of(task: Task, dataset: Dataset, assignment: Assignment) -> Problem:
    """What selection needs to know of a task and its labelled documents."""
    return Problem(
        target=task.target,
        metric=task.metric,
        labels=dataset.labels,
        groups=assignment.leak_groups(dataset),
        settings=task.model.frozen,
        threshold=task.threshold,
        calibration=task.calibration,
        validation=task.split.validation,
        seed=task.seed,
    )


def info_of(
    task: Task,
    assignment: Assignment,
    layer: int,
    pooling: str,
    head: str,
    formula: str,
    threshold: float,
) -> ClassifierInfo:
    """The facts that are saved with a classifier."""
    sides = assignment.sides
    return ClassifierInfo(
        task=task.name,
        task_fingerprint=task.fingerprint(),
        target=task.target,
        text=task.text,
        family=task.model.family,
        train=task.model.train,
        backbone=task.model.backbone,
        layer=layer,
        pooling=pooling,  # type: ignore[arg-type]
        head=head,
        formula=formula,  # type: ignore[arg-type]
        threshold=threshold,
        seed=task.seed,
        trained_on=TrainedOn(
            fingerprint=assignment.fingerprint,
            train=sides["train"],
            validation=sides["validation"],
            test=sides["test"],
        ),
    )


def reference_sample(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """At most 1,600 of the vectors, against which later documents are compared for drift."""
    if len(vectors) <= REFERENCE_SIZE:
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(seed).choice(len(vectors), REFERENCE_SIZE, replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)])


def _held_out(
    task: Task, dataset: Dataset, problem: Problem, features: selection.Features
) -> HeldOutScores | None:
    if not task.split.folds:
        return None
    result = selection.cross_validate(problem, features, task.split.folds)
    return HeldOutScores(
        ids=tuple(dataset.strings("id").tolist()),
        fold=tuple(result.fold.tolist()),
        scores=tuple(result.scores.tolist()),
        thresholds=tuple(result.thresholds.tolist()),
        raw=tuple(result.raw.tolist()),
    )
