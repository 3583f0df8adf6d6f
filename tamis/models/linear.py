"""Linear classifiers: TF-IDF of word and character n-grams, ridge or logistic regression.

linear.safetensors    weights, inverse document frequencies, map of scores, reference's scores
vocabulary.json       the n-grams, in the order of the weights

Terms are weighed by ``1 + ln(count)``, times the smoothed inverse document frequency, each block
(words, characters) brought to length 1: the weights of Salton & Buckley 1988 ("Term-weighting
approaches in automatic text retrieval", section 3) as scikit-learn has them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tamis.errors import ModelError
from tamis.models.classifier import Classifier, Scores, load_reference
from tamis.models.encoder import Progress
from tamis.models.info import LinearInfo
from tamis.models.preparation import prepare
from tamis.models.score_calibration import IDENTITY, ScoreMap, take_score_map
from tamis.models.settings import NgramRange
from tamis.target import Floats
from tamis.task import TextLimits

FILE = "linear.safetensors"
VOCABULARY = "vocabulary.json"
PROJECTED = 256
"""Dimensions of the vectors that drift is measured on."""
_AT_ONCE = 512
"""Texts whose n-grams are in memory together."""
_TOKENS = r"\w+|[^\w\s]"


def counter(kind: str, ngrams: NgramRange, vocabulary: Sequence[str] | None = None) -> Any:
    """What counts n-grams of ``words`` or ``characters``; of a vocabulary, where it is given."""
    from sklearn.feature_extraction.text import CountVectorizer

    analysis = (
        {"analyzer": "char_wb"} if kind == "characters" else {"token_pattern": r"(?u)\b\w+\b"}
    )
    known = None if vocabulary is None else {name: at for at, name in enumerate(vocabulary)}
    return CountVectorizer(ngram_range=ngrams, vocabulary=known, dtype=np.float32, **analysis)


def weigh(counts: Any, idf: NDArray[np.float32]) -> Any:
    """Sparse term weights (n, d) of counts (n, d), each row of length 1 (or 0)."""
    from sklearn.preprocessing import normalize

    weights = counts.copy()
    np.log(weights.data, out=weights.data)
    weights.data += 1
    return normalize(weights.multiply(idf).tocsr(), copy=False)


@dataclass(frozen=True)
class Terms:
    """The n-grams of one kind that a model knows.

    Attributes:
        kind: ``words`` or ``characters``.
        ngrams: Shortest and longest.
        names: The n-grams (d).
        idf: Their inverse document frequencies (d,).
    """

    kind: str
    ngrams: NgramRange
    names: tuple[str, ...]
    idf: NDArray[np.float32]

    @cached_property
    def _counter(self) -> Any:
        return counter(self.kind, self.ngrams, self.names)

    def weights(self, texts: Sequence[str]) -> Any:
        """Sparse term weights (n, d) of texts."""
        return weigh(self._counter.transform(texts), self.idf)


def readable(texts: Sequence[str], limits: TextLimits) -> list[str]:
    """What a linear model reads of texts: prepared, then cut by characters."""
    return [text[: limits.max_characters] for text in prepare(texts, limits.preparation)]


class LinearClassifier(Classifier):
    """Weights on n-grams.

    Attributes:
        terms: N-grams of words, and of characters where the task has them.
        weight: (d, k), over all blocks in order.
        bias: (k,).
    """

    def __init__(
        self,
        info: LinearInfo,
        terms: tuple[Terms, ...],
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
        reference: NDArray[np.float32],
        reference_scores: Floats,
        score_map: ScoreMap = IDENTITY,
    ) -> None:
        super().__init__(info, reference, score_map)
        self.info: LinearInfo = info
        self.terms = terms
        self.weight, self.bias = weight, bias
        self._reference_scores = reference_scores

    def columns(self, texts: Sequence[str]) -> Any:
        """Sparse features (n, d) of texts as they come, not yet prepared."""
        from scipy.sparse import hstack

        given = readable(texts, self.info.text)
        return hstack([block.weights(given) for block in self.terms], format="csr")

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Calibrated scores of texts, prepared and cut as the task says."""
        return self._read(texts, progress)[1]

    def embed(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Randomly projected term weights (n, 256), of length 1, and the tokens of each text (n,).

        Distances between texts are about those between their term weights (Li, Hastie & Church
        2006, "Very sparse random projections", KDD).
        """
        vectors, scores = self._read(texts, progress, embed=True)
        return vectors, scores.tokens

    def embed_and_score(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], Floats]:
        """Vectors (n, 256) and scores (n,) of the same texts."""
        vectors, scores = self._read(texts, progress, embed=True)
        return vectors, scores.values

    def _read(
        self, texts: Sequence[str], progress: Progress | None, embed: bool = False
    ) -> tuple[NDArray[np.float32], Scores]:
        """Vectors, where they are asked for, and scores."""
        values, vectors = np.zeros(len(texts)), []
        for start in range(0, len(texts), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            columns = self.columns(texts[some])
            outputs = np.asarray(columns @ self.weight + self.bias, dtype=np.float64)
            values[some] = self.score_map(self.info.target.score(outputs))
            if embed:
                vectors.append(project(columns))
            if progress is not None:
                progress(min(start + _AT_ONCE, len(texts)), len(texts))
        found = np.vstack(vectors) if vectors else np.zeros((0, PROJECTED), dtype=np.float32)
        return found, Scores(values, count_tokens(texts, self.info.text.max_characters))

    @property
    def reference_scores(self) -> Floats:
        """Scores (r,) of the documents of ``reference``."""
        return self._reference_scores

    def use_threads(self, threads: int) -> None:
        """Nothing: one thread computes."""

    def save_weights(self, folder: Path) -> None:
        """Write weights and vocabulary."""
        arrays: dict[str, NDArray[Any]] = {
            "weight": self.weight,
            "bias": self.bias,
            "reference_scores": self._reference_scores,
            **{f"idf_{block.kind}": block.idf for block in self.terms},
            **self.score_map.arrays(),
        }
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, folder / FILE)
        names = {block.kind: block.names for block in self.terms}
        (folder / VOCABULARY).write_text(json.dumps(names), "utf-8")


def project(columns: Any) -> NDArray[np.float32]:
    """Sparse features (n, d) to vectors (n, 256) of length 1, the same way each time."""
    from sklearn.preprocessing import normalize
    from sklearn.random_projection import SparseRandomProjection

    projection = SparseRandomProjection(PROJECTED, dense_output=True, random_state=0)
    dense = projection.fit(columns[:1]).transform(columns)
    return np.asarray(normalize(dense), dtype=np.float32)


def count_tokens(texts: Sequence[str], read: int) -> NDArray[np.int64]:
    """Words and marks of each text (n,), at least 1; beyond what is read, by length."""
    import re

    found = re.compile(_TOKENS)
    counts = [
        round(len(found.findall(text[:read])) * max(1.0, len(text) / max(1, read)))
        for text in texts
    ]
    return np.maximum(1, np.array(counts, dtype=np.int64))


def load_linear(folder: Path, info: LinearInfo) -> LinearClassifier:
    """Load what ``LinearClassifier.save`` wrote.

    Raises:
        ModelError: A file is missing, damaged, or does not fit the others.
    """
    try:
        arrays = load_file(folder / FILE)
        score_map = take_score_map(arrays)
        names = json.loads((folder / VOCABULARY).read_text("utf-8"))
        ranges = {"words": info.words, "characters": info.characters}
        terms = tuple(
            Terms(kind, ngrams, tuple(names[kind]), arrays[f"idf_{kind}"])
            for kind, ngrams in ranges.items()
            if ngrams is not None
        )
        weight, bias, scores = (arrays[key] for key in ("weight", "bias", "reference_scores"))
        if not all(np.isfinite(a).all() for a in (weight, bias, *(block.idf for block in terms))):
            raise ValueError("a weight is not a finite number")
        if any(len(set(map(str, block.names))) != len(block.names) for block in terms):
            raise ValueError("an n-gram is there twice")
        width, outputs = sum(len(block.names) for block in terms), info.target.n_outputs
        if (weight.shape, bias.shape) != ((width, outputs), (outputs,)) or any(
            block.idf.shape != (len(block.names),) for block in terms
        ):
            raise ValueError("the weights do not fit the vocabulary")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"classifier {folder}: {str(error).splitlines()[0]}") from None
    return LinearClassifier(info, terms, weight, bias, load_reference(folder), scores, score_map)
