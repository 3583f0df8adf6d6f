"""Near-duplicates among the labelled documents: MinHash signatures and LSH (datasketch)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5
PERMUTATIONS = 64
CHARACTERS = 20_000


def near_duplicate_clusters(texts: Sequence[str], threshold: float = 0.8) -> NDArray[np.int64]:
    """Cluster of each text (n,): texts whose word shingles overlap stand together.

    Broder 1997 (resemblance) over 5-word shingles, banded as in Leskovec et al., *Mining of
    Massive Datasets*, section 3.4. Clusters are the connected components.

    Args:
        texts: The texts (n); of a long one the first 20,000 characters count.
        threshold: Jaccard similarity from which two texts are taken for the same.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    pairs: list[tuple[int, int]] = []
    for row, text in enumerate(texts):
        signature = MinHash(num_perm=PERMUTATIONS, seed=1)
        signature.update_batch([shingle.encode("utf-8", "replace") for shingle in shingles(text)])
        pairs += [(row, int(other)) for other in index.query(signature)]
        index.insert(str(row), signature)
    return connected(len(texts), pairs)


def shingles(text: str) -> set[str]:
    """Runs of five words, lower case; of a shorter text, the whole."""
    words = re.findall(r"\w+", text[:CHARACTERS].lower())
    if len(words) <= SHINGLE:
        return {" ".join(words) or text}
    return {" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def connected(size: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Component of each of ``size`` nodes (size,) in a graph of undirected pairs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = (
        (np.array(side, dtype=int) for side in zip(*pairs, strict=True))
        if pairs
        else (
            np.array([], dtype=int),
            np.array([], dtype=int),
        )
    )
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
