"""What people score documents with today, ready to be timed on given documents."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tamis.models.heads import Head
from tamis.target import Target

Bools = NDArray[np.bool_]


class Rival(Protocol):
    """A way to decide about documents; None where it decides nothing."""

    def __call__(self, texts: Sequence[str]) -> Bools | None:
        """Which documents are kept (n,)."""


class Uncut:
    """A head on the mean-pooled last layer of the whole network: what an embedding library gives.

    Args:
        head: Fitted on L2-normalised vectors.
        target: Turns outputs into scores.
        threshold: Kept is what scores at least this.
    """

    def __init__(self, head: Head, target: Target, threshold: float) -> None:
        self.head, self.target, self.threshold = head, target, threshold

    def decide(self, vectors: NDArray[Any]) -> Bools:
        """Decisions (n,) on vectors (n, d)."""
        return np.asarray(self.target.score(self.head.outputs(vectors)) >= self.threshold)


def transformers_pipeline(model: Any, tokenizer: Any, tokens: int, uncut: Uncut) -> Rival:
    """The feature-extraction pipeline in batches of 32, in the order in which documents come."""
    import torch
    from transformers import pipeline

    run = pipeline("feature-extraction", model=model, tokenizer=tokenizer, device="cpu")

    def decide(texts: Sequence[str]) -> Bools:
        found = run(
            list(texts),
            batch_size=32,
            tokenize_kwargs={"truncation": True, "max_length": tokens},
            return_tensors=True,
        )
        vectors = torch.stack([each[0].mean(dim=0) for each in found])
        return uncut.decide(torch.nn.functional.normalize(vectors, dim=-1).numpy())

    return decide


def sentence_transformers(folder: str, tokens: int, uncut: Uncut) -> Rival:
    """``SentenceTransformer.encode`` as it comes: sorted by length, batches of 32."""
    from sentence_transformers import SentenceTransformer, models

    body = models.Transformer(folder, max_seq_length=tokens)
    pool = models.Pooling(body.get_embedding_dimension(), pooling_mode="mean")
    network = SentenceTransformer(modules=[body, pool, models.Normalize()], device="cpu")

    def decide(texts: Sequence[str]) -> Bools:
        return uncut.decide(network.encode(list(texts), show_progress_bar=False))

    return decide


def fasttext(texts: Sequence[str], kept: Bools) -> Rival:
    """FastText's supervised classifier (by floret, which trains it), on the same documents.

    Words and their pairs, 100 dimensions, 25 epochs; the threshold is the one with the best F1
    on its own training documents.
    """
    import floret

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.txt"
        lines = (
            f"__label__{'keep' if keep else 'drop'} {_line(text)}"
            for text, keep in zip(texts, kept, strict=True)
        )
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        model = floret.train_supervised(
            str(file), epoch=25, wordNgrams=2, thread=os.cpu_count(), verbose=0, seed=0
        )

    def chances(some: Sequence[str]) -> NDArray[np.float64]:
        found = (dict(map(reversed, model.f.predict(f"{_line(t)}\n", 2, 0.0, ""))) for t in some)
        return np.array([labels.get("__label__keep", 0.0) for labels in found])

    from tamis.evaluation.metrics import best_f1_threshold

    threshold = best_f1_threshold(kept, chances(texts))
    return lambda some: np.asarray(chances(some) >= threshold)


def _line(text: str) -> str:
    """A text as fastText reads it: one line."""
    return " ".join(text.split()).lower()
