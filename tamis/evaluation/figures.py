"""The evaluation of a model on documents it never saw, as one typed, readable object.

``tamis.evaluation.report`` fills it in. It holds what is needed to judge the model today
(figures with intervals, baselines, paired gains, slices, the ceiling) and to compare a later
model with it on the same documents (the predictions). It survives a round trip through JSON
unchanged.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tamis.evaluation.bootstrap import Interval
from tamis.evaluation.slices import SliceKind
from tamis.target import BinaryTarget, ClassesTarget, Floats, OrdinalTarget
from tamis.task import MetricName

Figures = dict[MetricName, Interval]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ScorerFigures(_Frozen):
    """One scorer's figures; the threshold is None where every fold had its own."""

    name: str
    threshold: float | None
    figures: Figures


class SliceFigures(_Frozen):
    """Figures within one slice.

    Attributes:
        kind: What the slice is cut by.
        name: What its documents share.
        n: Documents.
        groups: Groups among them.
        figures: The model's metric of record and F1.
        baselines: Each baseline's metric of record.
        gains: Gain of the model over each baseline in the metric of record (positive when the
            model is better), paired; empty with fewer than 30 documents.
    """

    kind: SliceKind
    name: str
    n: int
    groups: int
    figures: Figures
    baselines: dict[str, Interval]
    gains: dict[str, Interval]


class Confusion(_Frozen):
    """Counts by what is true (rows) and what the model says (columns)."""

    levels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Agreement(_Frozen):
    """How far two readings of the same documents agree: the ceiling for a model.

    Attributes:
        n: Documents read twice.
        kappa: Cohen's kappa, quadratically weighted unless the classes have no order; None
            where both readings give every document one and the same label.
        spearman: Rank correlation, for ordinal targets; None where undefined.
        exact: Share of documents with the same label.
        f1: F1 of the kept class, the first reading taken for true.
    """

    n: int
    kappa: float | None
    spearman: float | None
    exact: float
    f1: float


class ReliabilityBin(_Frozen):
    """Documents of neighbouring scores.

    Attributes:
        score: Their mean score.
        label: Their mean label, or the share of them to keep where labels are no numbers.
    """

    score: float
    label: Interval


class Reliability(_Frozen):
    """Whether scores mean what labels mean.

    Attributes:
        n: Documents.
        bins: About equally many documents each, by rising score.
        gap: Mean distance of mean label and mean score over the bins, weighted by documents.
        raw_gap: The same before calibration; None where nothing was calibrated, or not known.
        chance: The gap to be expected of so many documents if every score were right.
    """

    n: int
    bins: tuple[ReliabilityBin, ...]
    gap: float
    raw_gap: float | None
    chance: float

    def sentence(self) -> str:
        """The gaps in words, and what they are to be measured by."""
        before = "" if self.raw_gap is None else f", {self.raw_gap:.3f} before calibration"
        return (
            f"Mean label and mean score are {self.gap:.3f} apart on average{before}; on {self.n} "
            f"documents about {self.chance:.3f} is to be expected of scores that are right."
        )


class Prediction(_Frozen):
    """One test document: what it was labelled and how it was scored."""

    id: str
    label: float
    score: float
    source: str
    group: str
    characters: int


class Comparison(_Frozen):
    """A model beside the baselines on the same documents.

    Attributes:
        metric: The metric of record.
        n: Documents.
        groups: Groups that were resampled for the intervals.
        model: The model's figures.
        baselines: The baselines' figures.
        gains: By baseline and metric, the gain of the model over the baseline with its paired
            interval; positive when the model is better, also where lower is better.
        slices: Figures by family of sources, source and length.
        reliability: Mean label beside mean score; None in reports of before it was measured.
    """

    metric: MetricName
    n: int
    groups: int
    model: ScorerFigures
    baselines: tuple[ScorerFigures, ...]
    gains: dict[str, Figures]
    slices: tuple[SliceFigures, ...]
    reliability: Reliability | None = None


class CrossValidation(Comparison):
    """The same over all labelled documents, each scored by a model that did not see its fold."""

    folds: int


class Evaluation(Comparison):
    """A model on the test documents; what it holds beyond a ``Comparison``.

    Attributes:
        task: Name of the task.
        target: What is predicted.
        seed: Of the resamples.
        threshold: A document is kept when its score reaches it.
        ceiling: Agreement of two readings of the labels, where there are two.
        confusion: Label against score, both to the nearest point of the scale; ordinal only.
        decision: Drop and keep, by label and by score.
        predictions: Every test document, in the order given.
        cross_validation: The estimate over all labelled documents, if one was made.
    """

    task: str
    target: Annotated[OrdinalTarget | BinaryTarget | ClassesTarget, Field(discriminator="kind")]
    seed: int
    threshold: float
    ceiling: Agreement | None
    confusion: Confusion | None
    decision: Confusion
    predictions: tuple[Prediction, ...]
    cross_validation: CrossValidation | None = None

    @property
    def figure(self) -> Interval:
        """The model's metric of record."""
        return self.model.figures[self.metric]

    def labels(self) -> Floats:
        """Encoded labels of the test documents, (n,)."""
        return np.array([p.label for p in self.predictions], dtype=np.float64)

    def scores(self) -> Floats:
        """The model's scores of the test documents, (n,)."""
        return np.array([p.score for p in self.predictions], dtype=np.float64)

    def headline(self) -> str:
        """One sentence: the metric of record, its interval and the documents behind it."""
        text = f"{self.metric} {self.figure} on {self.n} test documents in {self.groups} groups"
        if not self.gains:
            return f"{text}."
        hardest = min(self.gains, key=lambda name: self.gains[name][self.metric].value)
        won = self.gains[hardest][self.metric]
        return f"{text}; gain over the strongest baseline ({hardest}) {won}."

    def to_html(self) -> str:
        """The whole evaluation as one self-contained page."""
        from tamis.evaluation.report_html import render  # matplotlib loads only when it draws

        return render(self)
