"""How a worker, or a service, comes by what scores; it brings in nothing of corpora."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class ScoresLike(Protocol):
    """What a scorer says of n texts: scores and the tokens of each, both of shape (n,)."""

    @property
    def values(self) -> NDArray[np.float64]:
        """Scores."""

    @property
    def tokens(self) -> NDArray[Any]:
        """Tokens of the whole text."""


class Scorer(Protocol):
    """Anything that scores texts, such as a ``Classifier``."""

    def score(self, texts: Sequence[str]) -> ScoresLike:
        """Score texts, in order."""


@dataclass(frozen=True)
class LoadScorer:
    """Loads a trained classifier from its directory, or from one prepared for a backend.

    Attributes:
        threshold: Near which a quantised backend has its scores checked.
        margin: How near that is; 0 checks nothing.
    """

    threshold: float = 0.0
    margin: float = 0.0

    def __call__(self, model_dir: str) -> Scorer:
        """The classifier.

        Raises:
            ModelError: The directory is damaged or not ours.
        """
        from tamis.models.encoder_classifier import EncoderClassifier
        from tamis.scoring.backends.folder import load_backend

        classifier = load_backend(model_dir)
        encoder = classifier if isinstance(classifier, EncoderClassifier) else None
        if self.margin and encoder is not None and encoder.exact is not None:
            encoder.check_near(self.threshold, self.margin)
        return classifier
