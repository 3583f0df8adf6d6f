"""The task's ``retrain`` section: when to retrain, on what, and what a challenger must show."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tamis.config import Items, Strict, wrong
from tamis.corpus.source_settings import Source

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0.001, le=1_000)]
Occasion = Literal["drift", "performance", "schedule"]


class Replay(Strict):
    """How much old and new documents weigh in training; by default each document the same."""

    old: Weight = 1.0
    """Of a document that the task's sources hold."""
    new: Weight = 1.0
    """Of a document that came in with a window, this one or an earlier one."""
    balance: Literal["none", "periods"] = "none"
    """``periods``: all new documents together weigh as much as all old ones, before ``old`` and
    ``new`` count, so that a small window is not drowned."""
    most: Annotated[float, Field(ge=1, le=1_000)] = 10.0
    """How many times as much as the other period's a document may weigh by balancing alone."""


class AnnotateFirst(Strict):
    """Labels that are asked of the judge before a retraining, and which documents get them."""

    documents: Annotated[int, Field(ge=10, le=100_000)] = 200
    """For one retraining."""
    uncertain: Share = 0.4
    """Share of them that the model is least sure of."""
    drifted: Share = 0.4
    """Share of them that resemble the reference least."""
    random: Share = 0.2
    """Share of them drawn from the whole window."""
    documents_per_month: Annotated[int, Field(ge=10)] = 1_000
    """Most in any 30 days, over all retrainings."""

    @model_validator(mode="after")
    def _shares_are_all(self) -> AnnotateFirst:
        if abs(self.uncertain + self.drifted + self.random - 1) > 1e-6:
            shares = f"{self.uncertain:g} + {self.drifted:g} + {self.random:g}"
            raise wrong("uncertain + drifted + random", shares, "shares that make 1")
        if self.documents > self.documents_per_month:
            allowed = f"at most documents_per_month, which is {self.documents_per_month}"
            raise wrong("documents", self.documents, allowed)
        return self


class RetrainPolicy(Strict):
    """How a window of new documents is taken in.

    By hand, ``retrain`` may be run at any time; ``when`` and the limits on the number of runs are
    for those that the watcher starts.
    """

    window: Source | None = None
    """Window used when the command names none."""
    when: Items[Occasion] = ("drift", "performance")
    """What the watcher retrains on; an empty list leaves it to people."""
    min_labelled: Annotated[int, Field(ge=10)] = 30
    annotate: AnnotateFirst | None = None
    """Whether the judge labels documents of the window first."""
    min_hours_between: Annotated[float, Field(ge=0)] = 168.0
    """Between the starts of two retrainings."""
    max_runs: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Most retrainings in ``per_days`` days."""
    per_days: Annotated[float, Field(gt=0, le=3_660)] = 30.0
    replay: Replay = Replay()
    new_test: Fraction = 0.4
    """Share of new documents that only test. They are few, and must show a gain by themselves."""
    new_gain: Annotated[float, Field(ge=0)] = 0.0
    """How much of the metric must at least be gained on the new period's test documents; the
    interval of the gain must lie above zero besides."""
    old_margin: Annotated[float, Field(ge=0)] = 0.05
    """How much of the metric may be lost on the old period's test documents."""
    release: Literal["none", "shadow", "canary", "blue-green"] = "none"
    """How a challenger that passed is brought into service; ``none`` makes it champion at once."""

    @model_validator(mode="after")
    def _no_occasion_twice(self) -> RetrainPolicy:
        if len(set(self.when)) < len(self.when):
            raise wrong("when", ", ".join(self.when), "each occasion once")
        return self
