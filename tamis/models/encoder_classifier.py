"""Encoders as classifiers: a network cut after a layer, with a head on its pooled vectors.

head.safetensors      the head's arrays, and those of the map that calibrates its scores
backbone/             the network, cut after the chosen layer, and its tokenizer
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tamis.errors import ModelError
from tamis.models.backbone import quiet, require_tokenizer
from tamis.models.classifier import Classifier, Scores, load_reference
from tamis.models.encoder import Encoder, Network, Progress
from tamis.models.heads import Head
from tamis.models.info import EncoderInfo, read_info
from tamis.models.score_calibration import IDENTITY, ScoreMap, take_score_map
from tamis.models.tokens import TEXTS_AT_ONCE, Tokens, tokenize, tokenized_ahead
from tamis.target import Floats

if TYPE_CHECKING:
    from tamis.models.preparer import Preparer

_PROBES = (
    "",
    " \t\r\n ",
    "The Proof, naïve ÉCOLE Straße İstanbul ﬁn e\u0301 can't U.S.A. 3.14159 x\u00a0y\u200bz",
    "漢字かな交じり文 한국어 عربى עברית ไทย हिन्दी 🙂👩‍👩‍👧 \x00 \ufffd \x1b",
    "[CLS] [SEP] [PAD] [MASK] <s> </s> <pad> <unk> <mask> <|endoftext|>  ▁ Ġ ##ing",
    "proof of a theorem, " * 4_000,
    " ".join(map(str, range(9_000))),
    "z" * 3_000,
)
"""Texts on which tokenizers that are not the same part."""


class EncoderClassifier(Classifier):
    """An encoder, cut after a layer, with a head on its pooled vectors.

    Attributes:
        exact: The network in fp32 beside a quantised ``encoder``; None elsewhere.
    """

    def __init__(
        self,
        info: EncoderInfo,
        encoder: Network,
        head: Head,
        reference: NDArray[np.float32],
        score_map: ScoreMap = IDENTITY,
        exact: Network | None = None,
    ) -> None:
        super().__init__(info, reference, score_map)
        self.info: EncoderInfo = info
        self.encoder = encoder
        self.head = head
        self.exact = exact
        self.near = (0.0, 0.0)

    def embed(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Pooled vectors (n, d) of the texts, and the tokens read (n,)."""
        layer, pooling = self.info.layer, self.info.pooling
        tokens = self.prepare(texts)
        vectors = self.encoder.encode(tokens, [layer], [pooling], progress)
        return vectors[layer, pooling], tokens.read

    def embed_and_score(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], Floats]:
        """Vectors (n, d) and scores (n,) of the same texts, read once."""
        vectors, _ = self.embed(texts, progress)
        return vectors, self.scores_of(vectors)

    @property
    def reference_scores(self) -> Floats:
        """Scores (r,) of the documents of ``reference``."""
        return self.scores_of(self.reference)

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Scores of the texts; batches by length, and tokenizes while the network runs."""
        values, tokens = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
        at_once = TEXTS_AT_ONCE["cpu" if self.encoder.device == "cpu" else "cuda"]
        done = 0
        for rows, prepared in tokenized_ahead(self.prepare, texts, at_once):
            scores = self.score_tokens(prepared, _part_of(progress, done, len(texts)))
            values[rows], tokens[rows] = scores.values, scores.tokens
            done += len(rows)
        return Scores(values, tokens)

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads; 0 leaves the choice to the library."""
        self.encoder.use_threads(threads)
        if self.exact is not None:
            self.exact.use_threads(threads)

    def prepare(self, texts: Sequence[str]) -> Tokens:
        """The half of ``score`` that needs no network: cut and tokenize the texts."""
        return tokenize(self.encoder.tokenizer, texts, self.encoder.limits)

    def score_tokens(self, tokens: Tokens, progress: Progress | None = None) -> Scores:
        """The other half: scores of texts that ``prepare`` tokenized, here or elsewhere."""
        layer, pooling = self.info.layer, self.info.pooling
        vectors = self.encoder.encode(tokens, [layer], [pooling], progress)[layer, pooling]
        values = self.scores_of(vectors)
        threshold, margin = self.near
        if self.exact is not None and margin:
            near = np.flatnonzero(np.abs(values - threshold) < margin)
            again = self.exact.encode(tokens.take(near), [layer], [pooling])[layer, pooling]
            values[near] = self.scores_of(again)
        return Scores(values, tokens.whole)

    def check_near(self, threshold: float, margin: float) -> None:
        """Score again, exactly, what a quantised network scores within a margin of a threshold.

        Raises:
            ModelError: There is no exact network beside it.
        """
        if self.exact is None:
            raise ModelError(f"{self.info.task}: there is no exact network to check with")
        self.near = (threshold, margin)

    def scores_of(self, vectors: NDArray[np.float32]) -> Floats:
        """Calibrated scores (n,) of pooled vectors (n, d): the only way from one to the other."""
        return self.score_map(self.info.target.score(self.head.outputs(vectors)))

    def preparer_loader(self, folder: Path | str) -> Callable[[str], Preparer] | None:
        """What loads the tokenizing half of this classifier alone, without its weights.

        Args:
            folder: Of this classifier.

        Returns:
            ``load_preparer``; None where the tokenizer has no light form, or where that does
            not cut and tokenize some difficult texts exactly as this one does.
        """
        from tamis.models.preparer import load_preparer

        try:
            light = load_preparer(folder).prepare(_PROBES)
        except ModelError:
            return None
        return load_preparer if light.same(self.prepare(_PROBES)) else None

    @property
    def torch_encoder(self) -> Encoder:
        """The network as torch runs it in fp32.

        Raises:
            ModelError: This classifier was loaded for another backend.
        """
        if not isinstance(self.encoder, Encoder):
            raise ModelError(f"{self.info.task}: only its {type(self.encoder).__name__} is here")
        return self.encoder

    def save_weights(self, folder: Path) -> None:
        """Write the head, the network and its tokenizer.

        Raises:
            ModelError: It was loaded for another backend.
        """
        encoder = self.torch_encoder
        encoder.model.save_pretrained(folder / "backbone", safe_serialization=True)
        # What it was last called with would be saved as well.
        if (backend := getattr(encoder.tokenizer, "backend_tokenizer", None)) is not None:
            backend.no_truncation()
            backend.no_padding()
        encoder.tokenizer.save_pretrained(folder / "backbone")
        arrays = self.head.arrays | self.score_map.arrays()
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(contiguous, folder / "head.safetensors")


