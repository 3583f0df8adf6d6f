"""The task file: everything that makes one classification job what it is.

A task file is one YAML in ``configs/tasks``; ``Task`` is its frozen model. Nothing in the
engine knows a task by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tamis.annotation.settings import AnnotationSettings
from tamis.comparison.settings import CompareSettings
from tamis.config import Items, Strict, override, read_yaml, validate, wrong
from tamis.corpus.settings import FilterSettings
from tamis.corpus.source_settings import (
    Columns,
    FilesSource,
    HubSource,
    PackagesSource,
    PypiSource,
    Source,
)
from tamis.errors import ConfigError
from tamis.evaluation.behaviour_settings import BehaviourSettings, with_cases
from tamis.evaluation.card_settings import CardSettings
from tamis.models.preparation import PreparationStep
from tamis.models.settings import EncoderSettings, ModelSettings, PathBackbone
from tamis.monitoring.retrain_settings import RetrainPolicy
from tamis.monitoring.settings import MonitorSettings
from tamis.scoring.settings import ScoringSettings
from tamis.serving.release_settings import ReleaseSettings
from tamis.serving.settings import ServeSettings
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget, Target
from tamis.tuning.settings import TuneSettings

TASKS = Path(__file__).resolve().parent.parent / "configs" / "tasks"

Fraction = Annotated[float, Field(gt=0, lt=1)]

_MOST_TOKENS = 65_536
"""Of one document: what waits for the network has to fit into memory."""


class TextLimits(Strict):
    """How much of a document the model reads: first cut by characters, then by tokens."""

    max_characters: Annotated[int, Field(ge=100, le=1_000_000)] = 1_800
    max_tokens: Annotated[int, Field(ge=16, le=8_192)] = 256
    long: Literal["head", "head_tail", "windows_mean", "windows_max"] = "head"
    """What is read of a document that does not fit: its beginning, its beginning and its end, or
    windows spread over the whole, each cut by both limits, whose vectors are joined."""
    windows: Annotated[int, Field(ge=2, le=64)] = 4
    """Most windows of a document."""
    preparation: Items[PreparationStep] = ()
    """What is done to a text before it is cut and read, in this order; nothing by default."""

    @model_validator(mode="after")
    def _windows_fit(self) -> TextLimits:
        windowed = self.long in ("windows_mean", "windows_max")
        if not windowed and self.windows != type(self).model_fields["windows"].default:
            allowed = f"no such key with long: {self.long}, only with windows_mean or windows_max"
            raise wrong("windows", self.windows, allowed)
        if windowed and self.windows * self.max_tokens > _MOST_TOKENS:
            given = f"{self.windows} * {self.max_tokens}"
            raise wrong("windows * max_tokens", given, f"at most {_MOST_TOKENS} of a document")
        return self


class ValidationPolicy(Strict):
    """What labelled documents must satisfy before anything is trained on them."""

    min_documents: Annotated[int, Field(ge=10)] = 50
    languages: Items[str] = ()
    """Accepted languages (ISO 639-1); empty accepts all."""
    max_foreign_language: Annotated[float, Field(ge=0, le=1)] = 0.05
    max_empty: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_duplicates: Annotated[float, Field(ge=0, le=1)] = 0.05
    max_near_duplicates: Annotated[float, Field(ge=0, le=1)] = 0.3
    """They stay on one side of the split, so a share of them does no harm."""
    min_per_side: Annotated[int, Field(ge=2)] = 10
    """Fewest documents on either side of the keep/drop line."""


class Split(Strict):
    """Shares of the labelled documents, and the folds of the cross-validated estimate."""

    test: Fraction = 0.2
    validation: Fraction = 0.2
    folds: Literal[0] | Annotated[int, Field(ge=2, le=20)] = 5
    """Folds of the nested cross-validation reported beside the test figures; 0 leaves it out."""

    @model_validator(mode="after")
    def _leaves_training(self) -> Split:
        if self.test + self.validation > 0.8:
            shares = f"{self.test} + {self.validation}"
            raise wrong(
                "test + validation", shares, "at most 0.8, so that a fifth is left to train"
            )
        return self


class ValueThreshold(Strict):
    """Keep what scores at least this."""

    kind: Literal["value"]
    value: float


class BestF1Threshold(Strict):
    """Keep above the score that gives the best F1 of the kept class on held-out scores.

    A frozen encoder's come from folds of training and validation, a fine-tuned one's from
    validation.
    """

    kind: Literal["best_f1"]


Threshold = Annotated[ValueThreshold | BestF1Threshold, Field(discriminator="kind")]

CalibrationName = Literal["isotonic", "none"]

MetricName = Literal[
    "spearman",
    "pearson",
    "mae",
    "precision",
    "recall",
    "f1",
    "macro_f1",
    "average_precision",
    "accuracy",
]
BaselineName = Literal["median", "length", "source", "tfidf"]


class GatePolicy(Strict):
    """What a model must show before it may be promoted.

    The floor and the champion are judged on the test documents, the baselines on the
    cross-validated ones where there are some.
    """

    metric: MetricName | None = None
    """Metric of record; by default spearman for an ordinal target, average_precision else."""
    floor: float | None = None
    beat: Items[BaselineName] = ("median", "length", "source")
    """The trivial ones by default; ``tfidf`` is a model in its own right, and asking for more
    than it gives is a choice."""
    champion_margin: Annotated[float, Field(ge=0)] = 0.03
    """How much of the metric a challenger may lose on the champion, at the interval's end."""


