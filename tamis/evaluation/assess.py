"""Judge a trained classifier on its test documents, beside baselines trained on the same split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.evaluation.baselines import fit_baselines
from tamis.evaluation.figures import CrossValidation, Evaluation
from tamis.evaluation.report import agreement, cross_validate, evaluate
from tamis.models.classifier import Classifier
from tamis.models.encoder import Progress
from tamis.models.train import HeldOutScores, TrainingLog
from tamis.target import Floats
from tamis.task import Task


@dataclass(frozen=True)
class Columns:
    """Labelled documents as columns (n,)."""

    ids: list[str]
    texts: list[str]
    labels: Floats
    second_labels: Floats
    sources: list[str]
    groups: list[str]


def columns(dataset: Dataset, assignment: Assignment, rows: NDArray[np.int64]) -> Columns:
    """Some rows of a dataset, with the leak groups of its split."""
    part = dataset.take(rows)
    return Columns(
        ids=part.strings("id").tolist(),
        texts=part.texts(),
        labels=part.labels,
        second_labels=part.floats("second_label"),
        sources=part.strings("source").tolist(),
        groups=assignment.leak_groups(part).tolist(),
    )


def assess(
    task: Task,
    classifier: Classifier,
    log: TrainingLog,
    dataset: Dataset,
    assignment: Assignment,
    progress: Progress | None = None,
) -> Evaluation:
    """Figures of a classifier on the test side, with baselines and the labels' own ceiling.

    Where the training log holds cross-validated scores, the same comparison is made over every
    labelled document, each scored by a model that did not see its group.
    """
    train, validation, test = (
        columns(dataset, assignment, assignment.rows(dataset, side))
        for side in ("train", "validation", "test")
    )
    scores = classifier.score(test.texts, progress).values
    baselines = fit_baselines(task.target, train, validation, seed=task.seed)
    return evaluate(
        task=task.name,
        target=task.target,
        metric=task.metric,
        threshold=classifier.info.threshold,
        ids=test.ids,
        texts=test.texts,
        labels=test.labels,
        second_labels=test.second_labels,
        sources=test.sources,
        groups=test.groups,
        scores=scores,
        baseline_scores={n: b(test.texts, test.sources) for n, b in baselines.items()},
        baseline_thresholds={name: b.threshold for name, b in baselines.items()},
        seed=task.seed,
        raw_scores=classifier.score_map.raw(scores),
        ceiling=agreement(task.target, dataset.labels, dataset.floats("second_label")),
        cross_validation=_cross_validation(task, log.held_out, dataset, assignment),
    )


def _cross_validation(
    task: Task, held_out: HeldOutScores | None, dataset: Dataset, assignment: Assignment
) -> CrossValidation | None:
    if held_out is None:
        return None
    position = {name: row for row, name in enumerate(dataset.strings("id").tolist())}
    rows = np.array([position[name] for name in held_out.ids], dtype=np.int64)
    documents = columns(dataset, assignment, rows)
    fold = np.array(held_out.fold)
    scores: dict[str, Floats] = {}
    thresholds: dict[str, Floats] = {}
    for number in range(len(held_out.thresholds)):
        outside = columns(dataset, assignment, rows[fold != number])
        inside = fold == number
        texts = [documents.texts[i] for i in np.flatnonzero(inside)]
        sources = [documents.sources[i] for i in np.flatnonzero(inside)]
        for name, baseline in fit_baselines(task.target, outside, seed=task.seed).items():
            scores.setdefault(name, np.zeros(len(fold)))[inside] = baseline(texts, sources)
            thresholds.setdefault(name, np.zeros(len(fold)))[inside] = baseline.threshold
    return cross_validate(
        target=task.target,
        metric=task.metric,
        folds=len(held_out.thresholds),
        texts=documents.texts,
        labels=documents.labels,
        sources=documents.sources,
        groups=documents.groups,
        scores=np.array(held_out.scores),
        thresholds=np.array(held_out.thresholds)[fold],
        baseline_scores=scores,
        baseline_thresholds=thresholds,
        seed=task.seed,
        raw_scores=np.array(held_out.raw) if held_out.raw else None,
    )
