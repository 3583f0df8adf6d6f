"""What is predicted: a scale, a yes or no, or one of several classes.

Whatever the target, a document ends up with one *score* on ``target.scale``, and is kept when
that score reaches the threshold.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tamis.config import Items, Strict, wrong

Floats = NDArray[np.float64]


class OrdinalTarget(Strict):
    """A score on a scale, such as educational value 0-5."""

    kind: Literal["ordinal"]
    minimum: float = 0.0
    maximum: float = 5.0
    keep_at_least: float

    @model_validator(mode="after")
    def _on_scale(self) -> OrdinalTarget:
        if not self.minimum < self.maximum:
            raise wrong("minimum", self.minimum, f"a number below the maximum, {self.maximum:g}")
        if not self.minimum < self.keep_at_least <= self.maximum:
            allowed = f"a value above {self.minimum:g} and at most {self.maximum:g}"
            raise wrong("keep_at_least", self.keep_at_least, allowed)
        return self

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest score."""
        return self.minimum, self.maximum

    @property
    def n_outputs(self) -> int:
        """Outputs of the model's head."""
        return 1

    def encode(self, label: Any) -> float:
        """A label as a number.

        Raises:
            ValueError: Not a number, or off the scale; the text says which.
        """
        number = float("nan") if isinstance(label, bool | np.bool_) else _number(label)
        if math.isnan(number):
            raise ValueError(f"label {label!r} is not a number")
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"label {number:g} is off the scale {self.minimum:g}-{self.maximum:g}")
        return number

    def kept(self, labels: Floats) -> NDArray[np.bool_]:
        """Which encoded labels belong to the kept class."""
        return np.asarray(labels >= self.keep_at_least)

    def score(self, outputs: Floats) -> Floats:
        """Scores (n,) from the head's outputs (n, 1)."""
        return np.clip(outputs[:, 0], self.minimum, self.maximum)


class ClassesTarget(Strict):
    """One of several classes; some of them are kept. The score is the probability of those."""

    kind: Literal["classes"]
    classes: Annotated[Items[str], Field(min_length=2)]
    keep: Annotated[Items[str], Field(min_length=1)]

    @model_validator(mode="after")
    def _proper_subset(self) -> ClassesTarget:
        if len(set(self.classes)) != len(self.classes):
            raise wrong("classes", list(self.classes), "names that differ from one another")
        if not set(self.keep) < set(self.classes):
            raise wrong("keep", list(self.keep), f"some, not all, of {', '.join(self.classes)}")
        return self

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest score."""
        return 0.0, 1.0

    @property
    def n_outputs(self) -> int:
        """Outputs of the model's head."""
        return len(self.classes)

    def encode(self, label: Any) -> float:
        """The position of a label among the classes.

        Raises:
            ValueError: Not one of the classes.
        """
        whole = isinstance(label, float | np.floating) and float(label).is_integer()
        text = str(int(label)) if whole else str(label)
        if text not in self.classes:
            raise ValueError(f"label {text!r} is not one of {', '.join(self.classes)}")
        return float(self.classes.index(text))

    def kept(self, labels: Floats) -> NDArray[np.bool_]:
        """Which encoded labels belong to the kept classes."""
        return np.isin(labels, [self.classes.index(name) for name in self.keep])

    def score(self, outputs: Floats) -> Floats:
        """Probability of the kept classes (n,) from the head's logits (n, classes)."""
        exponent = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        probability = exponent / exponent.sum(axis=1, keepdims=True)
        kept = [self.classes.index(name) for name in self.keep]
        return np.asarray(probability[:, kept].sum(axis=1))


class BinaryTarget(Strict):
    """Yes or no. The score is the probability of yes."""

    kind: Literal["binary"]
    negative: str
    positive: str

    @model_validator(mode="after")
    def _two_labels(self) -> BinaryTarget:
        if self.negative == self.positive:
            raise wrong("positive", self.positive, "a label other than the negative one")
        return self

    @property
    def _classes(self) -> ClassesTarget:
        labels = (self.negative, self.positive)
        return ClassesTarget(kind="classes", classes=labels, keep=(self.positive,))

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest score."""
        return 0.0, 1.0

    @property
    def n_outputs(self) -> int:
        """Outputs of the model's head."""
        return 2

    def encode(self, label: Any) -> float:
        """0 for the negative label, 1 for the positive one.

        Raises:
            ValueError: Neither of the two.
        """
        return self._classes.encode(label)

    def kept(self, labels: Floats) -> NDArray[np.bool_]:
        """Which encoded labels are positive."""
        return np.asarray(labels == 1)

    def score(self, outputs: Floats) -> Floats:
        """Probability of the positive label (n,) from the head's logits (n, 2)."""
        return self._classes.score(outputs)


Target = OrdinalTarget | BinaryTarget | ClassesTarget


def _number(label: Any) -> float:
    try:
        return float(label)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
