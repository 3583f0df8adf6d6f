"""What a task asks of its model's behaviour: which tests, and their limits.

Shares of the scale are of its width: on a scale from 0 to 5, a change of 0.02 is 0.1 points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from tamis.config import Items, Strict, read_yaml, validate, wrong
from tamis.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
InvarianceName = Literal["whitespace", "casing", "navigation", "cookies", "link", "mention"]
DirectionName = Literal["shuffled", "outline", "first_sentence", "menu"]
NoiseKind = Literal["typos", "ocr"]


def _off(given: object) -> object:
    """YAML reads a bare ``off`` as false."""
    return "off" if given is False else given


class InvarianceLimits(Strict):
    """How little scores may change where nothing that matters was changed."""

    median: Share = 0.02
    """Most of the median change, as a share of the scale."""
    p95: Share = 0.08
    """Most of the 95th percentile of the change."""
    flipped: Share = 0.05
    """Largest share of documents on the other side of the threshold afterwards."""


class DirectionLimits(Strict):
    """How many of the documents that are kept must lose when their explanation is taken out."""

    share: Share = 0.8
    """Least share of them whose score falls."""
    fall: Share = 0.0
    """Least fall that counts, as a share of the scale; any fall by default."""


class Noise(Strict):
    """Errors in the characters, and how far the order of the scores must survive them."""

    kind: NoiseKind
    share: Annotated[float, Field(gt=0, le=0.5)]
    """Of the characters."""
    spearman: Annotated[float, Field(ge=-1, le=1)]
    """Least rank correlation with the scores of the clean texts."""


class Case(Strict):
    """A hand-written text or pair of texts, and what its scores must be."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    higher: str | None = None
    lower: str | None = None
    margin: Annotated[float, Field(ge=0)] = 0.0
    """By how many points ``higher`` must be above ``lower``; more than nothing in any case."""
    text: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Case:
        bounded = self.at_least is not None or self.at_most is not None
        pair, single = (self.higher, self.lower), self.text is not None
        if single and (pair != (None, None) or self.margin or not bounded):
            raise wrong("text", self.name, "a text with at_least or at_most, and nothing else")
        if not single and (None in pair or bounded):
            raise wrong("higher", self.name, "the texts higher and lower, or text with a bound")
        return self


class _Cases(Strict):
    cases: Annotated[Items[Case], Field(min_length=1)]


def _web_pages() -> dict[InvarianceName, InvarianceLimits]:
    names: tuple[InvarianceName, ...] = ("whitespace", "casing", "navigation", "cookies")
    return dict.fromkeys(names, InvarianceLimits())


def _explanations() -> dict[DirectionName, DirectionLimits]:
    names: tuple[DirectionName, ...] = ("shuffled", "outline", "first_sentence", "menu")
    return dict.fromkeys(names, DirectionLimits())


class BehaviourSettings(Strict):
    """Behaviour tests of a trained model.

    A key that is given replaces its default as a whole: ``direction: {}`` leaves those tests out.
    """

    gate: Annotated[Literal["off", "report", "require"], BeforeValidator(_off)] = "off"
    """Whether training runs them (``report``) and a model must pass them (``require``)."""
    sample: Annotated[int, Field(ge=20, le=5_000)] = 200
    """Most test documents they are tried on."""
    invariance: dict[InvarianceName, InvarianceLimits] = Field(default_factory=_web_pages)
    """Without ``link`` and ``mention`` by default, which are for short posts."""
    direction: dict[DirectionName, DirectionLimits] = Field(default_factory=_explanations)
    noise: Items[Noise] = (
        Noise(kind="typos", share=0.01, spearman=0.95),
        Noise(kind="typos", share=0.05, spearman=0.85),
        Noise(kind="ocr", share=0.01, spearman=0.95),
        Noise(kind="ocr", share=0.05, spearman=0.85),
    )
    cases: str | None = None
    """A YAML file of hand-written texts; a relative path is read beside the task file."""
    texts: Items[Case] = ()
    """Hand-written texts; those of the file ``cases`` are put here when the task is loaded."""
    hold: Share = 1.0
    """Least share of the hand-written texts that must hold."""

    @model_validator(mode="after")
    def _different_names(self) -> BehaviourSettings:
        names = [case.name for case in self.texts]
        if twice := [name for name in names if names.count(name) > 1]:
            raise wrong("texts", twice[0], "names that are all different")
        return self

    @property
    def asked(self) -> bool:
        """Whether training is to run them."""
        return self.gate != "off"


def with_cases(settings: BehaviourSettings, folder: Path) -> BehaviourSettings:
    """The settings with the texts of their file in them, so that they travel with the task.

    Args:
        settings: Of a task file.
        folder: That the task file is in.

    Raises:
        ConfigError: The file cannot be read or is wrong.
    """
    if settings.cases is None or settings.texts:
        return settings
    path = folder / settings.cases
    found = validate(_Cases, read_yaml(path, settings.cases), settings.cases)
    names = [case.name for case in found.cases]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(settings.cases, "cases", twice[0], "names that are all different")
    return settings.model_copy(update={"texts": found.cases})
