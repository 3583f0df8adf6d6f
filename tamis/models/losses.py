"""Losses of networks whose examples may weigh differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional


def weighted_mean(
    loss: Callable[..., Any],
    outputs: torch.Tensor,
    wanted: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """The mean loss of a batch.

    Args:
        loss: ``mse_loss`` or ``cross_entropy`` of torch.
        outputs: Of the network, (b,) or (b, k).
        wanted: What they should be, in the loss's own form.
        weights: Of the examples, with a mean of 1 over all of them (b,); None where each weighs
            the same. The batch's own mean is not divided out, or a light batch would count fully.
    """
    if weights is None:
        found: torch.Tensor = loss(outputs, wanted)
        return found
    each: torch.Tensor = loss(outputs, wanted, reduction="none")
    if each.dim() > 1:
        each = each.flatten(1).mean(1)
    return (weights * each).mean()


def weighted_divergence(
    said: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor | None
) -> torch.Tensor:
    """The mean Kullback-Leibler divergence of a batch of logits (b, k) from others (b, k)."""
    said, wanted = (functional.log_softmax(logits, dim=1) for logits in (said, wanted))
    if weights is None:
        return functional.kl_div(said, wanted, log_target=True, reduction="batchmean")
    each = functional.kl_div(said, wanted, log_target=True, reduction="none").sum(1)
    return (weights * each).mean()
