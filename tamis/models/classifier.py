"""A trained classifier: one folder of safetensors and JSON, one way to score texts.

classifier.json       ClassifierInfo: what it is and how it came to be
head.safetensors      the head's arrays
reference.safetensors vectors of a sample of the documents it was trained on
backbone/             the network, cut after the chosen layer, and its tokenizer
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tamis.config import Items, Strict
from tamis.errors import ModelError
from tamis.models.backbone import file_sha256, quiet, require_tokenizer
from tamis.models.encoder import Encoder, Progress, Tokens, tokenize
from tamis.models.heads import Formula, Head
from tamis.models.settings import Backbone, Pooling
from tamis.target import BinaryTarget, ClassesTarget, Floats, OrdinalTarget
from tamis.task import TextLimits

if TYPE_CHECKING:
    from tamis.corpus.split import Side
    from tamis.models.preparer import Preparer

_PROBES = (
    "",
    " \t\r\n ",
    "The Proof, naïve ÉCOLE Straße İstanbul ﬁn e\u0301 can't U.S.A. 3.14159 x\u00a0y\u200bz",
    "漢字かな交じり文 한국어 عربى עברית ไทย हिन्दी 🙂👩‍👩‍👧 \x00 \ufffd \x1b",
    "[CLS] [SEP] [PAD] [MASK] <s> </s> <pad> <unk> <mask> <|endoftext|>  ▁ Ġ ##ing",
    "proof of a theorem, " * 4_000,
    "z" * 3_000,
)
"""Texts on which tokenizers that are not the same part."""


class TrainedOn(Strict):
    """The documents behind a classifier.

    Attributes:
        fingerprint: Of the whole labelled set.
        train: Ids of the documents fitted on.
        validation: Ids of the documents that chose layer, head and threshold.
        test: Ids of the documents never seen.
    """

    fingerprint: str
    train: Items[str]
    validation: Items[str]
    test: Items[str]

    def known(self) -> dict[str, Side]:
        """Side of each document by id."""
        sides: dict[Side, tuple[str, ...]] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return {name: side for side, ids in sides.items() for name in ids}


class ClassifierInfo(Strict):
    """What a classifier is and how it came to be."""

    format: Literal[1] = 1
    task: str
    task_fingerprint: str
    target: Annotated[OrdinalTarget | BinaryTarget | ClassesTarget, Field(discriminator="kind")]
    text: TextLimits
    family: Literal["encoder"]
    train: Literal["frozen", "full"]
    backbone: Backbone
    layer: int
    pooling: Pooling
    head: str
    formula: Formula
    threshold: float
    seed: int
    trained_on: TrainedOn


@dataclass(frozen=True)
class Scores:
    """Scores of some texts.

    Attributes:
        values: Score on the target's scale (n,).
        tokens: Tokens of each whole text (n,), special ones not counted, at least 1. Where the
            model read only a part, they are extrapolated by length (see ``encoder.tokenize``).
    """

    values: Floats
    tokens: NDArray[np.int64]


class Classifier:
    """An encoder, cut after a layer, with a head on its pooled vectors."""

    def __init__(
        self,
        info: ClassifierInfo,
        encoder: Encoder,
        head: Head,
        reference: NDArray[np.float32],
    ) -> None:
        self.info = info
        self.encoder = encoder
        self.head = head
        self.reference = reference

    def embed(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Pooled vectors (n, d) of the texts, and the tokens read (n,)."""
        layer, pooling = self.info.layer, self.info.pooling
        vectors, tokens = self.encoder.features(texts, [layer], [pooling], progress)
        return vectors[layer, pooling], tokens

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Scores of the texts; batches by length internally."""
        return self.score_tokens(self.prepare(texts), progress)

    def prepare(self, texts: Sequence[str]) -> Tokens:
        """The half of ``score`` that needs no network: cut and tokenize the texts."""
        return tokenize(self.encoder.tokenizer, texts, self.encoder.limits)

    def score_tokens(self, tokens: Tokens, progress: Progress | None = None) -> Scores:
        """The other half: scores of texts that ``prepare`` tokenized, here or elsewhere."""
        layer, pooling = self.info.layer, self.info.pooling
        vectors = self.encoder.encode(tokens, [layer], [pooling], progress)[layer, pooling]
        return Scores(self.info.target.score(self.head.outputs(vectors)), tokens.whole)

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

    def save(self, folder: Path) -> None:
        """Write the classifier into an empty or new folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.model.save_pretrained(folder / "backbone", safe_serialization=True)
        self.encoder.tokenizer.save_pretrained(folder / "backbone")
        save_file(
            {k: np.ascontiguousarray(v) for k, v in self.head.arrays.items()},
            folder / "head.safetensors",
        )
        save_file({"reference": self.reference}, folder / "reference.safetensors")
        # Last, so that a folder with this file is complete.
        (folder / "classifier.json").write_text(self.info.model_dump_json(indent=1), "utf-8")


def load_classifier(folder: Path | str) -> Classifier:
    """Load a classifier that ``Classifier.save`` wrote.

    Raises:
        ModelError: The folder is incomplete, damaged or of another format.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    quiet()
    folder = Path(folder)
    try:
        info = read_info(folder)
        head = Head(info.formula, load_file(folder / "head.safetensors"))
        head.check()
        reference = load_file(folder / "reference.safetensors")["reference"]
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        require_tokenizer(folder / "backbone")
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
    return Classifier(info, Encoder(model, tokenizer, info.text), head, reference)


def read_info(folder: Path | str) -> ClassifierInfo:
    """What a saved classifier is, without loading its weights.

    Raises:
        ModelError: There is no such file, or it is of another format.
    """
    path = Path(folder) / "classifier.json"
    try:
        return ClassifierInfo.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {str(error).splitlines()[0]}") from None


def digest(folder: Path | str) -> str:
    """sha256 over the names and content of a saved classifier's files, in hexadecimal."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder)} {file_sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def as_dict(info: ClassifierInfo) -> dict[str, Any]:
    """The facts about a classifier that fit on a page (no lists of documents)."""
    facts = info.model_dump(mode="json", exclude={"trained_on"})
    facts["data_fingerprint"] = info.trained_on.fingerprint
    return facts
