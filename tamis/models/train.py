"""Train the classifier that a task asks for, of whatever family."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.machine import machine
from tamis.models.classifier import Classifier
from tamis.models.encoder import Progress
from tamis.models.log import HeldOutScores, Trained, TrainingLog, TriedCombination
from tamis.models.settings import LinearSettings, RecurrentSettings
from tamis.models.training import reference_sample
from tamis.task import Task


def train(
    task: Task,
    dataset: Dataset,
    assignment: Assignment,
    checkpoints: Path,
    progress: Progress | None = None,
) -> Trained[Classifier]:
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
    wall, cpu = time.perf_counter(), time.process_time()
    trained = _train(task, labelled, assignment, checkpoints, progress)
    used = {
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "machine": machine(),
    }
    return Trained(trained.classifier, trained.log.model_copy(update=used))


def _train(
    task: Task,
    labelled: Dataset,
    assignment: Assignment,
    checkpoints: Path,
    progress: Progress | None,
) -> Trained[Classifier]:
    model = task.model
    if isinstance(model, LinearSettings):
        from tamis.models.linear_training import train_linear

        return train_linear(task, model, labelled, assignment)
    if isinstance(model, RecurrentSettings):
        from tamis.models.recurrent_training import train_recurrent

        return train_recurrent(task, model, labelled, assignment)
    if model.train == "frozen":
        from tamis.models.frozen import train_frozen

        return train_frozen(task, model, labelled, assignment, progress)
    from tamis.models.finetune import finetune

    return finetune(task, model, labelled, assignment, checkpoints)


__all__ = [
    "HeldOutScores",
    "Trained",
    "TrainingLog",
    "TriedCombination",
    "reference_sample",
    "train",
]
