"""Sorted and padded batches: what ``bench/gpu.py`` measures packed tokens against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Ids = list[list[int]]
Vectors = NDArray[np.float32]


def filled(ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (b, t), filled up to the longest."""
    longest = max(map(len, ids))
    numbers = np.zeros((len(ids), longest), dtype=np.int64)
    mask = np.zeros((len(ids), longest), dtype=np.int64)
    for row, text in enumerate(ids):
        numbers[row, : len(text)], mask[row, : len(text)] = text, 1
    return torch.from_numpy(numbers), torch.from_numpy(mask)


def padded(model: Any, ids: Ids, device: str, batch: int, autocast: bool) -> Vectors:
    """Mean-pooled unit vectors (n, d) of padded batches, the longest texts first."""
    order = np.argsort([-len(text) for text in ids], kind="stable")
    found = []
    mixed = torch.autocast(device, dtype=torch.bfloat16, enabled=autocast)
    with torch.inference_mode(), mixed:
        for start in range(0, len(ids), batch):
            numbers, mask = filled([ids[row] for row in order[start : start + batch]])
            numbers, mask = numbers.to(device), mask.to(device)
            hidden = model(input_ids=numbers, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).float()
            mean = (hidden.float() * weights).sum(1) / weights.sum(1)
            found.append(torch.nn.functional.normalize(mean, dim=-1))
        vectors = np.zeros((len(ids), found[0].shape[1]), dtype=np.float32)
        vectors[order] = torch.cat(found).cpu().numpy()
    return vectors
