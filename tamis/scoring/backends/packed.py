"""An encoder without padding, for GPUs: the same vectors as ``Encoder``, from packed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.models.encoder import Progress
from tamis.models.settings import Pooling
from tamis.models.tokens import Tokens, combine, counter

if TYPE_CHECKING:
    import torch

    from tamis.task import TextLimits


class PackedEncoder:
    """A network that runs packed, and its tokenizer; ``Encoder`` to those who read one layer.

    Args:
        model: A BertModel; it is not changed.
        tokenizer: Its tokenizer.
        limits: How much of a text is read.
        layer: The one to read, counted from 1; those above are not run. None for the last.
        dtype: Of weights and activations; None for bf16 on a GPU and fp32 on a CPU.
        device: Where to run; None for a GPU if there is one.
        compiled: As of ``PackedNetwork``.
        graphs: As of ``PackedNetwork``; None where it runs on a GPU.
        budgets: As of ``PackedNetwork``.

    Raises:
        ValueError: The network cannot be run packed.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        limits: TextLimits,
        layer: int | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: str | None = None,
        compiled: bool = False,
        graphs: bool | None = None,
        budgets: Sequence[int] | None = None,
    ) -> None:
        import torch

        from tamis.scoring.backends.packed_network import PackedNetwork

        self.tokenizer = tokenizer
        self.limits = limits
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        on_gpu = self.device.startswith("cuda")
        # A tokenizer may be allowed more tokens than the network has positions; that is an
        # error of the text that has them, as it is with the padded encoder.
        positions = getattr(model.config, "max_position_embeddings", limits.max_tokens)
        self.network = PackedNetwork(
            model,
            layers=layer,
            dtype=dtype or (torch.bfloat16 if on_gpu else torch.float32),
            device=self.device,
            budgets=budgets,
            longest=min(limits.max_tokens, positions),
            compiled=compiled,
            graphs=on_gpu if graphs is None else graphs,
        )

    @property
    def depth(self) -> int:
        """Number of transformer layers that are run."""
        return self.network.depth

    @property
    def notes(self) -> tuple[str, ...]:
        """What was asked for and could not be had, and why."""
        return tuple(self.network.notes)

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads, in this whole process; 0 leaves torch its choice."""
        import torch

        if threads:
            torch.set_num_threads(threads)

    def encode(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        poolings: Sequence[Pooling],
        progress: Progress | None = None,
    ) -> dict[tuple[int, Pooling], NDArray[np.float32]]:
        """Pooled vectors of each tokenized text.

        Args:
            tokens: Of the texts (n).
            layers: The layer that this encoder reads, alone.
            poolings: How to make one vector of a text's hidden states: one.
            progress: Told after every batch; a text of several sequences counts with its last.

        Returns:
            Vectors (n, d) by layer and pooling.

        Raises:
            ValueError: More than one layer or pooling, another layer, or a text too long.
        """
        if list(layers) != [self.depth] or len(poolings) != 1:
            raise ValueError(
                f"packed encoder: given layers {list(layers)}, poolings {list(poolings)}; "
                f"allowed: layer {self.depth} and one pooling"
            )
        count = counter(tokens)

        def tell(rows: NDArray[np.int64]) -> None:
            if progress is not None:
                progress(count(rows), tokens.documents)

        vectors = self.network.encode(tokens.ids, poolings[0], tell)
        return {(self.depth, poolings[0]): combine(vectors, tokens)}
