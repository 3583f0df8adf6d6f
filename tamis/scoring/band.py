"""The band of student scores in which the encoder decides, and what is promised about it.

Below the band the student drops a document, from its upper edge on it keeps it, in between the
encoder is asked. What is promised is promised beside the *reference*: the fp32 encoder's decisions.

``band_path`` lays out ever narrower bands, from documents that the calibration never sees.
``calibrate`` walks along them with *Learn then Test* (Angelopoulos, Bates, Candès, Jordan and Lei
2021, arXiv:2110.01052, section 2.3: fixed sequence testing): each band is a null hypothesis,
"recall or precision falls short", and the walk ends at the first that cannot be rejected. Any
false rejection begins with one of the first true null, so no correction for the number of bands
is due (Bauer 1991, Statistics in Medicine 10). The p-value of "one or the other" is the larger of
the two (the intersection-union test: Berger 1982, Technometrics 24). Both are exact: given how
many documents the reference keeps, the cascade keeps a binomial number of them, by the true
recall; given how many the cascade keeps, a binomial number are right, by the true precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from tamis.errors import DataError
from tamis.scoring.settings import Promise
from tamis.target import Floats

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]

METHOD = (
    "Learn then Test (Angelopoulos et al. 2021): fixed sequence testing over nested bands, with "
    "the larger of two exact binomial p-values, of recall and of precision."
)
ASSUMPTIONS = (
    "The calibration documents are independent random draws from the corpus to be filtered, and "
    "neither the student nor the sequence of bands has seen them; student, encoder and threshold "
    "stay as they were."
)

_LEAST_LEFT = 0.1
"""Share of a risk that the path leaves to the student, however much the encoder spends."""


class Band(BaseModel):
    """Student scores between which the encoder decides.

    An edge that is ``None`` (``null`` in JSON, which knows no infinity) is open: no score is so
    low that the student drops the document, or so high that it keeps it. ``Band()`` sends
    everything; a band whose edges are equal sends nothing. A score that is not finite is sent:
    the student has nothing to say about that document.

    Attributes:
        low: Below it the student drops.
        high: From it on the student keeps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Band:
        low, high = self.edges
        if low > high:
            raise ValueError(f"the band's low edge, {low:g}, lies above its high edge, {high:g}")
        return self

    @property
    def edges(self) -> tuple[float, float]:
        """Both edges as numbers to compare with: infinite where they are open."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low, high

    @property
    def sends_everything(self) -> bool:
        """Whether the encoder decides about every document."""
        return self.low is None and self.high is None

    def sent(self, student: ArrayLike) -> Bools:
        """Which documents the encoder decides about (n,)."""
        return ~(self.dropped(student) | self.admitted(student))

    def dropped(self, student: ArrayLike) -> Bools:
        """Which documents the student drops (n,)."""
        scores = np.asarray(student, dtype=np.float64)
        return np.isfinite(scores) & (scores < self.edges[0])

    def admitted(self, student: ArrayLike) -> Bools:
        """Which documents the student keeps (n,)."""
        scores = np.asarray(student, dtype=np.float64)
        return np.isfinite(scores) & (scores >= self.edges[1])

    def keep(self, student: ArrayLike, encoder_keep: ArrayLike) -> Bools:
        """Which documents are kept in the end (n,); of the encoder only where it is asked."""
        return self.admitted(student) | (self.sent(student) & np.asarray(encoder_keep, np.bool_))


@dataclass(frozen=True, eq=False)
class Sample:
    """Documents about which everybody was asked.

    Attributes:
        student: The student's scores (n,), on the scale of the encoder's.
        reference: Whether the fp32 encoder keeps the document (n,).
        encoder: Whether the encoder that will run keeps it (n,).

    Raises:
        DataError: The three are not of one length, or a decision is not a yes or no.
    """

    student: Floats
    reference: Bools
    encoder: Bools

    def __post_init__(self) -> None:
        student = np.asarray(self.student, dtype=np.float64)
        for column in (student, self.reference, self.encoder):
            if column.shape != (student.size,) or (column is not student and column.dtype != bool):
                raise DataError("a sample needs a score and two decisions, yes or no, a document")
        object.__setattr__(self, "student", student)

    def __len__(self) -> int:
        return len(self.student)


class Rate(BaseModel):
    """A figure between 0 and 1 with a conservative interval.

    Attributes:
        value: As observed.
        low: Lower end.
        high: Upper end.
        n: Documents behind it.
        confidence: Least coverage of the two-sided interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float
    n: int
    confidence: float

    def __str__(self) -> str:
        """Value and interval to three places."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Figures(BaseModel):
    """What a band does to some documents; shares of no documents are None.

    Attributes:
        documents: How many.
        reference_kept: Those that the reference keeps.
        kept: Those that the cascade keeps.
        recall: Share of what the reference keeps that the cascade keeps.
        precision: Share of what the cascade keeps that the reference keeps.
        f1: Of these two; it follows the share of both among either, and so does its interval.
        sent: Share that the encoder decides about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int
    reference_kept: int
    kept: int
    recall: Rate | None
    precision: Rate | None
    f1: Rate | None
    sent: Rate | None


