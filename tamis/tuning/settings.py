"""The space that ``train --tune`` searches: keys of the task file, and what they may be."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tamis.config import Items, Strict, wrong
from tamis.models.settings import ModelSettings


def _of_the_model(given: str) -> str:
    if re.fullmatch(r"(model|text)(\.[a-z0-9_]+)+", given) is None:
        raise ValueError("a key of the model or the text, such as model.words")
    return given


SettingPath = Annotated[str, AfterValidator(_of_the_model)]
"""A key as ``--set`` takes it; only those of the model and of what it reads."""


class Range(Strict):
    """Numbers between two."""

    kind: Literal["range"]
    low: float
    high: float
    log: bool = False
    """Whether each factor is as likely as the next, rather than each step."""
    whole: bool = False

    @model_validator(mode="after")
    def _rising(self) -> Range:
        if not self.low < self.high:
            raise wrong("low", self.low, f"a number below high, {self.high:g}")
        if self.log and self.low <= 0:
            raise wrong("low", self.low, "a number above 0, since log is true")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            given = f"{self.low:g} and {self.high:g}"
            raise wrong("low and high", given, "whole numbers, since whole is true")
        return self


class Choices(Strict):
    """One of several values, of whatever kind the key takes."""

    kind: Literal["choices"]
    values: Annotated[Items[Any], Field(min_length=2)]


Dimension = Annotated[Range | Choices, Field(discriminator="kind")]


class TuneSettings(Strict):
    """What is searched, and how."""

    space: dict[SettingPath, Dimension] = Field(default={})
    """Empty searches what is usual for the model's family."""
    folds: Annotated[int, Field(ge=2, le=10)] = 3
    warm_up: Annotated[int, Field(ge=1)] = 5
    """Trials before one that is worse than the median of the others may be given up."""


def _range(low: float, high: float, log: bool = False, whole: bool = False) -> Range:
    return Range(kind="range", low=low, high=high, log=log, whole=whole)


def _choices(*values: Any) -> Choices:
    return Choices(kind="choices", values=values)


def usual_space(model: ModelSettings) -> dict[str, Range | Choices]:
    """What is searched where the task names nothing."""
    if model.family == "linear":
        return {
            "model.words": _choices([1, 1], [1, 2], [1, 3]),
            "model.characters": _choices(None, [2, 4], [2, 5], [3, 6]),
            "model.min_documents": _range(1, 5, whole=True),
        }
    if model.family == "recurrent":
        return {
            "model.hidden": _choices(32, 64, 128),
            "model.dropout": _range(0.1, 0.6),
            "model.learning_rate": _range(3e-4, 1e-2, log=True),
        }
    if model.train == "frozen":
        return {
            "model.frozen.poolings": _choices(["mean"], ["cls"], ["max"]),
            "model.frozen.heads": _choices(["ridge"], ["kernel"], ["mlp"]),
            "model.frozen.tolerance": _range(0.0, 0.02),
        }
    key = f"model.{model.train}"
    space: dict[str, Range | Choices] = {
        f"{key}.learning_rate": _range(2e-5, 2e-3 if model.train == "lora" else 4e-4, log=True),
        f"{key}.batch_size": _choices(8, 16, 32),
        f"{key}.warmup_share": _range(0.0, 0.3),
    }
    more: dict[str, dict[str, Range | Choices]] = {
        "lora": {f"{key}.rank": _choices(4, 8, 16, 32)},
        "distilled": {f"{key}.weight": _range(0.3, 1.0)},
    }
    return space | more.get(model.train, {})
