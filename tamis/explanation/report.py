"""What a model looks at over many documents, as a report with a page of its own."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tamis.evaluation.bootstrap import Interval
from tamis.explanation.deletion import DeletionCheck
from tamis.explanation.surrogate import Surrogate
from tamis.explanation.words import Method, Unit


class WordEffect(BaseModel):
    """A word over the documents that hold it.

    Attributes:
        word: In lower case.
        weight: What it adds to a document's score, all its places together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    word: str
    weight: Interval


class SourceEffect(BaseModel):
    """The documents of a source.

    Attributes:
        source: Its name.
        score: Their calibrated scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str
    score: Interval


class FeatureWeight(BaseModel):
    """A feature of a linear model.

    Attributes:
        feature: An n-gram; what is in quotation marks has its blanks.
        weight: What a unit of it adds to the raw score.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    feature: str
    weight: float


class ModelExplanation(BaseModel):
    """What moves a model's scores.

    Attributes:
        task: The task.
        family: Of the model.
        method: How single texts were explained.
        unit: Of the weights of words.
        documents: That were explained.
        scored: That were scored, for sources and surrogate.
        drawn_from: Which documents those are, in words.
        raising: Words that raise the score, the surest first.
        lowering: Words that lower it.
        sources: By mean score, the highest first.
        largest: Features of largest weight, of a linear model.
        smallest: Features of smallest weight.
        surrogate: A model of the scores on plain features; None where there is too little.
        deletion: Whether the named words are those that matter; None where texts are too short.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str
    family: str
    method: Method
    unit: Unit
    documents: int
    scored: int
    drawn_from: str
    raising: tuple[WordEffect, ...]
    lowering: tuple[WordEffect, ...]
    sources: tuple[SourceEffect, ...]
    largest: tuple[FeatureWeight, ...]
    smallest: tuple[FeatureWeight, ...]
    surrogate: Surrogate | None
    deletion: DeletionCheck | None

    def to_html(self) -> str:
        """One self-contained page."""
        from tamis.explanation.page import overview_page

        return overview_page(self)
