"""From trials to the table: the same resamples for all, and which one to deploy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tamis.comparison.folds import Folds
from tamis.comparison.report import Comparison, Row
from tamis.comparison.settings import DeployPolicy
from tamis.comparison.trial import AS_TRAINED, Scored, VariantTrial
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.errors import DataError
from tamis.evaluation.assess import columns
from tamis.evaluation.baselines import fit_baselines
from tamis.evaluation.bootstrap import (
    Resamples,
    Sampled,
    difference,
    interval,
    resample,
    sample,
)
from tamis.evaluation.metrics import gain
from tamis.machine import machine
from tamis.target import Floats
from tamis.task import BaselineName, MetricName, Task

BASELINES: tuple[BaselineName, ...] = ("median", "length", "source")


@dataclass(frozen=True)
class _Entry:
    """A variant in one form: its scores over all folds and on the test side."""

    name: str
    family: str
    variant: str
    preparation: str
    backend: str
    folds: tuple[Scored, ...]
    final: Scored
    train_seconds: float
    chosen: str


@dataclass(frozen=True)
class _Judge:
    """Labels and resamples of some documents, the same for every entry."""

    task: Task
    ids: list[str]
    labels: Floats
    resamples: Resamples

    def sampled(self, scored: Sequence[Scored]) -> dict[MetricName, Sampled]:
        """Every metric of the scores of these documents."""
        known = {
            name: (score, each.threshold)
            for each in scored
            for name, score in zip(each.ids, each.scores, strict=True)
        }
        found = np.array([known[name] for name in self.ids], dtype=np.float64)
        return sample(self.task.target, self.labels, found[:, 0], found[:, 1], self.resamples)


def _judge(task: Task, dataset: Dataset, assignments: Sequence[Assignment]) -> _Judge:
    ids = {name for assignment in assignments for name in assignment.sides["test"]}
    rows = [row for row, name in enumerate(dataset.strings("id").tolist()) if name in ids]
    part = dataset.take(np.array(rows, dtype=np.int64))
    groups = assignments[0].leak_groups(part).tolist()
    resamples = resample(groups, task.seed)
    return _Judge(task, part.strings("id").tolist(), part.labels, resamples)


def rank(task: Task, dataset: Dataset, folds: Folds, trials: Sequence[VariantTrial]) -> Comparison:
    """The table of a comparison, best first, with trivial baselines at its end.

    Args:
        task: The task; ``compare.policy`` says what may be deployed.
        dataset: Documents that hold every id of the folds.
        folds: What the trials ran on.
        trials: One a variant.

    Raises:
        DataError: There are no trials.
    """
    if not trials:
        raise DataError("there is nothing to compare")
    judge, test = _judge(task, dataset, folds.folds), _judge(task, dataset, [folds.final])
    second: MetricName = "f1" if task.metric != "f1" else "average_precision"
    entries = [entry for trial in trials for entry in _entries(trial)]
    judged = [(entry, judge.sampled(entry.folds)) for entry in entries]
    judged.sort(key=lambda each: -gain(task.metric, each[1][task.metric].value, 0.0))
    best = judged[0][1][task.metric]

    def row(entry: _Entry, sampled: dict[MetricName, Sampled]) -> Row:
        mine = sampled[task.metric]
        speeds = [each.documents_per_second for each in (*entry.folds, entry.final)]
        return Row(
            name=entry.name,
            family=entry.family,
            variant=entry.variant,
            preparation=entry.preparation,
            backend=entry.backend,
            figure=interval(mine),
            second=interval(sampled[second]),
            behind=None if mine is best else difference(mine, best),
            test=interval(test.sampled([entry.final])[task.metric]),
            train_seconds=entry.train_seconds,
            documents_per_second=float(np.median(speeds)),
            size=entry.final.size,
            chosen=entry.chosen,
        )

    rows = [row(entry, sampled) for entry, sampled in judged]
    deploy, reason = choose(rows, task.metric, task.compare.policy)
    trivial = [row(entry, judge.sampled(entry.folds)) for entry in _baselines(task, dataset, folds)]
    return Comparison(
        task=task.name,
        metric=task.metric,
        second_metric=second,
        folds=len(folds.folds),
        documents=len(judge.ids),
        test_documents=len(test.ids),
        labels_by=dataset.info.labels_by,
        machine=" and ".join(dict.fromkeys(trial.machine for trial in trials)) or machine(),
        rows=(*rows, *trivial),
        deploy=deploy,
        reason=reason,
    )


def choose(rows: Sequence[Row], metric: MetricName, policy: DeployPolicy) -> tuple[str, str]:
    """The name of the row to deploy, best first given, and why; no name where none qualifies."""
    best = rows[0]
    allowed = policy.within * abs(best.figure.value)
    near = [r for r in rows if gain(metric, r.figure.value, best.figure.value) >= -allowed]
    fast = [row for row in near if row.documents_per_second >= policy.documents_per_second]
    asked = (
        f"within {policy.within:.1%} of the best ({best.name}, {metric} {best.figure.value:.3f}) "
        f"and at least {policy.documents_per_second:g} documents a second of one core"
    )
    if not fast:
        fastest = max(near, key=lambda row: row.documents_per_second)
        told = f"The fastest of the near ones is {fastest.name}, {_speed(fastest)}."
        return "", f"None is {asked}. {told}"
    taken = fast[0]
    if policy.prefer == "fastest":
        taken = max(fast, key=lambda row: row.documents_per_second)
    which = "the best" if policy.prefer == "best" else "the fastest"
    return taken.name, (
        f"To deploy: {taken.name}, {which} of {len(fast)} {asked}: {metric} "
        f"{taken.figure.value:.3f}, {_speed(taken)}."
    )


def _speed(row: Row) -> str:
    return f"{row.documents_per_second:,.0f} documents a second"


def _entries(trial: VariantTrial) -> list[_Entry]:
    variant, folds = trial.variant, (*trial.folds, trial.final)
    # The first fold reads the documents, which frozen encoders keep for the others.
    seconds = max(fold.cpu_seconds for fold in folds)
    return [
        _Entry(
            name=f"{variant.name} {form.backend}".strip(),
            family=variant.settings.family,
            variant=variant.settings.variant,
            preparation=variant.preparation,
            backend=form.backend,
            folds=tuple(fold.scored[at] for fold in trial.folds),
            final=form,
            train_seconds=seconds,
            chosen=trial.final.chosen,
        )
        for at, form in enumerate(trial.final.scored)
    ]


def _baselines(task: Task, dataset: Dataset, folds: Folds) -> list[_Entry]:
    """What knows next to nothing, fitted on the same sides."""
    splits = (*folds.folds, folds.final)
    scored: dict[BaselineName, list[Scored]] = {name: [] for name in BASELINES}
    for assignment in splits:
        train, validation, test = (
            columns(dataset, assignment, assignment.rows(dataset, side))
            for side in ("train", "validation", "test")
        )
        fitted = fit_baselines(task.target, train, validation, BASELINES, task.seed)
        for name, baseline in fitted.items():
            found = Scored(
                backend=AS_TRAINED,
                ids=tuple(test.ids),
                scores=tuple(baseline(test.texts, test.sources).tolist()),
                threshold=baseline.threshold,
                documents_per_second=0.0,
                size=0,
            )
            scored[name].append(found)
    return [
        _Entry(
            name=name,
            family="baseline",
            variant=name,
            preparation="",
            backend=AS_TRAINED,
            folds=tuple(found[:-1]),
            final=found[-1],
            train_seconds=0.0,
            chosen="",
        )
        for name, found in scored.items()
    ]
