"""Training of a head on a frozen encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.errors import ConfigError
from tamis.models import selection
from tamis.models.backbone import cut, load_backbone
from tamis.models.encoder import Encoder, Progress
from tamis.models.encoder_classifier import EncoderClassifier
from tamis.models.info import EncoderInfo
from tamis.models.log import HeldOutScores, Trained, TrainingLog, TriedCombination
from tamis.models.selection import Problem
from tamis.models.settings import LAST, EncoderSettings, FrozenSettings
from tamis.models.training import facts, problem_of, reference_sample, rows_of
from tamis.task import Task


def train_frozen(
    task: Task,
    model_settings: EncoderSettings,
    dataset: Dataset,
    assignment: Assignment,
    progress: Progress | None,
) -> Trained[EncoderClassifier]:
    """Try every layer, pooling and head that the settings name, and take the cheapest good one.

    Raises:
        ConfigError: A layer that the backbone does not have.
        ModelError: The backbone's weights are missing or not those that were pinned.
    """
    settings = model_settings.frozen
    model, tokenizer = load_backbone(model_settings.backbone)
    check_length(task, model)
    encoder = Encoder(model, tokenizer, task.text)
    layers = layers_of(settings, encoder.depth)
    if max(layers) > encoder.depth:
        allowed = f"layers from 1 to {encoder.depth}"
        raise ConfigError(task.name, "model.frozen.layers", max(layers), allowed)
    features = _features(encoder, model_settings, dataset.texts(), layers, progress)
    problem = problem_of(task, dataset, assignment)
    rows = rows_of(dataset, assignment)
    fitted = selection.fit_frozen(problem, features, rows["train"], rows["validation"])
    best = fitted.choice.best
    encoder = Encoder(cut(model, best.layer), tokenizer, task.text)
    seen = np.concatenate([rows["train"], rows["validation"]])
    info = EncoderInfo(
        **facts(task, assignment, str(best.candidate), fitted.threshold),
        train="frozen",
        backbone=model_settings.backbone,
        layer=best.layer,
        pooling=best.pooling,
        formula=fitted.head.formula,
    )
    vectors = features[best.layer, best.pooling]
    reference = reference_sample(vectors[seen], task.seed)
    score_map = fitted.calibration.score_map
    classifier = EncoderClassifier(info, encoder, fitted.head, reference, score_map)
    log = TrainingLog(
        task=task.name,
        train="frozen",
        metric=task.metric,
        documents={side: len(where) for side, where in rows.items()},
        tried=tuple(
            TriedCombination(
                layer=t.layer, pooling=t.pooling, head=str(t.candidate), figure=t.figure
            )
            for t in fitted.choice.trials
        ),
        chosen=f"layer {best.layer} of {len(layers)} tried, {best.pooling} pooling, "
        f"{best.candidate}",
        threshold=fitted.threshold,
        replay=info.replay,
        calibration=fitted.calibration.note,
        held_out=_held_out(task, dataset, problem, features),
    )
    return Trained(classifier, log)


def layers_of(settings: FrozenSettings, depth: int) -> tuple[int, ...]:
    """The layers to try of a network of so many."""
    wanted = settings.layers or tuple(range(1, depth + 1))
    return tuple(sorted({depth if layer == LAST else layer for layer in wanted}))


def check_length(task: Task, model: Any) -> None:
    """Do nothing when the backbone can read as many tokens as the task wants.

    Raises:
        ConfigError: It cannot.
    """
    most = getattr(model.config, "max_position_embeddings", task.text.max_tokens)
    if task.text.max_tokens > most:
        allowed = f"at most {most}, which is what the backbone reads"
        raise ConfigError(task.name, "text.max_tokens", task.text.max_tokens, allowed)


_LAST: dict[str, selection.Features] = {}
"""Features of the documents that were read last, by all that they depend on: a comparison and a
search train many times on the same documents, and reading them is most of the time."""


def forget_features() -> None:
    """Read the documents anew in the next training: what it costs is to be measured."""
    _LAST.clear()


def _features(
    encoder: Encoder,
    settings: EncoderSettings,
    texts: Sequence[str],
    layers: Sequence[int],
    progress: Progress | None,
) -> selection.Features:
    said = [settings.backbone.model_dump_json(), encoder.limits.model_dump_json()]
    key = hashlib.sha256(
        repr((*said, layers, settings.frozen.poolings, list(texts))).encode("utf-8", "replace")
    ).hexdigest()
    if key not in _LAST:
        found, _ = encoder.features(texts, layers, settings.frozen.poolings, progress)
        _LAST.clear()
        _LAST[key] = found
    return _LAST[key]


def _held_out(
    task: Task, dataset: Dataset, problem: Problem, features: selection.Features
) -> HeldOutScores | None:
    if not task.split.folds:
        return None
    result = selection.cross_validate(problem, features, task.split.folds)
    return HeldOutScores(
        ids=tuple(dataset.strings("id").tolist()),
        fold=tuple(result.fold.tolist()),
        scores=tuple(result.scores.tolist()),
        thresholds=tuple(result.thresholds.tolist()),
        raw=tuple(result.raw.tolist()),
    )
