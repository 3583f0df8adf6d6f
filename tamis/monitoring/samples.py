"""Documents as the tests of drift see them: one row a document, no more than each test needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Words = Any
"""A sparse matrix (n, WORDS) of 0 and 1: which hashed words a document has."""
WORDS = 4_096
REFERENCE = 4_000
"""Documents of a reference that are looked at; a seeded sample of more."""
Strings = NDArray[np.str_]


@dataclass(frozen=True)
class Sample:
    """Some documents of a reference or of a window; what is not known of them is None.

    Attributes:
        ids: Of the documents (n,).
        scores: The model's scores (n,), NaN where there is none.
        characters: Lengths (n,).
        languages: ISO 639-1 codes (n,), empty where not known.
        sources: Where they came from (n,).
        groups: Documents of one page or module have the same (n,): they come together.
        vectors: The encoder's vectors (n, d).
        words: Which hashed words they have (n, WORDS).
    """

    ids: Strings
    scores: NDArray[np.float64]
    characters: NDArray[np.int64]
    languages: Strings
    sources: Strings
    groups: Strings
    vectors: NDArray[np.float32] | None = None
    words: Words | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.intp]) -> Sample:
        """Some of the documents, in this order."""
        return Sample(
            ids=self.ids[rows],
            scores=self.scores[rows],
            characters=self.characters[rows],
            languages=self.languages[rows],
            sources=self.sources[rows],
            groups=self.groups[rows],
            vectors=None if self.vectors is None else self.vectors[rows],
            words=None if self.words is None else self.words[rows],
        )

    def beside(self, other: Sample) -> Sample:
        """These documents and then another sample's; what one of both lacks, none has."""
        from scipy.sparse import vstack

        words = self.words is not None and other.words is not None
        vectors = None
        if self.vectors is not None and other.vectors is not None:
            vectors = np.concatenate([self.vectors, other.vectors])
        return Sample(
            ids=np.concatenate([self.ids, other.ids]),
            scores=np.concatenate([self.scores, other.scores]),
            characters=np.concatenate([self.characters, other.characters]),
            languages=np.concatenate([self.languages, other.languages]),
            sources=np.concatenate([self.sources, other.sources]),
            groups=np.concatenate([self.groups, other.groups]),
            vectors=vectors,
            words=vstack([self.words, other.words]).tocsr() if words else None,
        )

    def at_most(self, most: int, seed: int) -> Sample:
        """A seeded sample of no more than so many, in their order."""
        if len(self) <= most:
            return self
        rows = np.random.default_rng(seed).choice(len(self), most, replace=False)
        return self.take(np.sort(rows))


_WORD = re.compile(r"\w\w+")


def words_of(text: str) -> set[str]:
    """The words of a text: lower case, two letters and more."""
    return set(_WORD.findall(text.lower()))


def hashed_words(texts: Sequence[str]) -> csr_matrix:
    """Which hashed words each text has (n, WORDS)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        analyzer=words_of,
        n_features=WORDS,
        binary=True,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    found: csr_matrix = hashing.transform(texts).tocsr()
    return found
