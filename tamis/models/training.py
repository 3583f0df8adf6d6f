"""What the training of every family needs: the problem, the facts, the sample for drift."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import SIDES, Assignment
from tamis.models.info import TrainedOn
from tamis.models.replay import replayed, weights_of
from tamis.models.selection import Problem
from tamis.models.settings import EncoderSettings, FrozenSettings
from tamis.task import Task

REFERENCE_SIZE = 1_600


def problem_of(task: Task, dataset: Dataset, assignment: Assignment) -> Problem:
    """What selection needs to know of a task and its labelled documents."""
    model = task.model
    frozen = model.frozen if isinstance(model, EncoderSettings) else FrozenSettings()
    return Problem(
        target=task.target,
        metric=task.metric,
        labels=dataset.labels,
        weights=weights_of(task.retrain.replay, dataset, assignment),
        groups=assignment.leak_groups(dataset),
        settings=frozen,
        threshold=task.threshold,
        calibration=task.calibration,
        validation=task.split.validation,
        seed=task.seed,
    )


def rows_of(dataset: Dataset, assignment: Assignment) -> dict[str, NDArray[np.int64]]:
    """Positions of the documents of each side."""
    return {side: assignment.rows(dataset, side) for side in SIDES}


def facts(task: Task, assignment: Assignment, head: str, threshold: float) -> dict[str, Any]:
    """What the record of every family begins with, by field of ``ClassifierInfo``."""
    sides = assignment.sides
    return {
        "task": task.name,
        "task_fingerprint": task.fingerprint(),
        "target": task.target,
        "text": task.text,
        "head": head,
        "threshold": threshold,
        "seed": task.seed,
        "replay": replayed(task.retrain.replay, assignment),
        "trained_on": TrainedOn(
            fingerprint=assignment.fingerprint,
            train=sides["train"],
            validation=sides["validation"],
            test=sides["test"],
            window=assignment.window,
        ),
    }


def reference_rows(documents: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most 1,600 documents, against which later ones are compared for drift."""
    if documents <= REFERENCE_SIZE:
        return np.arange(documents)
    chosen = np.random.default_rng(seed).choice(documents, REFERENCE_SIZE, replace=False)
    return np.sort(chosen)


def reference_sample(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """The vectors of those."""
    return np.ascontiguousarray(vectors[reference_rows(len(vectors), seed)])
