"""A trained classifier of any family: one way to score texts, one folder of safetensors and JSON.

classifier.json       ClassifierInfo: what it is and how it came to be
reference.safetensors vectors of a sample of the documents it was trained on
...                   what the family needs: see encoder_classifier, linear, recurrent
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tamis.errors import ModelError
from tamis.models.backbone import file_sha256
from tamis.models.encoder import Progress
from tamis.models.info import FILE, ClassifierInfo, TrainedOn, as_dict, read_info
from tamis.models.score_calibration import IDENTITY, ScoreMap
from tamis.target import Floats

REFERENCE = "reference.safetensors"


@dataclass(frozen=True)
class Scores:
    """Scores of some texts.

    Attributes:
        values: Score on the target's scale (n,).
        tokens: Tokens of each whole text (n,), special ones not counted, at least 1. Where the
            model read only a part, they are extrapolated by length (see ``tokens.tokenize``).
    """

    values: Floats
    tokens: NDArray[np.int64]


class Classifier(ABC):
    """A trained model that gives calibrated scores.

    Attributes:
        info: What it is.
        reference: Vectors (r, d) of a sample of the documents it was trained on, as ``embed``
            makes them; drift is measured against them.
        score_map: From raw scores to calibrated ones.
    """

    def __init__(
        self,
        info: ClassifierInfo,
        reference: NDArray[np.float32],
        score_map: ScoreMap = IDENTITY,
    ) -> None:
        self.info = info
        self.reference = reference
        self.score_map = score_map

    @abstractmethod
    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Calibrated scores of texts, prepared and cut as the task says."""

    @abstractmethod
    def embed(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors (n, d) of the texts, of length 1, and the tokens read (n,)."""

    def embed_and_score(
        self, texts: Sequence[str], progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], Floats]:
        """Vectors (n, d) and scores (n,) of the same texts."""
        vectors, _ = self.embed(texts, progress)
        return vectors, self.score(texts).values

    @property
    @abstractmethod
    def reference_scores(self) -> Floats:
        """Scores (r,) of the documents of ``reference``."""

    @abstractmethod
    def use_threads(self, threads: int) -> None:
        """Compute with so many threads; 0 leaves the choice to the library."""

    @abstractmethod
    def save_weights(self, folder: Path) -> None:
        """Write what the family needs into an existing folder.

        Raises:
            ModelError: It was loaded in a form that cannot be saved.
        """

    def save(self, folder: Path) -> None:
        """Write the classifier into an empty or new folder.

        Raises:
            ModelError: It was loaded in a form that cannot be saved.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.save_weights(folder)
        save_file({"reference": self.reference}, folder / REFERENCE)
        # Last, so that a folder with this file is complete.
        (folder / FILE).write_text(self.info.model_dump_json(indent=1), "utf-8")


def load_classifier(folder: Path | str) -> Classifier:
    """Load a classifier that ``Classifier.save`` wrote, of whatever family.

    Raises:
        ModelError: The folder is incomplete, damaged or of another format.
    """
    folder, info = Path(folder), read_info(folder)
    if info.family == "linear":
        from tamis.models.linear import load_linear

        return load_linear(folder, info)
    if info.family == "recurrent":
        from tamis.models.recurrent import load_recurrent

        return load_recurrent(folder, info)
    from tamis.models.encoder_classifier import load_encoder_classifier

    return load_encoder_classifier(folder)


def load_reference(folder: Path) -> NDArray[np.float32]:
    """The reference vectors of a saved classifier.

    Raises:
        ModelError: They are missing or damaged.
    """
    try:
        return load_file(folder / REFERENCE)["reference"]
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelError(f"classifier {folder}: {str(error).splitlines()[0]}") from None


def digest(folder: Path | str) -> str:
    """sha256 over the names and content of a saved classifier's files, in hexadecimal."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder)} {file_sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


__all__ = [
    "Classifier",
    "ClassifierInfo",
    "Scores",
    "TrainedOn",
    "as_dict",
    "digest",
    "load_classifier",
    "load_reference",
    "read_info",
]
