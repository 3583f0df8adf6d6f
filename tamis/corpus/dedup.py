"""Clusters of near-duplicates: of labelled documents in memory, or joined from candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.minhash import MinHasher, similarity

SHINGLE = 5
PERMUTATIONS = 64
CHARACTERS = 20_000

PAIRWISE = 16
"""Members of a band's group up to which all pairs are compared."""
LEADERS = 16
"""Members of a larger group with which all others are compared."""
_BLOCK = 8192


def near_duplicate_clusters(texts: Sequence[str], threshold: float = 0.8) -> NDArray[np.int64]:
    """Cluster of each text (n,): texts whose runs of five words overlap stand together.

    Signatures as in ``tamis.corpus.minhash``, banded as in Leskovec et al., *Mining of Massive
    Datasets*, section 3.4. Clusters are the connected components.

    Args:
        texts: The texts (n); of a long one the first 20,000 characters count.
        threshold: Jaccard similarity from which two texts are taken for the same.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    hasher = MinHasher(PERMUTATIONS, SHINGLE, CHARACTERS)
    pairs: list[tuple[int, int]] = []
    for row, text in enumerate(texts):
        signature = MinHash(
            hashvalues=hasher.minima(text), permutations=hasher.permutations, scheme="affine32"
        )
        pairs += [(row, int(other)) for other in index.query(signature)]
        index.insert(str(row), signature)
    return connected(len(texts), pairs)


def connected(size: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Component of each of ``size`` nodes (size,) in a graph of undirected pairs."""
    array = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return components(size, array[:, 0], array[:, 1])


def components(size: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Component of each of ``size`` nodes (size,) in a graph with edges one[i] - other[i]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(one), dtype=bool), (one, other)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


class Clusters:
    """Documents that are joined band by band.

    Attributes:
        labels: Cluster of each document (m,): the first of its members.
        candidates: Pairs compared so far.
        verified: Those that were similar.
    """

    def __init__(self, codes: NDArray[np.uint8], threshold: float) -> None:
        self.codes, self.threshold = codes, threshold
        self.labels = np.arange(len(codes))
        self.candidates = self.verified = 0

    def join_band(self, first: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Join what is similar in the groups of a band, given as stars, edges side by side."""
        self._compare(first, other)
        group = np.cumsum(np.diff(first, prepend=first[:1]) != 0)
        apart = self.labels[first] != self.labels[other]
        open_groups = np.zeros(len(first) + 1, dtype=bool)
        open_groups[group[apart]] = True
        chosen = open_groups[group]
        first, other, group = first[chosen], other[chosen], group[chosen]
        heads, at = np.unique(group, return_index=True)
        # Members of each group, its first before the others.
        members, of = np.concatenate([first[at], other]), np.concatenate([heads, group])
        order = np.argsort(of, kind="stable")
        members, of = members[order], of[order]
        small = np.bincount(of, minlength=1)[of] <= PAIRWISE
        self._compare_pairs(members[small], of[small])
        self._compare_leaders(members[~small], of[~small])

    def _compare_pairs(self, members: NDArray[np.int64], of: NDArray[np.int64]) -> None:
        for step in range(1, PAIRWISE):
            same = of[step:] == of[:-step]
            self._compare(members[:-step][same], members[step:][same])

    def _compare_leaders(self, members: NDArray[np.int64], of: NDArray[np.int64]) -> None:
        for _ in range(LEADERS):
            _, first, group = np.unique(of, return_index=True, return_inverse=True)
            left = self.labels[members] != self.labels[members[first[group]]]
            members, of = members[left], of[left]
            if not len(members):
                return
            _, first, group = np.unique(of, return_index=True, return_inverse=True)
            self._compare(members[first[group]], members)

    def _compare(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Join the pairs that are apart and similar."""
        apart = self.labels[one] != self.labels[other]
        one, other = one[apart], other[apart]
        similar = np.empty(len(one), dtype=bool)
        for start in range(0, len(one), _BLOCK):
            block = slice(start, start + _BLOCK)
            found = similarity(self.codes[one[block]], self.codes[other[block]])
            similar[block] = found >= self.threshold
        self.candidates += len(one)
        self.verified += int(np.count_nonzero(similar))
        if similar.any():
            self._join(self.labels[one[similar]], self.labels[other[similar]])

    def _join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        nodes, ends = np.unique(np.concatenate([one, other]), return_inverse=True)
        of = components(len(nodes), ends[: len(one)], ends[len(one) :])
        _, first = np.unique(of, return_index=True)
        renamed = np.arange(len(self.labels))
        renamed[nodes] = nodes[first[of]]
        self.labels = renamed[self.labels]
