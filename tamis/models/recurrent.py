"""Recurrent classifiers: word vectors read in order by a bidirectional LSTM, or averaged.

recurrent.safetensors weights of the network, map of scores, reference's scores
vocabulary.json       the words, in the order of their vectors

The LSTM is that of Hochreiter & Schmidhuber 1997 with forget gates, read in both directions
(Graves & Schmidhuber 2005, section 2); the mean and the maximum of its states over a text go to
the head. The average is the deep averaging network of Iyyer et al. 2015 (section 3) with one layer.

These networks are so small that a processor runs them; no GPU is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tamis.errors import ModelError
from tamis.models.classifier import Classifier, Scores, load_reference
from tamis.models.encoder import Progress
from tamis.models.info import RecurrentInfo
from tamis.models.linear import count_tokens, readable
from tamis.models.score_calibration import IDENTITY, ScoreMap, take_score_map
from tamis.models.tokens import batches
from tamis.models.word_vectors import PAD, Vocabulary, words_of
from tamis.target import Floats
from tamis.task import TextLimits

FILE = "recurrent.safetensors"
VOCABULARY = "vocabulary.json"
_AT_ONCE = 4_096
"""Texts whose words are in memory together."""
_WORDS_PER_BATCH = 8_192


class Network(nn.Module):
    """Word vectors, what joins them, dropout and a linear head.

    Args:
        words: Ids of words.
        size: Dimensions of their vectors.
        hidden: Units of the LSTM in each direction, or of the layer above the average.
        outputs: Outputs of the head.
        kind: ``lstm`` or ``average``.
        dropout: Share of a text's vector that is dropped while it learns.
    """

    def __init__(
        self,
        words: int,
        size: int,
        hidden: int,
        outputs: int,
        kind: Literal["lstm", "average"],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.lstm = self.layer = None
        if kind == "lstm":
            self.lstm = nn.LSTM(size, hidden, batch_first=True, bidirectional=True)
            self.head = nn.Linear(4 * hidden, outputs)
        else:
            self.layer = nn.Linear(size, hidden)
            self.head = nn.Linear(hidden, outputs)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Outputs (b, k) of word ids (b, t), of which so many (b,) are a text's."""
        return self.outputs(self.pooled(self.embedding(ids), lengths))

    def pooled(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """One vector a text (b, d) of its words' vectors (b, t, size)."""
        if self.lstm is not None:
            packed = pack_padded_sequence(
                self.dropout(vectors), lengths, batch_first=True, enforce_sorted=False
            )
            vectors = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
        beyond = torch.arange(vectors.shape[1]) >= lengths.unsqueeze(1)
        total = vectors.masked_fill(beyond.unsqueeze(2), 0.0).sum(dim=1)
        mean = total / lengths.unsqueeze(1)
        if self.lstm is None:
            return mean
        return torch.cat([mean, vectors.masked_fill(beyond.unsqueeze(2), -2.0).amax(dim=1)], dim=1)

    def outputs(self, pooled: torch.Tensor) -> torch.Tensor:
        """Outputs of the head (b, k) for vectors of texts (b, d)."""
        found = self.dropout(pooled)
        if self.layer is not None:
            found = torch.relu(self.layer(found))
        outputs: torch.Tensor = self.head(found)
        return outputs


class RecurrentClassifier(Classifier):
    """A network on word vectors.

    Attributes:
        vocabulary: The words that it knows.
        network: In the order of the vocabulary's ids.
    """

    def __init__(
        self,
        info: RecurrentInfo,
        vocabulary: Vocabulary,
        network: Network,
        reference: NDArray[np.float32],
        reference_scores: Floats,
        score_map: ScoreMap = IDENTITY,
    ) -> None:
        super().__init__(info, reference, score_map)
        self.info: RecurrentInfo = info
        self.vocabulary = vocabulary
        self.network = network.eval()
        self._reference_scores = reference_scores
        self._threads = 1

    def word_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of the words of each text, prepared and cut as the task says; at least one each."""
        return [self.vocabulary.ids(words) for words in words_of_texts(texts, self.info.text)]

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Calibrated scores of texts, prepared and cut as the task says."""
        return self._read(texts, progress)[1]

    def embed(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What the head reads of each text (n, d), of length 1, and its tokens (n,)."""
        vectors, scores = self._read(texts, progress)
        return vectors, scores.tokens

    def embed_and_score(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], Floats]:
        """Vectors (n, d) and scores (n,) of the same texts, read once."""
        vectors, scores = self._read(texts, progress)
        return vectors, scores.values

    def _read(
        self, texts: Sequence[str], progress: Progress | None
    ) -> tuple[NDArray[np.float32], Scores]:
        """Vectors and scores."""
        values, vectors = np.zeros(len(texts)), []
        for start in range(0, len(texts), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            pooled, outputs = run(self.network, self.word_ids(texts[some]), self._threads)
            values[some] = self.score_map(self.info.target.score(outputs))
            vectors.append(pooled)
            if progress is not None:
                progress(min(start + _AT_ONCE, len(texts)), len(texts))
        d = vectors_size(self.network)
        found = np.vstack(vectors) if vectors else np.zeros((0, d), dtype=np.float32)
        return found, Scores(values, count_tokens(texts, self.info.text.max_characters))

    @property
    def reference_scores(self) -> Floats:
        """Scores (r,) of the documents of ``reference``."""
        return self._reference_scores

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads; 0 leaves it at one (see ``computing``)."""
        self._threads = max(1, threads)

    def save_weights(self, folder: Path) -> None:
        """Write weights and vocabulary."""
        state = self.network.state_dict()
        arrays: dict[str, NDArray[Any]] = {
            **{name: tensor.numpy() for name, tensor in state.items()},
            "reference_scores": self._reference_scores,
            **self.score_map.arrays(),
        }
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, folder / FILE)
        (folder / VOCABULARY).write_text(json.dumps(self.vocabulary.words), "utf-8")


def words_of_texts(texts: Sequence[str], limits: TextLimits) -> list[list[str]]:
    """The words that the model reads of each text: prepared, cut by characters, then by words."""
    return [words_of(text, limits.max_tokens) for text in readable(texts, limits)]


def vectors_size(network: Network) -> int:
    """Dimensions of a text's vector."""
    layer = network.head if network.layer is None else network.layer
    return layer.in_features


def batch(ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Word ids (b, t), filled up to the longest text, and the lengths (b,)."""
    lengths = torch.tensor([len(words) for words in ids])
    filled = torch.full((len(ids), int(lengths.max())), PAD)
    for row, words in enumerate(ids):
        filled[row, : len(words)] = torch.tensor(words)
    return filled, lengths


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Compute with so many threads of torch, and with as many as before afterwards.

    On matrices this small threads mostly wait for each other: one is up to 20 times cheaper.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(
    network: Network, ids: Sequence[Sequence[int]], threads: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Vectors (n, d) of length 1 and outputs (n, k) of texts given as word ids (n)."""
    vectors = np.zeros((len(ids), vectors_size(network)), dtype=np.float32)
    outputs = np.zeros((len(ids), network.head.out_features))
    with torch.inference_mode(), computing(threads):
        for rows, (words, lengths) in _batches(ids):
            pooled = network.pooled(network.embedding(words), lengths)
            vectors[rows] = functional.normalize(pooled, dim=1).numpy()
            outputs[rows] = network.outputs(pooled).numpy()
    return vectors, outputs


def _batches(
    ids: Sequence[Sequence[int]],
) -> Iterator[tuple[NDArray[np.int64], tuple[torch.Tensor, torch.Tensor]]]:
    lengths = np.array([len(words) for words in ids], dtype=np.int64)
    for rows in batches(lengths, _WORDS_PER_BATCH):
        yield rows, batch([ids[row] for row in rows])


def load_recurrent(folder: Path, info: RecurrentInfo) -> RecurrentClassifier:
    """Load what ``RecurrentClassifier.save`` wrote.

    Raises:
        ModelError: A file is missing, damaged, or does not fit the others.
    """
    try:
        arrays = load_file(folder / FILE)
        score_map, scores = take_score_map(arrays), arrays.pop("reference_scores")
        words = json.loads((folder / VOCABULARY).read_text("utf-8"))
        if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
            raise ValueError("the vocabulary is not a list of words")
        vocabulary = Vocabulary(tuple(words))
        if any(a.dtype != np.float32 or not np.isfinite(a).all() for a in arrays.values()):
            raise ValueError("a weight is not a finite number of 32 bits")
        # Without memory, and so without drawing the numbers that the file's replace.
        with torch.device("meta"):
            network = Network(
                len(vocabulary), info.size, info.hidden, info.target.n_outputs, info.network
            )
        state = {name: torch.from_numpy(array) for name, array in arrays.items()}
        found = {name: tensor.shape for name, tensor in network.state_dict().items()}
        if found != {name: tensor.shape for name, tensor in state.items()}:
            raise ValueError("the weights do not fit the vocabulary and the network")
        network.load_state_dict(state, assign=True)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"classifier {folder}: {str(error).splitlines()[0]}") from None
    reference = load_reference(folder)
    return RecurrentClassifier(info, vocabulary, network, reference, scores, score_map)
