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
from tamis.target import Floats
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
    Both are judged on documents that neither was fitted on: a test document of the challenger
    that the champion was trained on, which a later document tied to a tested one, is left out.
    New are the documents of the window, old all others, of earlier windows as well.
    """
    task, split = rivals.task, rivals.split
    trained_on = rivals.champion.info.trained_on
    seen = {*trained_on.train, *trained_on.validation}
    every = split.rows(rivals.documents, "test")
    ids = rivals.documents.strings("id")[every]
    unseen = np.array([name not in seen for name in ids.tolist()], dtype=bool)
    test = rivals.documents.take(every[unseen])
    champion, challenger = _scores(rivals.champion, test), _scores(rivals.challenger, test)
    # By text as well: what was carried over from an earlier window keeps the id it had there.
    new = np.isin(test.strings("id"), rivals.window.strings("id"))
    new |= np.isin(test.strings("sha256"), rivals.window.strings("sha256"))
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
        task.retrain.new_gain,
    )
    besides = [_labels(rivals, len(every) - len(test)), *_gone(rivals)]
    return Decision.of([*besides, *decision.reasons]), comparison


def _scores(classifier: Classifier, documents: Dataset) -> Floats:
    texts = documents.texts()
    return classifier.score(texts).values if texts else np.empty(0, dtype=np.float64)


def _gone(rivals: Rivals) -> list[Reason]:
    known = rivals.champion.info.trained_on.window
    gone = set(known) - set(rivals.documents.strings("id").tolist())
    if not gone:
        return []
    detail = (
        f"{len(gone)} of the {len(known)} documents that the champion has from earlier windows are "
        "gone: the challenger neither learnt from them nor is judged on them."
    )
    return [Reason(check="earlier_windows", passed=True, detail=detail)]


def _labels(rivals: Rivals, left_out: int) -> Reason:
    labelled, least = rivals.window.info.labelled, rivals.task.retrain.min_labelled
    replay = rivals.challenger.info.replay
    detail = f"The window has {labelled} labelled documents; at least {least} are needed."
    if replay is not None:
        detail += f" The challenger was trained on {replay}."
    if left_out:
        detail += f" {left_out} test documents that the champion was trained on are left out."
    return Reason(check="new_labels", passed=labelled >= least, detail=detail)