def _part_of(progress: Progress | None, before: int, total: int) -> Progress | None:
    """What tells ``progress`` of some of the texts after so many others."""
    return progress and (lambda done, _: progress(before + done, total))


def load_encoder_classifier(folder: Path) -> EncoderClassifier:
    """Load an encoder that ``Classifier.save`` wrote, for torch.

    Raises:
        ModelError: The folder is incomplete, damaged or of another format.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    quiet()
    info, head, score_map, reference = load_parts(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / "backbone", local_files_only=True)
        model, report = AutoModel.from_pretrained(
            folder / "backbone",
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        # What is not in the file is made up at random; only the pooler is none of our business.
        if missing := sorted(k for k in report["missing_keys"] if not k.startswith("pooler.")):
            raise ValueError(f"backbone lacks the weight {missing[0]}")
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"classifier {folder}: {str(error).splitlines()[0]}") from None
    encoder = Encoder(model, tokenizer, info.text)
    return EncoderClassifier(info, encoder, head, reference, score_map)


def load_parts(folder: Path) -> tuple[EncoderInfo, Head, ScoreMap, NDArray[np.float32]]:
    """All of a saved encoder but its network and tokenizer: facts, head, map, reference.

    Raises:
        ModelError: A file is missing, damaged or of another format.
    """
    info = read_info(folder)
    if not isinstance(info, EncoderInfo):
        raise ModelError(f"classifier {folder}: it is of the family {info.family}, no encoder")
    try:
        arrays = load_file(folder / "head.safetensors")
        score_map = take_score_map(arrays)
        head = Head(info.formula, arrays)
        head.check()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        require_tokenizer(folder / "backbone")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"classifier {folder}: {str(error).splitlines()[0]}") from None
    return info, head, score_map, load_reference(folder)
