"""A challenger beside the champion on the same test documents of two periods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.decision import Decision, Reason
from tamis.evaluation.gate import Period, PeriodComparison, Thresholds, compare_periods
from tamis.models.classifier import Classifier
from tamis.task import Task


@dataclass(frozen=True)
class Rivals:
    """A challenger, the champion it would replace, and the documents both are judged on.

    Attributes:
        task: The task.
        challenger: Trained on old and new documents.
        champion: Trained on the old ones.
        documents: All documents.
        split: Their sides; what the champion was tested on is on the test side.
        window: The new documents.
    """

    task: Task
    challenger: Classifier
    champion: Classifier
    documents: Dataset
    split: Assignment
    window: Dataset


def compare_rivals(rivals: Rivals) -> tuple[Decision, PeriodComparison]:
    """Decide whether the challenger may replace the champion.

    Besides ``compare_periods``, the window must hold ``retrain.min_labelled`` labelled documents.
    """
    task, split = rivals.task, rivals.split
    test = rivals.documents.take(split.rows(rivals.documents, "test"))
    texts = test.texts()
    champion = rivals.champion.score(texts).values
    challenger = rivals.challenger.score(texts).values
    new = np.isin(test.strings("id"), rivals.window.strings("id"))
    groups = split.leak_groups(test)

    def period(which: NDArray[np.bool_]) -> Period:
        return Period(
            test.labels[which], champion[which], challenger[which], groups[which].tolist()
        )

    decision, comparison = compare_periods(
        task.metric,
        task.retrain.old_margin,
        period(~new),
        period(new),
        task.target,
        Thresholds(rivals.champion.info.threshold, rivals.challenger.info.threshold),
        task.seed,
    )
    labelled, least = rivals.window.info.labelled, task.retrain.min_labelled
    enough = Reason(
        check="new_labels",
        passed=labelled >= least,
        detail=f"The window has {labelled} labelled documents; at least {least} are needed.",
    )
    return Decision.of([enough, *decision.reasons]), comparison
