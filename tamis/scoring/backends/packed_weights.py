"""Weights of a BertModel, as a packed network wants them; other architectures are refused.

Needs torch, nothing else of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda hidden: functional.gelu(hidden, approximate="tanh"),
    "gelu_pytorch_tanh": lambda hidden: functional.gelu(hidden, approximate="tanh"),
    "relu": functional.relu,
}


class Table(NamedTuple):
    """Weights of what comes before the first layer."""

    words: Tensor
    places: Tensor
    norm: Tensor
    norm_bias: Tensor


class Layer(NamedTuple):
    """Weights of one layer."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    norm: Tensor
    norm_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    last_norm: Tensor
    last_norm_bias: Tensor


def refusal(model: Any) -> str:
    """Why a network cannot be run packed; empty if it can."""
    kind, config = type(model), cast(Any, getattr(model, "config", None))
    if kind.__name__ != "BertModel" or not kind.__module__.startswith("transformers."):
        return f"it is a {kind.__name__}; only a BertModel is known"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        return f"its positions are {config.position_embedding_type}; only absolute ones are known"
    if config.is_decoder or config.add_cross_attention:
        return "it is a decoder"
    if config.hidden_act not in ACTIVATIONS:
        return f"its activation is {config.hidden_act}; known are {', '.join(ACTIVATIONS)}"
    for name, module in model.encoder.named_modules():
        if hasattr(module, "weight") and type(module) not in (nn.Linear, nn.LayerNorm):
            return f"its {name} is a {type(module).__name__}"
    return ""


def weights(
    model: Any, layers: int, device: torch.device, dtype: torch.dtype
) -> tuple[Table, list[Layer]]:
    """Weights of what comes before the first layer, and of so many layers.

    Queries, keys and values are in one matrix. A weight that is on the device already, in that
    dtype, is shared with the model.
    """

    def own(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, dtype).contiguous()

    def both(*modules: Any) -> list[Tensor]:
        return [own(part) for module in modules for part in (module.weight, module.bias)]

    found = []
    for layer in model.encoder.layer[:layers]:
        heads, mixed = layer.attention.self, layer.attention.output
        inner, last = layer.intermediate, layer.output
        parts = (heads.query, heads.key, heads.value)
        qkv = own(torch.cat([p.weight for p in parts])), own(torch.cat([p.bias for p in parts]))
        rest = both(mixed.dense, mixed.LayerNorm, inner.dense, last.dense, last.LayerNorm)
        found.append(Layer(*qkv, *rest))
    table = model.embeddings
    # All tokens are of the first type; its vector goes with the positions.
    places = table.position_embeddings.weight + table.token_type_embeddings.weight[:1]
    words = own(table.word_embeddings.weight)
    return Table(words, own(places), *both(table.LayerNorm)), found
