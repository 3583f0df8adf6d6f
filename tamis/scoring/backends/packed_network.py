"""A BERT-type network over packed tokens: texts end to end, no padding between them.

Texts are put into batches of a fixed budget of tokens, and each batch runs as one flat row of
tokens: matrix products and norms see tokens only, attention sees where each text begins. On a
GPU the flat row can be filled up to one of a few budgets, so that compiled code and CUDA graphs
meet a few shapes only; what fills it up makes texts of its own, which nobody reads.

Needs torch and numpy, and of this project nothing but its two neighbours that need no more.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tamis.scoring.backends.packed_weights import ACTIVATIONS, Layer, Table, refusal, weights
from tamis.scoring.backends.packing import Packed, first_fit, pack

Pooling = Literal["mean", "cls", "max"]
Progress = Callable[[NDArray[np.int64]], None]
"""Called with the positions of the texts that have their vectors now."""

BUDGETS = {"cpu": (2_048,), "cuda": (8_192, 16_384, 32_768, 65_536)}
"""Tokens of a batch: the largest where there are enough texts, else the least that holds all."""

_TEXTS_PER_GRAPH = (256, 64, 16, 4, 1)
"""Tokens a text for which a graph leaves room, roomier ones only where texts are short."""
_AHEAD = 2
"""Batches that the device is given before the host waits for the oldest."""

_Attention = Callable[[Tensor, Tensor, Tensor, Tensor, int, Sequence[int]], Tensor]
"""Query, key, value (t, h, d), starts (n + 1,), the longest text, sizes; gives (t, h, d)."""


def pool(hidden: Tensor, starts: Tensor, pooling: Pooling) -> Tensor:
    """One L2-normalised vector a text (n, d), in fp32, from hidden states (t, d).

    Args:
        hidden: Of the tokens of all texts, end to end.
        starts: Where each text begins, and where the last one ends (n + 1,).
        pooling: How to make one vector of a text's hidden states.
    """
    if pooling == "cls":
        vectors = hidden[starts[:-1].long()].float()
    else:
        vectors = torch.segment_reduce(hidden.float(), pooling, offsets=starts, axis=0, unsafe=True)
    return functional.normalize(vectors, dim=-1)


def attend_by_length(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, sizes: Sequence[int]
) -> Tensor:
    """Attention within each text, by one call for each run of texts of one length."""
    mixed = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    start = 0
    for size, run in itertools.groupby(sizes):
        count = sum(1 for _ in run)
        span = slice(start, start + count * size)
        shape = count, size, *query.shape[1:]
        q, k, v = (part[span].view(shape).transpose(1, 2) for part in (query, key, value))
        found = functional.scaled_dot_product_attention(q, k, v)
        mixed[span] = found.transpose(1, 2).flatten(0, 1)
        start = span.stop
    return mixed


@dataclass(frozen=True)
class _Graph:
    """A captured run: copy numbers in, replay, read what comes out."""

    graph: torch.cuda.CUDAGraph
    numbers: Tensor
    hidden: Tensor


class PackedNetwork:
    """A BertModel, cut after a layer, that reads packed tokens.

    Args:
        model: The network; it is not changed.
        layers: How many of its layers to run; None for all.
        dtype: Of weights and activations; vectors are fp32 always.
        device: Where to run.
        budgets: Tokens of a batch, see ``BUDGETS``.
        longest: Most tokens of a text; None for as many as there are positions.
        compiled: Fuse what lies between matrix products with ``torch.compile``.
        graphs: Capture one CUDA graph a shape, and replay it.
        fill: Fill batches up to a budget; None where compiled code or graphs want it.

    Attributes:
        notes: What was asked for and could not be had, and why.

    Raises:
        ValueError: The network is of another architecture, or a number is out of range.
    """

    def __init__(
        self,
        model: Any,
        *,
        layers: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        budgets: Sequence[int] | None = None,
        longest: int | None = None,
        compiled: bool = False,
        graphs: bool = False,
        fill: bool | None = None,
    ) -> None:
        if reason := refusal(model):
            raise ValueError(f"this network cannot be run packed: {reason}")
        config = model.config
        depth = len(model.encoder.layer)
        self.depth = depth if layers is None else layers
        self.longest = config.max_position_embeddings if longest is None else longest
        self.device = torch.device(device)
        self.budgets = sorted(budgets or BUDGETS["cuda" if self.on_gpu else "cpu"])
        if not 1 <= self.depth <= depth:
            raise ValueError(f"layers: given {layers}; allowed: 1 to {depth}")
        if not 1 <= self.longest <= config.max_position_embeddings:
            limit = config.max_position_embeddings
            raise ValueError(f"longest: given {longest}; allowed: 1 to {limit}")
        if self.budgets[0] < 1:
            raise ValueError(f"budgets: given {self.budgets}; allowed: positive numbers")
        self.dtype = dtype
        self.width: int = config.hidden_size
        self.vocabulary: int = model.embeddings.word_embeddings.num_embeddings
        self.heads: int = config.num_attention_heads
        self.compiled = compiled
        self.graphs = graphs and self.on_gpu
        self.fill = compiled or self.graphs if fill is None else fill
        self.notes = ["CUDA graphs: they need a GPU"] if graphs and not self.on_gpu else []
        self._epsilon: float = config.layer_norm_eps
        self._activation = ACTIVATIONS[config.hidden_act]
        self._captured: dict[tuple[int, int], _Graph] = {}
        with torch.no_grad():
            self._table, self._layers = weights(model, self.depth, self.device, dtype)
            self._attend = self._attention()
        self._embed, self._finish = self._pieces()

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device.type == "cuda"

    def encode(
        self,
        ids: Sequence[Sequence[int]],
        pooling: Pooling = "mean",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """One L2-normalised vector (n, d) a text; zeros for one without a token.

        While the device computes a batch, the host packs the next ones.

        Args:
            ids: Token ids of each text.
            pooling: How to make one vector of a text's hidden states.
            progress: Told after every batch; before, of the texts without a token.

        Raises:
            ValueError: A text has too many tokens, or an id that the network does not know.
        """
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        if lengths.max(initial=0) > self.longest:
            raise ValueError(f"a text of {lengths.max()} tokens; allowed: {self.longest}")
        vectors = np.zeros((len(ids), self.width), dtype=np.float32)
        waiting: deque[tuple[NDArray[np.int64], Tensor, torch.cuda.Event | None]] = deque()

        def collect() -> None:
            rows, found, event = waiting.popleft()
            if event is not None:
                event.synchronize()
            vectors[rows] = found.numpy()
            if progress is not None:
                progress(rows)

        if progress is not None and not lengths.all():
            progress(np.flatnonzero(lengths == 0))
        with torch.no_grad(), torch.cuda.device(self.device) if self.on_gpu else nullcontext():
            for rows in first_fit(lengths, self.budgets[-1]):
                packed = self._pack([ids[row] for row in rows.tolist()])
                waiting.append((rows, *self._launch(packed, pooling)))
                if len(waiting) > _AHEAD or not self.on_gpu:
                    collect()
            while waiting:
                collect()
        return vectors

    def _attention(self) -> _Attention:
        """Variable-length attention where it works here, else one call for each length."""
        if not self.on_gpu:
            return attend_by_length
        try:
            from torch.nn.attention.varlen import varlen_attn

            def attend(
                query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, _: object
            ) -> Tensor:
                found = varlen_attn(query, key, value, starts, starts, longest, longest)
                return cast(Tensor, found)  # a pair only for those who ask for more

            with torch.cuda.device(self.device):
                shape = (6, 3, self.heads, self.width // self.heads)
                query, key, value = torch.randn(shape, device=self.device).to(self.dtype).unbind(1)
                starts = torch.tensor([0, 1, 6, 6], dtype=torch.int32, device=self.device)
                found = attend(query, key, value, starts, 5, ())
                expected = attend_by_length(query, key, value, starts, 5, [1, 5])
                torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
        except Exception as error:  # whatever it is, there is another way
            self.notes.append(f"variable-length attention: {first_line(error)}")
            if self.graphs:
                self.notes.append("CUDA graphs: they need variable-length attention")
                self.graphs = False
            return attend_by_length
        return attend

    def _pieces(self) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        """What comes before the first layer, and what follows attention in each.

        Neither sees how many texts there are: compiled, they know the number of tokens only.
        """
        size, epsilon, activation = (self.width,), self._epsilon, self._activation

        def embed(ids: Tensor, positions: Tensor, w: Table) -> Tensor:
            found = functional.embedding(ids, w.words) + functional.embedding(positions, w.places)
            return functional.layer_norm(found, size, w.norm, w.norm_bias, epsilon)

        def finish(hidden: Tensor, mixed: Tensor, w: Layer) -> Tensor:
            hidden = hidden + functional.linear(mixed, w.out, w.out_bias)
            hidden = functional.layer_norm(hidden, size, w.norm, w.norm_bias, epsilon)
            inner = activation(functional.linear(hidden, w.up, w.up_bias))
            found = hidden + functional.linear(inner, w.down, w.down_bias)
            return functional.layer_norm(found, size, w.last_norm, w.last_norm_bias, epsilon)

        if not self.compiled:
            return embed, finish
        return (
            torch.compile(embed, fullgraph=True, dynamic=False),
            torch.compile(finish, fullgraph=True, dynamic=False),
        )

    def _pack(self, ids: list[Sequence[int]]) -> Packed:
        """Texts end to end; filled up if this network wants it."""
        tokens = used = sum(map(len, ids))
        if self.fill:
            tokens = next((budget for budget in self.budgets if budget >= used), used)
        room = 0
        if self.graphs:
            count = len(ids) - (used - tokens) // self.longest  # with those that fill it up
            room = next(tokens // each for each in _TEXTS_PER_GRAPH if tokens // each >= count)
        packed = pack(ids, tokens, self.longest, room)
        known = packed.numbers[: packed.tokens]
        if known.min() < 0 or known.max() >= self.vocabulary:
            raise ValueError(f"a token id out of range; allowed: 0 to {self.vocabulary - 1}")
        return packed

    def _launch(self, packed: Packed, pooling: Pooling) -> tuple[Tensor, torch.cuda.Event | None]:
        """Vectors of a batch on the host; there once the event has come."""
        numbers = torch.from_numpy(packed.numbers)
        if not self.on_gpu:
            return self._pooled(numbers, self._run(numbers, packed), packed, pooling), None
        numbers = numbers.pin_memory()
        captured = self._graph(numbers, packed) if self.graphs else None
        if captured is None:
            numbers = numbers.to(self.device, non_blocking=True)
            hidden = self._run(numbers, packed)
        else:
            captured.numbers.copy_(numbers, non_blocking=True)
            captured.graph.replay()
            numbers, hidden = captured.numbers, captured.hidden
        vectors = self._pooled(numbers, hidden, packed, pooling).to("cpu", non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return vectors, event

    def _pooled(self, numbers: Tensor, hidden: Tensor, packed: Packed, pooling: Pooling) -> Tensor:
        """Vectors of the texts, without those that fill up."""
        starts = numbers[2 * packed.tokens :][: packed.texts + 1]
        used = sum(packed.sizes[: packed.texts])
        return pool(hidden[:used], starts, pooling)

    def _run(self, numbers: Tensor, packed: Packed, longest: int | None = None) -> Tensor:
        """Hidden states (t, d) of the last layer; without compiled code where that fails."""
        try:
            return self._forward(numbers, packed, longest or packed.longest)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if not self.compiled:
                raise
            self.compiled = False
            self.notes.append(f"torch.compile: {first_line(error)}")
            self._embed, self._finish = self._pieces()
            return self._forward(numbers, packed, longest or packed.longest)

    def _forward(self, numbers: Tensor, packed: Packed, longest: int) -> Tensor:
        ids, positions = numbers[: 2 * packed.tokens].view(2, -1)
        starts = numbers[2 * packed.tokens :]
        hidden = self._embed(ids, positions, self._table)
        for layer in self._layers:
            qkv = functional.linear(hidden, layer.qkv, layer.qkv_bias)
            query, key, value = qkv.view(packed.tokens, 3, self.heads, -1).unbind(1)
            mixed = self._attend(query, key, value, starts, longest, packed.sizes)
            hidden = self._finish(hidden, mixed.reshape(packed.tokens, self.width), layer)
        return hidden

    def _graph(self, numbers: Tensor, packed: Packed) -> _Graph | None:
        """The graph for batches of this shape, captured when first met; None if that fails.

        A graph holds the longest text and the number of texts of its capture fast, so both are
        the most there can be; where each text begins is read on the device at each replay.
        """
        shape = packed.tokens, len(packed.numbers)
        if shape in self._captured:
            return self._captured[shape]
        if packed.tokens not in self.budgets:
            return None
        try:
            own = numbers.to(self.device)
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # libraries and the compiler settle before the capture
                    expected = self._run(own, packed, self.longest)
            torch.cuda.current_stream().wait_stream(stream)
            shared = next(iter(self._captured.values())).graph.pool() if self._captured else None
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=shared, capture_error_mode="thread_local"):
                hidden = self._forward(own, packed, self.longest)
            graph.replay()
            torch.testing.assert_close(hidden, expected, atol=0.05, rtol=0.05)
        except Exception as error:  # measured and served without, and said so
            self.graphs = False
            self.notes.append(f"CUDA graphs: {first_line(error)}")
            return None
        self._captured[shape] = _Graph(graph, own, hidden)
        return self._captured[shape]


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
