"""A task with a linear model, its documents and folds, and trials that nobody had to run."""

import numpy as np

from tamis.comparison.folds import make_folds
from tamis.comparison.settings import Variant
from tamis.comparison.trial import FoldTrial, Scored, VariantTrial
from tamis.corpus.split import split
from tamis.models.settings import EncoderSettings, LinearSettings
from tamis.task import Task
from tests.tiny import ORDINAL, easy_set, easy_texts, labelled

LINEAR = {"family": "linear", "characters": None}


def linear_task(**more):
    given = {"name": "toy", "target": ORDINAL, "sources": [{"kind": "packages"}]}
    return Task.model_validate(given | {"model": LINEAR, "split": {"folds": 0}} | more)


def documents(size=90):
    """Groups of two, near-duplicates in other groups, and some that nobody labelled."""
    rows = easy_set(size).table.to_pylist()
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    groups = [row["group"] for row in rows]
    texts += [texts[0], texts[40] + " more", *easy_texts([0.1, 0.9], seed=7)]
    labels += [labels[0], labels[40], None, None]
    return labelled(texts, labels, groups=[*groups, "copy1", "copy2", "new1", "new2"])


def folds_of(task, dataset, count=3):
    assignment = split(dataset, task.target, task.split, task.seed)
    return make_folds(task, dataset, assignment, count)


def variant(name="words", settings=None, preparation="raw", steps=(), backends=()):
    settings = settings or LinearSettings(family="linear", characters=None)
    if backends:
        settings = EncoderSettings()
    return Variant(
        name=name, settings=settings, preparation=preparation, steps=steps, backends=backends
    )


def made_trial(dataset, folds, score, name="words", speeds=(500.0,), threshold=3.0, **more):
    """A trial whose scores are what a function makes of labels (n) and a fold's number.

    Args:
        dataset: Documents.
        folds: Of the comparison.
        score: Called with labels and the number of the fold; that of the test is -1.
        name: Of the variant.
        speeds: Documents a second: one for each form.
        threshold: A number, or a function of the fold's number.
        more: Of the variant.
    """
    label = dict(zip(dataset.strings("id").tolist(), dataset.labels.tolist(), strict=True))
    backends = ("torch-packed", "onnx")[: len(speeds) - 1]

    def fold(number, assignment):
        ids = assignment.sides["test"]
        scores = score(np.array([label[each] for each in ids]), number)
        limit = threshold(number) if callable(threshold) else threshold
        scored = tuple(
            Scored(
                backend=backend,
                ids=ids,
                scores=tuple(scores.tolist()),
                threshold=limit,
                documents_per_second=speed,
                size=1_000_000 * (at + 1),
            )
            for at, (backend, speed) in enumerate(zip(("", *backends), speeds, strict=True))
        )
        return FoldTrial(scored=scored, chosen=f"fold {number}", cpu_seconds=2.0)

    return VariantTrial(
        variant=variant(name, backends=backends, **more),
        folds=tuple(fold(number, each) for number, each in enumerate(folds.folds)),
        final=fold(-1, folds.final),
        machine="a test machine",
    )
