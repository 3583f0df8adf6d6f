"""Parts of the test documents that deserve a figure of their own.

A model can look good overall by telling genres apart and know nothing within one; the figure
inside each source and family of sources shows it. Length terciles show whether it lives off
how long a document is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.evaluation.metrics import Bools

SliceKind = Literal["family", "source", "length"]

MIN_DOCUMENTS = 10  # smaller slices say nothing, and are pooled
MAX_SOURCES = 12  # web-scale corpora have thousands of sites; the largest are shown


class Slice(NamedTuple):
    """Some of the documents: what they share, its name, and which they are."""

    kind: SliceKind
    name: str
    mask: Bools


def slices(sources: Sequence[str], characters: NDArray[np.int64]) -> list[Slice]:
    """Slices by family of sources, by source and by length tercile.

    The family of ``docstring/numpy`` is ``docstring``; it is a slice where several sources
    share it. Sources of fewer than ten documents, and those after the twelfth, are pooled.

    Args:
        sources: Where each document comes from, (n,); empty where unknown.
        characters: Length of each document, (n,).
    """
    found = [*_families(sources), *_sources(sources), *_lengths(characters)]
    everything = len(characters)
    return [s for s in found if MIN_DOCUMENTS <= int(s.mask.sum()) < everything]


def _families(sources: Sequence[str]) -> list[Slice]:
    family = np.array([source.partition("/")[0] for source in sources], dtype=str)
    members: dict[str, set[str]] = {}
    for name, source in zip(family.tolist(), sources, strict=True):
        members.setdefault(name, set()).add(source)
    shared = sorted(name for name, own in members.items() if len(own) > 1)
    return [Slice("family", f"{name}/*", family == name) for name in shared]


def _sources(sources: Sequence[str]) -> list[Slice]:
    column = np.array(sources, dtype=str)
    sizes = sorted(Counter(sources).items(), key=lambda item: (-item[1], item[0]))
    shown = [name for name, size in sizes if size >= MIN_DOCUMENTS][:MAX_SOURCES]
    own = [Slice("source", name or "(unknown)", column == name) for name in shown]
    return [*own, Slice("source", "(other sources)", ~np.isin(column, shown))]


def _lengths(characters: NDArray[np.int64]) -> list[Slice]:
    low, high = (int(q) for q in np.quantile(characters, [1 / 3, 2 / 3]))
    return [
        Slice("length", f"up to {low:,} characters", characters <= low),
        Slice("length", f"{low + 1:,} to {high:,}", (characters > low) & (characters <= high)),
        Slice("length", f"over {high:,}", characters > high),
    ]
