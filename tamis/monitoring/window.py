"""A window of documents beside a model's reference."""

from __future__ import annotations

from collections import Counter

from tamis.corpus.dataset import Dataset
from tamis.models.classifier import Classifier
from tamis.models.encoder import Progress
from tamis.monitoring.drift import DriftReport, measure_drift
from tamis.task import DriftPolicy


def drift_of(
    model: Classifier,
    window: Dataset,
    policy: DriftPolicy,
    seed: int,
    progress: Progress | None = None,
) -> DriftReport:
    """Drift of a window's documents, labelled or not, against what the model was trained on."""
    vectors, scores = model.embed_and_score(window.texts(), progress)
    return measure_drift(
        model.reference,
        vectors,
        model.reference_scores,
        scores,
        dict(sorted(Counter(window.strings("source").tolist()).items())),
        policy,
        seed,
    )