class Calibration(Figures):
    """The band that was certified, or why none was.

    The figures are those of the certified band, or else the first, on the calibration documents.
    As it was chosen on them, others (``measure``) are the fairer judge.

    Attributes:
        band: The narrowest certified; None where the encoder has to decide about everything.
        reason: A sentence that says how it was certified, or why none was.
        promise: What was to be certified.
        steps: Bands in the path.
        tested: Bands that were tested, with the one at which the walk ended.
        p_recall: p-value of "recall falls short", for the band of the figures.
        p_precision: p-value of "precision falls short" likewise.
        method: Name of the method.
        assumptions: What the promise rests on.
    """

    band: Band | None
    reason: str
    promise: Promise
    steps: int
    tested: int
    p_recall: float
    p_precision: float
    method: str = METHOD
    assumptions: str = ASSUMPTIONS


def band_path(sample: Sample, promise: Promise, threshold: float, steps: int = 200) -> list[Band]:
    """Nested bands from "send everything" to "send nothing", each narrower than the one before.

    From band to band the low edge drops a little more of the documents that the reference keeps,
    and the high edge admits a little more of those it drops, so that both risks reach what is
    promised together; steps are finest from half of that to a little more. Every band holds the
    threshold: what the student decides about is kept exactly where its score reaches it.

    Args:
        sample: Documents that the calibration will not see, with scores of students that have not
            seen them either (out of fold).
        promise: What is to be certified.
        threshold: From it on the encoder keeps.
        steps: Most bands; fewer where some would be equal.

    Raises:
        ValueError: The threshold is not finite, or there are fewer than 10 steps.
    """
    if not math.isfinite(threshold) or steps < 10:
        raise ValueError(f"a path of bands needs a threshold and 10 steps: {threshold}, {steps}")
    sure = np.isfinite(sample.student)
    wanted, unwanted = (sample.student[sure & (sample.reference == side)] for side in (True, False))
    if not len(wanted) or not len(unwanted):
        return [Band()]
    # Risks at which the promise is spent, less what the encoder spends of them by itself: shares
    # of the wanted documents that may be missed, and unwanted ones admitted for each wanted one.
    missed, admitted = 1 - promise.recall, (1 - promise.precision) / promise.precision
    admitted *= promise.recall
    chosen = sample.reference.sum()
    lost, gained = sample.reference & ~sample.encoder, ~sample.reference & sample.encoder
    missed = max(missed - lost.sum() / chosen, _LEAST_LEFT * missed)
    admitted = max(admitted - gained.sum() / chosen, _LEAST_LEFT * admitted)
    admitted *= len(wanted) / len(unwanted)
    # Multiples of both, from nothing to where the student alone would end up.
    last = max((wanted < threshold).mean() / missed, (unwanted >= threshold).mean() / admitted)
    parts = np.linspace(0, 0.5, steps // 4, endpoint=False), np.linspace(0.5, 1.1, steps // 2)
    rest = steps - 1 - steps // 4 - steps // 2
    spent = np.concatenate([*parts, np.geomspace(1.1, max(last, 1.2), rest)[1:]])
    low = np.minimum(np.quantile(wanted, np.minimum(spent * missed, 1)), threshold)
    high = np.maximum(np.quantile(unwanted, np.maximum(1 - spent * admitted, 0)), threshold)
    edges = zip([*low.tolist(), threshold], [*high.tolist(), threshold], strict=True)
    return list(dict.fromkeys([Band(), *(Band(low=low, high=high) for low, high in edges)]))


def calibrate(path: Sequence[Band], sample: Sample, promise: Promise) -> Calibration:
    """The narrowest band of a path for which the promise can be certified.

    With the confidence asked for, over the draw of the sample, a band that is returned has the
    promised recall *and* precision in the population.

    Args:
        path: Bands in the order in which they are tested; fixed without the sample.
        sample: The calibration documents.
        promise: What is to be certified.

    Raises:
        ValueError: The path is empty.
    """
    from scipy.stats import binom

    if not path:
        raise ValueError("a path needs at least one band")
    _, kept, right = _tally(path, sample)
    # Chances of so many right ones or more, where their true share is just the promised one.
    of_chosen = binom.sf(right - 1, sample.reference.sum(), promise.recall)
    of_kept = binom.sf(right - 1, kept, promise.precision)
    rejected = np.maximum(of_chosen, of_kept) <= 1 - promise.confidence
    passed = len(path) if rejected.all() else int(rejected.argmin())
    at = max(passed - 1, 0)
    figures = measure(path[at], sample, promise.confidence)
    p_values = float(of_chosen[at]), float(of_kept[at])
    return Calibration(
        **dict(figures),
        band=path[at] if passed else None,
        reason=_reason(figures, promise, p_values, path, passed),
        promise=promise,
        steps=len(path),
        tested=min(passed + 1, len(path)),
        p_recall=p_values[0],
        p_precision=p_values[1],
    )


def measure(band: Band, sample: Sample, confidence: float = 0.95) -> Figures:
    """What a band does to documents that had no say in it.

    Args:
        band: The edges.
        sample: The documents; the intervals take them as independent draws.
        confidence: Of the intervals, which are Clopper and Pearson's.
    """
    (sent,), (kept,), (right,) = (column.tolist() for column in _tally([band], sample))
    chosen = int(sample.reference.sum())
    f1 = rate(right, chosen + kept - right, confidence)
    if f1 is not None:
        ends = ("value", "low", "high")
        f1 = f1.model_copy(update={end: 2 * (x := getattr(f1, end)) / (1 + x) for end in ends})
    return Figures(
        documents=len(sample),
        reference_kept=chosen,
        kept=kept,
        recall=rate(right, chosen, confidence),
        precision=rate(right, kept, confidence),
        f1=f1,
        sent=rate(sent, len(sample), confidence),
    )


def needed(share: float, confidence: float) -> int:
    """Fewest documents, all of them right, that certify a share."""
    return max(1, math.ceil(math.log(1 - confidence) / math.log(share)))


def exact_bounds(hits: int, n: int, tail: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds of a share; each is wrong with probability ``tail`` at most."""
    from scipy.special import betaincinv

    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high


def rate(hits: int, n: int, confidence: float) -> Rate | None:
    """A share with its exact two-sided interval; None of no documents."""
    if not n:
        return None
    low, high = exact_bounds(hits, n, (1 - confidence) / 2)
    return Rate(value=hits / n, low=low, high=high, n=n, confidence=confidence)


def _tally(bands: Sequence[Band], sample: Sample) -> tuple[Counts, Counts, Counts]:
    """Documents sent, kept, and kept rightly, for each band (k,)."""
    finite = np.isfinite(sample.student)
    order = np.argsort(sample.student[finite])
    edges = np.array([band.edges for band in bands])
    below, reached = np.searchsorted(sample.student[finite][order], edges.T)

    def up_to(flags: Bools) -> Counts:
        """Flags among the lowest 0 to n documents, on top of those that are not finite."""
        return np.cumsum(np.concatenate([[flags[~finite].sum()], flags[finite][order]]))

    encoder, both = up_to(sample.encoder), up_to(sample.encoder & sample.reference)
    wanted = up_to(sample.reference)
    sent = reached - below + (~finite).sum()
    kept = len(order) - reached + encoder[reached] - encoder[below] + encoder[0]
    right = wanted[-1] - wanted[reached] + both[reached] - both[below] + both[0]
    return sent, kept, right


def _reason(
    figures: Figures, promise: Promise, p_values: Sequence[float], path: Sequence[Band], passed: int
) -> str:
    """How a band was certified, or why none was, in a sentence."""
    error, of = 1 - promise.confidence, f"of {figures.documents:,} calibration documents"
    sides = (
        ("recall", figures.recall, promise.recall, "the reference", figures.reference_kept),
        ("precision", figures.precision, promise.precision, "the cascade", figures.kept),
    )
    for name, _, share, who, kept in sides:
        if not passed and kept < (least := needed(share, promise.confidence)):
            enough = f"at least {least:,} to certify {name} {share:g} at {promise.confidence:g}"
            return f"{of.capitalize()} {who} keeps {kept:,}; it takes {enough} confidence."
    if passed:
        begin = f"Band {passed:,} of {len(path):,} is the narrowest certified"
    elif path[0].sends_everything:
        begin = "Even with every document sent, the encoder differs too much from the reference"
    else:
        begin = "Even the first band of the path falls short"
    found = " and ".join(
        f"{name} is {figure} with {share:g} promised (p = {p:.3g})"
        for (name, figure, share, *_), p in zip(sides, p_values, strict=True)
        if passed or p > error
    )
    begin += f": {of} a share of {figures.sent} is sent"
    return f"{begin}, {found}; it takes p-values of at most {error:.3g}."
