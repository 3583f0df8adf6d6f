"""One variant on all folds: its scores of documents it never saw, its cost, its size."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict

from tamis.comparison.folds import Folds
from tamis.comparison.settings import Variant
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.fingerprint import sha256_of
from tamis.machine import machine
from tamis.models.classifier import Classifier
from tamis.models.encoder_classifier import EncoderClassifier
from tamis.models.frozen import forget_features
from tamis.models.train import train
from tamis.scoring.settings import BackendName
from tamis.task import Task

AS_TRAINED = ""
TRIAL_SOURCES = (
    "comparison/*.py",
    "evaluation/metrics.py",
    "models/*.py",
    "scoring/backends/*.py",
    "target.py",
)
"""Sources that decide what a trial finds."""
_TIMED = 256
"""Documents that are scored to measure the speed."""
_ROUNDS = 2


class Scored(BaseModel):
    """A fold's test documents, scored by a model that was trained without them.

    Attributes:
        backend: As which the model ran; empty as it was trained.
        ids: The documents (n).
        scores: Their scores (n).
        threshold: That the model would keep from.
        documents_per_second: Of one core's time.
        size: Of the saved model in bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    ids: tuple[str, ...]
    scores: tuple[float, ...]
    threshold: float
    documents_per_second: float
    size: int


class FoldTrial(BaseModel):
    """A variant on one fold.

    Attributes:
        scored: By backend, as it was trained first.
        chosen: What training chose, in words.
        cpu_seconds: Of training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scored: tuple[Scored, ...]
    chosen: str
    cpu_seconds: float


class VariantTrial(BaseModel):
    """A variant on all folds, and on the task's own split.

    Attributes:
        variant: What was tried.
        folds: Of each fold.
        final: Of the task's own split: its test documents.
        machine: What it ran on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Variant
    folds: tuple[FoldTrial, ...]
    final: FoldTrial
    machine: str


@dataclass(frozen=True)
class Workplace:
    """Where a trial keeps what it would lose.

    Attributes:
        folder: For checkpoints, and for folds that are done: a trial that was killed goes on there.
        code: Fingerprint of the code; what other code left is not taken up.
    """

    folder: Path
    code: str


def task_of(task: Task, variant: Variant) -> Task:
    """The task with the variant's model and preparation; no folds inside folds."""
    text = task.text.model_copy(update={"preparation": variant.steps})
    if text.long not in variant.settings.long_modes:
        default = type(text).model_fields["windows"].default
        text = text.model_copy(update={"long": "head", "windows": default})
    split = task.split.model_copy(update={"folds": 0})
    return task.model_copy(update={"model": variant.settings, "text": text, "split": split})


def try_variant(
    task: Task, variant: Variant, dataset: Dataset, folds: Folds, workplace: Workplace
) -> VariantTrial:
    """Train and judge a variant on every fold, and at last on the task's own split.

    Nothing of a fold's test side is looked at in training: vocabularies, weights of terms, layers,
    epochs, calibration and thresholds all come from its other sides.

    Args:
        task: The task.
        variant: What to try.
        dataset: Documents that hold every id of the folds.
        folds: The splits, the same for all variants.
        workplace: Where a killed trial goes on.
    """
    own = task_of(task, variant)
    said = (own.model_dump_json(), repr(variant.backends), dataset.info.fingerprint)
    key = sha256_of((*said, folds.model_dump_json(), workplace.code))[:16]
    folder = workplace.folder / f"{variant.name}-{key}"

    def run(number: int, assignment: Assignment) -> FoldTrial:
        return _kept(
            folder / f"fold-{number}.json",
            lambda: try_fold(own, variant.backends, dataset, assignment, folder / "checkpoints"),
        )

    forget_features()
    splits = (*folds.folds, folds.final)
    done = [run(number, assignment) for number, assignment in enumerate(splits)]
    shutil.rmtree(folder, ignore_errors=True)
    return VariantTrial(variant=variant, folds=tuple(done[:-1]), final=done[-1], machine=machine())


def _kept(path: Path, run: Callable[[], FoldTrial]) -> FoldTrial:
    """What was done before, or is done now and kept."""
    try:
        return FoldTrial.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        found = run()
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".tmp")
    staged.write_text(found.model_dump_json(), "utf-8")
    staged.replace(path)
    return found


def try_fold(
    task: Task,
    backends: tuple[BackendName, ...],
    dataset: Dataset,
    assignment: Assignment,
    checkpoints: Path,
) -> FoldTrial:
    """Train on one split and score its test side."""
    trained = train(task, dataset, assignment, checkpoints)
    test = dataset.take(assignment.rows(dataset, "test"))
    scored = []
    for backend, classifier, size in _forms(trained.classifier, backends):
        scores = classifier.score(test.texts()).values
        scored.append(
            Scored(
                backend=backend,
                ids=tuple(test.strings("id").tolist()),
                scores=tuple(scores.tolist()),
                threshold=trained.log.threshold,
                documents_per_second=_speed(classifier, test.texts()),
                size=size,
            )
        )
    log = trained.log
    return FoldTrial(scored=tuple(scored), chosen=log.chosen, cpu_seconds=log.cpu_seconds)


def _forms(
    classifier: Classifier, backends: tuple[BackendName, ...]
) -> Iterator[tuple[str, Classifier, int]]:
    """The classifier as it was trained, then as each backend runs it; with its size in bytes."""
    from tamis.scoring.backends.folder import export, load_encoder

    with TemporaryDirectory() as name:
        saved = Path(name) / "model"
        classifier.save(saved)
        yield AS_TRAINED, classifier, _size(saved)
        for backend in backends:
            require_encoder(classifier)
            folder = export(saved, backend, Path(name) / "exports")
            yield backend, load_encoder(folder), _size(folder, without="exact.onnx")


def require_encoder(classifier: Classifier) -> None:
    """Do nothing where there are backends.

    Raises:
        TypeError: It is no encoder; settings refuse that before.
    """
    if not isinstance(classifier, EncoderClassifier):
        raise TypeError(f"{type(classifier).__name__} has no backends")


def _size(folder: Path, without: str = "") -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != without)
    return sum(path.stat().st_size for path in files)


def _speed(classifier: Classifier, texts: list[str]) -> float:
    """Documents a second of one core, the better of two rounds after one that warms up."""
    import torch

    some, threads = texts[:_TIMED], torch.get_num_threads()
    best = 0.0
    try:
        torch.set_num_threads(1)
        classifier.use_threads(1)
        classifier.score(some[:16])
        for _ in range(_ROUNDS):
            started = time.process_time()
            classifier.score(some)
            best = max(best, len(some) / max(time.process_time() - started, 1e-9))
    finally:
        torch.set_num_threads(threads)
        classifier.use_threads(0)
    return best