class Task(Strict):
    """One classification job. Every key but the first three has a default."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,62}$")]
    target: Annotated[OrdinalTarget | BinaryTarget | ClassesTarget, Field(discriminator="kind")]
    sources: Annotated[Items[Source], Field(min_length=1)]
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    text: TextLimits = TextLimits()
    validation: ValidationPolicy = ValidationPolicy()
    split: Split = Split()
    model: ModelSettings = EncoderSettings()
    threshold: Threshold = BestF1Threshold(kind="best_f1")
    calibration: CalibrationName = "isotonic"
    """Whether scores are mapped to what the labels of held-out documents say they mean; the
    threshold is one on the calibrated scores."""
    gate: GatePolicy = GatePolicy()
    retrain: RetrainPolicy = RetrainPolicy()
    corpus: Columns = Columns()
    """Columns of the corpora that this task filters."""
    scoring: ScoringSettings = ScoringSettings()
    compare: CompareSettings = CompareSettings()
    tune: TuneSettings = TuneSettings()
    filter: FilterSettings = FilterSettings()
    annotate: AnnotationSettings = AnnotationSettings()
    behaviour: BehaviourSettings = BehaviourSettings()
    card: CardSettings = CardSettings()
    serve: ServeSettings = ServeSettings()
    release: ReleaseSettings = ReleaseSettings()
    monitor: MonitorSettings = MonitorSettings()

    @model_validator(mode="after")
    def _threshold_on_scale(self) -> Task:
        low, high = self.target.scale
        if isinstance(self.threshold, ValueThreshold) and not low < self.threshold.value <= high:
            allowed = f"a value above {low:g} and at most {high:g}"
            raise wrong("threshold.value", self.threshold.value, allowed)
        return self

    @model_validator(mode="after")
    def _metric_fits_target(self) -> Task:
        if self.gate.metric in ("spearman", "pearson", "mae") and self.target.kind != "ordinal":
            allowed = "a metric of the keep/drop decision, since the target is not ordinal"
            raise wrong("gate.metric", self.gate.metric, allowed)
        return self

    @model_validator(mode="after")
    def _model_reads_so(self) -> Task:
        if self.text.long not in self.model.long_modes:
            which = f"model.family: {self.model.family} ({self.model.variant})"
            allowed = f"{' or '.join(self.model.long_modes)} with {which}"
            raise wrong("text.long", self.text.long, allowed)
        return self

    @property
    def metric(self) -> MetricName:
        """The metric of record."""
        default: MetricName = "spearman" if self.target.kind == "ordinal" else "average_precision"
        return self.gate.metric or default

    def fingerprint(self) -> str:
        """sha256 over the whole task, in hexadecimal."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load_task(name: str, settings: Iterable[str] = ()) -> Task:
    """Load a task by the name of a file in ``configs/tasks``, or by a path.

    Args:
        name: ``edu_quality``, or a path to a YAML file.
        settings: Overrides, ``key.path=value``.

    Raises:
        ConfigError: There is no such task, or its file is wrong.
        UsageError: An override is malformed.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = TASKS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in TASKS.glob("*.yaml")))
        raise ConfigError("--task", "", name, f"a YAML file, or one of {known}")
    shown = _shown(path)
    task = validate(Task, override(read_yaml(path, shown), settings), shown)
    return _resolve_paths(task, path.resolve().parent)


def _shown(path: Path) -> str:
    """The path as a person would type it."""
    project = TASKS.parent.parent
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)


def _resolve_paths(task: Task, folder: Path) -> Task:
    """Read relative paths of ``files`` sources beside the task file, else in the working folder."""

    def resolve(path: str) -> str:
        if "://" in path or Path(path).is_absolute():
            return path
        beside = folder / path
        found = next(folder.glob(path), None) if any(c in path for c in "*?[") else beside
        return str(beside if found and found.exists() else Path.cwd() / path)

    if isinstance(task.model, EncoderSettings) and isinstance(task.model.backbone, PathBackbone):
        there = task.model.backbone.model_copy(update={"path": resolve(task.model.backbone.path)})
        model = task.model.model_copy(update={"backbone": there})
        task = task.model_copy(update={"model": model})

    def resolved(source: Source) -> Source:
        if not isinstance(source, FilesSource):
            return source
        paths = (source.path,) if isinstance(source.path, str) else source.path
        return source.model_copy(update={"path": tuple(resolve(path) for path in paths)})

    sources = tuple(resolved(source) for source in task.sources)
    window = resolved(task.retrain.window) if task.retrain.window else None
    retrain = task.retrain.model_copy(update={"window": window})
    behaviour = with_cases(task.behaviour, folder)
    return task.model_copy(update={"sources": sources, "retrain": retrain, "behaviour": behaviour})


__all__ = [
    "Columns",
    "FilesSource",
    "HubSource",
    "PackagesSource",
    "PypiSource",
    "RetrainPolicy",
    "Source",
    "Target",
    "Task",
    "load_task",
]
