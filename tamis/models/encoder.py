"""Texts to vectors: tokenize, batch by length, run the network, pool one or more layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.models.backbone import transformer_layers
from tamis.models.settings import Pooling

if TYPE_CHECKING:
    import torch

    from tamis.task import TextLimits

Progress = Callable[[int, int], None]
"""Called with the number of texts done and the number in all."""

TOKENS_PER_BATCH = {"cpu": 2_048, "cuda": 65_536}
"""On a CPU small batches keep the activations in the cache; a GPU wants them large."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of each text.

    Attributes:
        ids: One list of token ids a text, cut to the limit.
        pad: Id that fills a batch up.
        whole: Tokens of each whole text (n,), special ones not counted and at least 1: counted
            where nothing was cut, else extrapolated by length; empty where no one asked.
    """

    ids: list[list[int]]
    pad: int
    whole: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each text (n,), as cut."""
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)

    def same(self, other: Tokens) -> bool:
        """Whether all is as in ``other``."""
        counts = np.array_equal(self.whole, other.whole)
        return counts and (self.ids, self.pad) == (other.ids, other.pad)


def tokenize(tokenizer: Any, texts: Sequence[str], limits: TextLimits) -> Tokens:
    """Cut each text by characters, then tokenize it and cut it by tokens.

    A text that was cut counts as many whole tokens as those that were read make for its length:
    ``round(read * characters / characters_read)``, special tokens left out.
    """
    cut = [text[: limits.max_characters] for text in texts]
    if not cut:
        return Tokens(ids=[], pad=0)
    encoded = tokenizer(
        cut, truncation=True, max_length=limits.max_tokens, return_attention_mask=False
    )
    ids = encoded["input_ids"]
    special = tokenizer.num_special_tokens_to_add()
    whole = np.ones(len(texts), dtype=np.int64)
    for row, (text, short) in enumerate(zip(texts, cut, strict=True)):
        read, characters = len(ids[row]) - special, len(short)
        if len(ids[row]) >= limits.max_tokens:
            characters = _characters_read(tokenizer, encoded, row, short)
        whole[row] = max(1, round(read * len(text) / max(1, characters)))
    return Tokens(ids=ids, pad=tokenizer.pad_token_id or 0, whole=whole)


def _characters_read(tokenizer: Any, encoded: Any, row: int, text: str) -> int:
    """Where the last token that is not special ends in a text; all of it if blanks follow."""
    if encoded.encodings is None:  # a tokenizer in pure Python knows no offsets
        return len(tokenizer.decode(encoded["input_ids"][row], skip_special_tokens=True))
    encoding = encoded.encodings[row]
    spans = (encoding.token_to_chars(at) for at in range(len(encoding) - 1, -1, -1))
    end: int = next((span[1] for span in spans if span is not None), 0)
    return end if text[end:].strip() else len(text)


def batches(lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Positions of texts, grouped by length so that no batch holds more than ``budget`` tokens.

    Args:
        lengths: Tokens of each text (n,).
        budget: Most tokens of a batch, padding included; a longer text makes a batch alone.
    """
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One L2-normalised vector a text (b, d) from its hidden states (b, t, d) and mask (b, t)."""
    import torch

    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if pooling == "cls":
        vector = hidden[:, 0]
    elif pooling == "max":
        vector = hidden.masked_fill(weights == 0, float("-inf")).amax(dim=1)
    else:
        vector = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(vector, dim=-1)


def pad_batch(tokens: Tokens, rows: NDArray[np.int64], device: str) -> tuple[torch.Tensor, ...]:
    """Token ids and mask (b, t) of some texts, filled up to the longest."""
    import torch

    longest = max(len(tokens.ids[row]) for row in rows)
    ids = np.full((len(rows), longest), tokens.pad, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for position, row in enumerate(rows):
        ids[position, : len(tokens.ids[row])] = tokens.ids[row]
        mask[position, : len(tokens.ids[row])] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


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
        return self.encode(tokens, layers, poolings, progress), tokens.lengths

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
            progress: Told after every batch.

        Returns:
            Vectors (n, d) by layer and pooling.
        """
        texts = len(tokens.ids)
        size = self.model.config.hidden_size
        keys = [(layer, pooling) for layer in layers for pooling in poolings]
        vectors = {key: np.zeros((texts, size), dtype=np.float32) for key in keys}
        done = 0
        for rows in batches(tokens.lengths, TOKENS_PER_BATCH[self.device]):
            ids, mask = pad_batch(tokens, rows, self.device)
            hidden = self._hidden(ids, mask, layers)
            for layer, pooling in keys:
                vectors[layer, pooling][rows] = pool(hidden[layer], mask, pooling).cpu().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, texts)
        return vectors

    def _hidden(
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
