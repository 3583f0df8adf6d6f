"""Scores before calibration, on which weights of words add up.

For an ordinal target that is what the head gives, not yet clipped to the scale; for the others the
log-odds of the kept side, which do not flatten out where the probability does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tamis.explanation.words import Unit
from tamis.target import Floats, OrdinalTarget, Target

if TYPE_CHECKING:
    import torch

    from tamis.models.classifier import Classifier

_LEAST = 1e-7
"""Probabilities nearer to 0 or 1 count as this far away, so that log-odds stay finite."""


def unit_of(target: Target) -> Unit:
    """What raw scores of a target are counted in."""
    return "points" if isinstance(target, OrdinalTarget) else "log-odds"


def kept_outputs(target: Target) -> list[int]:
    """Positions of the head's outputs that belong to the kept side."""
    if target.kind == "classes":
        return [target.classes.index(name) for name in target.keep]
    return [target.n_outputs - 1]


def raw_of(target: Target, outputs: torch.Tensor) -> torch.Tensor:
    """Raw scores (n,) of the head's outputs (n, k)."""
    if target.kind == "ordinal":
        return outputs[:, 0]
    kept = kept_outputs(target)
    rest = [place for place in range(target.n_outputs) if place not in kept]
    return outputs[:, kept].logsumexp(1) - outputs[:, rest].logsumexp(1)


def raw_scores(classifier: Classifier, texts: Sequence[str]) -> Floats:
    """Raw scores (n,) of texts, by whatever family; one that gives no outputs is clipped."""
    outputs = _outputs(classifier, texts)
    if outputs is not None:
        return _raw(classifier.info.target, outputs)
    scores = classifier.score_map.raw(classifier.score(texts).values)
    if classifier.info.target.kind == "ordinal":
        return scores
    clipped = np.clip(scores, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _raw(target: Target, outputs: Floats) -> Floats:
    """The same as ``raw_of`` without torch, which a service on onnxruntime has not."""
    if target.kind == "ordinal":
        return np.asarray(outputs[:, 0], dtype=np.float64)
    kept = kept_outputs(target)
    rest = [place for place in range(target.n_outputs) if place not in kept]
    sides = [np.logaddexp.reduce(outputs[:, side], axis=1) for side in (kept, rest)]
    return np.asarray(sides[0] - sides[1], dtype=np.float64)


def _outputs(classifier: Classifier, texts: Sequence[str]) -> Floats | None:
    """Outputs of the head (n, k), where the family has such."""
    from tamis.models.encoder_classifier import EncoderClassifier
    from tamis.models.linear import LinearClassifier

    if isinstance(classifier, EncoderClassifier):
        return classifier.head.outputs(classifier.embed(texts)[0])
    if isinstance(classifier, LinearClassifier):
        columns = classifier.columns(texts)
        return np.asarray(columns @ classifier.weight + classifier.bias, dtype=np.float64)
    if classifier.info.family != "recurrent":
        return None
    from tamis.models.recurrent import RecurrentClassifier, run

    if isinstance(classifier, RecurrentClassifier):
        return run(classifier.network, classifier.word_ids(texts))[1]
    return None
