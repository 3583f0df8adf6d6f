"""The whole network with a head on its last layer, beside the cut one, against the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.rivals import Uncut
from tamis.corpus.sources import ingest
from tamis.corpus.split import split
from tamis.evaluation.bootstrap import difference, interval, resample, sample
from tamis.models.backbone import load_backbone, locate
from tamis.models.encoder import Encoder
from tamis.models.selection import cross_validate, fit_frozen
from tamis.models.tokens import tokenize
from tamis.models.train import problem_of
from tamis.task import Task


@dataclass(frozen=True)
class Fitted:
    """The uncut network, ready to be run by others.

    Attributes:
        model: Of transformers.
        tokenizer: Its tokenizer.
        folder: Where both are.
        decider: A head on its last layer.
        against_labels: Cross-validated Spearman of ours and of the uncut one, and the difference.
    """

    model: Any
    tokenizer: Any
    folder: str
    decider: Uncut
    against_labels: dict[str, dict[str, float]]


def fit_uncut(task: Task) -> Fitted:
    """Fit a head on the last layer, and compare it with the layers that the task may choose."""
    dataset = ingest(task)
    dataset = dataset.take(~np.isnan(dataset.labels))
    assignment = split(dataset, task.target, task.split, task.seed)
    problem = problem_of(task, dataset, assignment)
    model, tokenizer = load_backbone(task.model.backbone)
    encoder = Encoder(model, tokenizer, task.text)
    layers = task.model.frozen.layers or tuple(range(1, encoder.depth + 1))
    tokens = tokenize(tokenizer, dataset.texts(), task.text)
    features = encoder.encode(tokens, sorted({*layers, encoder.depth}), ("mean",))
    last = {key: found for key, found in features.items() if key[0] == encoder.depth}
    ours = {key: found for key, found in features.items() if key[0] in layers}
    rows = (assignment.rows(dataset, side) for side in ("train", "validation"))
    fitted = fit_frozen(problem, last, *rows)
    draws = resample(problem.groups.tolist(), task.seed)
    held = [cross_validate(problem, each, task.split.folds or 5) for each in (ours, last)]
    sampled = [
        sample(task.target, problem.labels, each.scores, each.thresholds[each.fold], draws)
        for each in held
    ]
    metric = task.metric
    against = {
        "ours": interval(sampled[0][metric]),
        "uncut": interval(sampled[1][metric]),
        "gain": difference(sampled[0][metric], sampled[1][metric]),
    }
    raw = fitted.calibration.score_map.raw(np.array([fitted.threshold]))
    decider = Uncut(fitted.head, task.target, float(raw[0]))
    told = {name: dict(found) for name, found in against.items()}
    return Fitted(model, tokenizer, locate(task.model.backbone)[0], decider, told)
