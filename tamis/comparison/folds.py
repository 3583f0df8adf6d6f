"""The folds of a comparison: the task's test documents stay out of all of them."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment, Side
from tamis.errors import DataError
from tamis.models.selection import grouped_folds
from tamis.models.training import problem_of
from tamis.task import Task


class Folds(BaseModel):
    """Splits that every variant is trained and judged on.

    Attributes:
        folds: One each: the fold is its test side, the rest trains and validates.
        final: The task's own split, whose test side nothing was chosen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: tuple[Assignment, ...]
    final: Assignment


def make_folds(task: Task, dataset: Dataset, assignment: Assignment, folds: int) -> Folds:
    """Folds over the training and validation documents; no leak group is in two.

    Args:
        task: The task.
        dataset: Documents that hold every id of the assignment.
        assignment: The task's split.
        folds: How many.

    Raises:
        DataError: The documents, or their groups, are too few for so many.
    """
    labelled = dataset.take(~np.isnan(dataset.labels))
    problem = problem_of(task, labelled, assignment)
    sides: tuple[Side, ...] = ("train", "validation")
    rows = np.sort(np.concatenate([assignment.rows(labelled, side) for side in sides]))
    ids = np.array(labelled.strings("id").tolist(), dtype=object)
    parts = max(2, round(1 / task.split.validation))
    made = []
    try:
        outer = grouped_folds(problem, rows, folds)
        for number in range(folds):
            rest, test = rows[outer != number], rows[outer == number]
            inner = grouped_folds(problem, rest, parts)
            chosen: dict[Side, tuple[str, ...]] = {
                "train": tuple(ids[rest[inner != 0]].tolist()),
                "validation": tuple(ids[rest[inner == 0]].tolist()),
                "test": tuple(ids[test].tolist()),
            }
            if not all(chosen.values()):
                raise ValueError
            made.append(assignment.model_copy(update={"sides": chosen}))
    except ValueError:
        groups = len(np.unique(problem.groups[rows]))
        told = f"{len(rows)} documents in {groups} groups are too few for {folds} folds"
        raise DataError(f"{told}, each of which trains on some and validates on others") from None
    return Folds(folds=tuple(made), final=assignment)
