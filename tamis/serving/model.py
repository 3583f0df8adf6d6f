"""The folder that a service loads: a classifier, and what there is to know about it.

serving.json          ServedModel
classifier/           what ``load_backend`` reads
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from tamis.config import Items, Strict, wrong
from tamis.errors import ModelError
from tamis.models.classifier import Classifier
from tamis.scoring.settings import BackendName
from tamis.serving.settings import ServeSettings
from tamis.target import Floats

FILE = "serving.json"
CLASSIFIER = "classifier"
PROBES = (
    "Photosynthesis turns light into chemical energy: chlorophyll absorbs photons, water is "
    "split, and the electrons drive the synthesis of sugars.",
    "CLICK HERE!!! Best prices, free shipping, buy now, subscribe and win $$$",
    "",
)
"""What the self-test scores: prose, an advertisement, and nothing at all."""
_SAME = 0.02
"""Largest difference of a probe's score, as a share of the scale: another machine's arithmetic."""
_BUCKETS = 20
_DECIMALS = 6
Count = Annotated[int, Field(ge=0)]


class Probe(Strict):
    """A text whose score is known from where the model was prepared."""

    text: str
    score: float


class ReferenceScores(Strict):
    """How the scores of the model's reference documents lie: what live scores are held against.

    Attributes:
        documents: How many.
        kept: Those of them at or above the threshold.
        at_most: Those with at most each of ``score_edges``.
    """

    documents: Annotated[int, Field(ge=1)]
    kept: Count
    at_most: Items[Count]

    @model_validator(mode="after")
    def _counts_rise(self) -> ReferenceScores:
        steps = (0, *self.at_most, self.documents)
        if len(self.at_most) != _BUCKETS or any(a > b for a, b in pairwise(steps)):
            allowed = f"{_BUCKETS} numbers that never fall, the last at most {self.documents}"
            raise wrong("at_most", self.at_most, allowed)
        if self.kept > self.documents:
            raise wrong("kept", self.kept, f"at most {self.documents}")
        return self


class ServedModel(Strict):
    """What a service serves.

    Attributes:
        task: The task, which is the registered model's name.
        version: Its version in the registry.
        digest: sha256 over the registered classifier's files.
        backend: That ``classifier/`` was prepared for.
        margin: Scores so near to the threshold are checked in fp32; 0 checks nothing.
        threshold: Kept is what scores at least this.
        scale: Lowest and highest score.
        created: When the folder was made, ISO 8601.
        code_version: Of the code that made it.
        probes: For the self-test.
        reference: Scores of documents like those that it learned from; None where not known.
        settings: How it is served.
    """

    format: int = Field(default=1, ge=1, le=1)
    task: str
    version: str
    digest: str
    backend: BackendName
    margin: float = 0.0
    threshold: float
    scale: Items[float]
    created: str
    code_version: str = ""
    probes: Items[Probe] = ()
    reference: ReferenceScores | None = None
    settings: ServeSettings = ServeSettings()

    @property
    def name(self) -> str:
        """Task and version, as every row and log line has it."""
        return f"{self.task}/{self.version}"


def score_edges(scale: tuple[float, ...]) -> tuple[float, ...]:
    """Upper edges of the buckets that scores are counted in: equal steps over the scale."""
    low, high = scale
    steps = range(1, _BUCKETS + 1)
    return tuple(round(low + (high - low) * step / _BUCKETS, _DECIMALS) for step in steps)


def reference_scores(
    scores: Floats, threshold: float, scale: tuple[float, ...]
) -> ReferenceScores | None:
    """Scores (n,) as a service compares its own with them; None where none is a number."""
    known = np.sort(np.round(scores[np.isfinite(scores)], _DECIMALS))
    if not len(known):
        return None
    at_most = np.searchsorted(known, score_edges(scale), side="right")
    return ReferenceScores(
        documents=len(known),
        kept=int((known >= threshold).sum()),
        at_most=tuple(int(count) for count in at_most),
    )


def read_served(folder: Path | str) -> ServedModel:
    """What a folder serves.

    Raises:
        ModelError: It is no such folder, or its description is damaged.
    """
    path = Path(folder) / FILE
    try:
        return ServedModel.model_validate_json(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; `run.py serve` makes such a folder") from None
    except ValueError:
        raise ModelError(f"{path}: damaged, or of another format") from None


def load_served(folder: Path | str) -> Classifier:
    """The classifier of a folder, scoring exactly as the filter does.

    Raises:
        ModelError: The folder is damaged, or its backend does not run here.
    """
    from tamis.scoring.load import LoadScorer

    served = read_served(folder)
    loaded = LoadScorer(served.threshold, served.margin)(str(Path(folder) / CLASSIFIER))
    if not isinstance(loaded, Classifier):
        raise ModelError(f"{folder}: it holds no classifier")
    return loaded


def self_test(classifier: Classifier, served: ServedModel) -> str | None:
    """What is wrong with a loaded classifier; None where it scores the probes as it did before."""
    low, high = served.scale
    for probe in served.probes:
        score = float(classifier.score([probe.text]).values[0])
        if not math.isfinite(score):
            return f"a probe scores {score}"
        if abs(score - probe.score) > _SAME * (high - low):
            return f"a probe scores {score:.4f}, and scored {probe.score:.4f} when it was prepared"
    return None
