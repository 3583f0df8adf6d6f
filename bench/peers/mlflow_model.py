"""A pyfunc in MLflow's form "models from code", with type hints for its signature.

It scores with whatever was saved beside it: the export as the other peer does, or the classifier as
the registry holds it, in torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel, PythonModelContext

from bench.peers.scorer import OnnxScorer


def in_torch(folder: str) -> Callable[[Sequence[str]], list[float]]:
    """Scores by the classifier as it was saved, with torch's threads, one a core."""
    from tamis.models.encoder_classifier import load_encoder_classifier

    classifier, lock = load_encoder_classifier(Path(folder)), threading.Lock()

    def score(texts: Sequence[str]) -> list[float]:
        with lock:  # neither tokenizer nor network is made for two threads at once
            values: list[float] = classifier.score(texts).values.tolist()
        return values

    return score


class Scorer(PythonModel):
    """Scores of texts."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load what was saved beside it."""
        folder = context.artifacts["classifier"]
        exported = (Path(folder) / "encoder.onnx").is_file()
        self.score = OnnxScorer(folder, threads=1).score if exported else in_torch(folder)

    def predict(self, context: Any, model_input: list[str]) -> list[float]:
        """Scores of the texts."""
        return self.score(model_input)


mlflow.models.set_model(Scorer())
