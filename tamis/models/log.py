"""What training leaves besides the model: what was tried, what was taken, held-out scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.models.classifier import Classifier
from tamis.models.info import Replayed

ClassifierT = TypeVar("ClassifierT", bound=Classifier, covariant=True)


class TriedCombination(BaseModel):
    """What was tried and its figure on validation; only encoders have a layer and a pooling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: int | None = None
    pooling: str = ""
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
        family: Family of the model.
        train: Which of the family's variants.
        metric: Metric by which combinations or epochs were compared on validation.
        documents: Documents by side.
        tried: Combinations that were compared, best first.
        epochs: Validation figure after each epoch, of what learns in epochs.
        chosen: What was taken, in words.
        threshold: Score from which a document is kept.
        replay: What old and new documents weighed; None where each weighed the same.
        calibration: What the calibration of scores rests on, or why there is none, in words.
        held_out: Cross-validated scores, where the family affords them.
        cpu_seconds: Of the whole training, all threads.
        wall_seconds: Of the whole training.
        machine: What it ran on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    family: str = "encoder"
    train: str
    metric: str
    documents: dict[str, int]
    tried: tuple[TriedCombination, ...] = ()
    epochs: tuple[float, ...] = ()
    chosen: str
    threshold: float
    replay: Replayed | None = None
    calibration: str = ""
    held_out: HeldOutScores | None = None
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    machine: str = ""

    def to_html(self) -> str:
        """One self-contained page."""
        rows: list[tuple[object, ...]] = [
            (t.layer or "", t.pooling, t.head, f"{t.figure:.4f}") for t in self.tried
        ]
        rows += [("", "", f"epoch {n + 1}", f"{f:.4f}") for n, f in enumerate(self.epochs)]
        body = html.table(("layer", "pooling", "head", f"{self.metric} on validation"), rows)
        scores = f" Scores: {self.calibration}." if self.calibration else ""
        weights = f" Replay: {self.replay}." if self.replay else ""
        lead = f"Taken: {self.chosen}; threshold {self.threshold:.3f}.{weights}{scores}"
        return html.page(f"Training of {self.task}", body, lead)


@dataclass(frozen=True)
class Trained(Generic[ClassifierT]):
    """A classifier and the log of its making."""

    classifier: ClassifierT
    log: TrainingLog
