"""Tokens to vectors: batch by length, run the network, pool one or more layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tamis.models.backbone import transformer_layers
from tamis.models.settings import Pooling
from tamis.models.tokens import Tokens, batches, combine, counter, tokenize

if TYPE_CHECKING:
    import torch

    from tamis.task import TextLimits

Progress = Callable[[int, int], None]
"""Called with the number of texts done and the number in all."""


class Network(Protocol):
    """What a classifier needs to score: an ``Encoder``, or a faster backend of one layer."""

    tokenizer: Any
    limits: TextLimits
    device: str

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads."""

    def encode(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        poolings: Sequence[Pooling],
        progress: Progress | None = None,
    ) -> dict[tuple[int, Pooling], NDArray[np.float32]]:
        """Vectors (n, d) by layer and pooling; see ``Encoder.encode``."""


TOKENS_PER_BATCH = {"cpu": 2_048, "cuda": 65_536}
"""On a CPU small batches keep the activations in the cache; a GPU wants them large."""


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One L2-normalised vector each (b, d) from hidden states (b, t, d) and mask (b, t)."""
    import torch

    hidden = hidden.float()
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling == "cls":
        vector = hidden[:, 0]
    elif pooling == "max":
        vector = hidden.masked_fill(weights == 0, float("-inf")).amax(dim=1)
    else:
        vector = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(vector, dim=-1)


def padded(tokens: Tokens, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and mask (b, t) of some sequences, filled up to the longest."""
    longest = max(len(tokens.ids[row]) for row in rows)
    ids = np.full((len(rows), longest), tokens.pad, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for position, row in enumerate(rows):
        ids[position, : len(tokens.ids[row])] = tokens.ids[row]
        mask[position, : len(tokens.ids[row])] = 1
    return ids, mask


def pad_batch(tokens: Tokens, rows: NDArray[np.int64], device: str) -> tuple[torch.Tensor, ...]:
    """What ``padded`` gives, as tensors on a device."""
    import torch

    return tuple(torch.from_numpy(array).to(device) for array in padded(tokens, rows))


class Encoder:
    """A network and its tokenizer.

    The vectors of a layer are read from the layer itself, not from the network's output, so
    that they are the same whether or not further layers or a final norm follow.
    """

    def __init__(self, model: Any, tokenizer: Any, limits: TextLimits) -> None:
        import torch

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model: Any = model.eval().to(self.device)
        self.tokenizer = tokenizer
        self.limits = limits

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads, in this whole process; 0 leaves torch its choice."""
        import torch

        if threads:
            torch.set_num_threads(threads)

    @property
    def depth(self) -> int:
        """Number of transformer layers."""
        return len(transformer_layers(self.model))

    def features(
        self,
        texts: Sequence[str],
        layers: Sequence[int],
        poolings: Sequence[Pooling],
        progress: Progress | None = None,
    ) -> tuple[dict[tuple[int, Pooling], NDArray[np.float32]], NDArray[np.int64]]:
        """Pooled vectors of each text for each layer and pooling, in one pass.

        Args:
            texts: The texts (n).
            layers: As of ``encode``.
            poolings: As of ``encode``.
            progress: As of ``encode``.

        Returns:
            Vectors (n, d) by layer and pooling, and the tokens read of each text (n,).
        """
        tokens = tokenize(self.tokenizer, texts, self.limits)
        return self.encode(tokens, layers, poolings, progress), tokens.read

    def encode(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        poolings: Sequence[Pooling],
        progress: Progress | None = None,
    ) -> dict[tuple[int, Pooling], NDArray[np.float32]]:
        """Pooled vectors of each tokenized text for each layer and pooling, in one pass.

        Args:
            tokens: Of the texts (n).
            layers: Layers to read, counted from 1.
            poolings: How to make one vector of a text's hidden states.
            progress: Told after every batch; a text of several sequences counts with its last.

        Returns:
            Vectors (n, d) by layer and pooling.
        """
        size, count = self.model.config.hidden_size, counter(tokens)
        keys = [(layer, pooling) for layer in layers for pooling in poolings]
        vectors = {key: np.zeros((len(tokens.ids), size), dtype=np.float32) for key in keys}
        for rows in batches(tokens.lengths, TOKENS_PER_BATCH[self.device]):
            ids, mask = pad_batch(tokens, rows, self.device)
            hidden = self.hidden(ids, mask, layers)
            for layer, pooling in keys:
                vectors[layer, pooling][rows] = pool(hidden[layer], mask, pooling).cpu().numpy()
            if progress is not None:
                progress(count(rows), tokens.documents)
        return {key: combine(found, tokens) for key, found in vectors.items()}

    def hidden(
        self, ids: torch.Tensor, mask: torch.Tensor, layers: Sequence[int]
    ) -> dict[int, torch.Tensor]:
        """Hidden states (b, t, d) of the wanted layers."""
        import torch

        modules = transformer_layers(self.model)
        found: dict[int, torch.Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(module: object, inputs: object, output: Any) -> None:
                found[layer] = output[0] if isinstance(output, tuple) else output

            return hook

        handles = [modules[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
        try:
            with torch.inference_mode():
                self.model(input_ids=ids, attention_mask=mask)
        finally:
            for handle in handles:
                handle.remove()
        return found
