"""Says yes or no to a model, with reasons.

Nothing passes on a point estimate alone where a comparison is asked for: the lower end of the
paired 95% interval of the *gain* decides, and a gain is positive when the model is better,
whatever the direction of the metric.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from tamis.decision import Decision, Reason
from tamis.errors import TamisError, UsageError
from tamis.evaluation.bootstrap import Interval, difference, interval, resample, sample
from tamis.evaluation.figures import Evaluation
from tamis.evaluation.metrics import HIGHER_IS_BETTER, gain, metric_names
from tamis.target import Floats, Target
from tamis.task import GatePolicy, MetricName

MIN_DOCUMENTS = 10
MIN_GROUPS = 5  # resampling fewer groups gives an interval that is far too narrow


class Period(NamedTuple):
    """The labelled test documents of one period, scored by both models.

    Attributes:
        labels: Encoded labels, (n,).
        champion: The champion's scores, (n,).
        challenger: The challenger's scores, (n,).
        groups: Documents of one group resemble each other, (n,).
    """

    labels: Floats
    champion: Floats
    challenger: Floats
    groups: list[str]


class Thresholds(NamedTuple):
    """Where each model keeps a document."""

    champion: float
    challenger: float


class PeriodFigures(BaseModel):
    """Both models in one period; the gain is the challenger's, positive when it is better."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    champion: Interval
    challenger: Interval
    gain: Interval


class PeriodComparison(BaseModel):
    """A challenger beside the champion, before and after the data drifted.

    Attributes:
        metric: The metric of record.
        old: On the old period's test documents; None where they could not be judged.
        new: On the new period's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: MetricName
    old: PeriodFigures | None
    new: PeriodFigures | None


def decide(
    policy: GatePolicy,
    metric: MetricName,
    evaluation: Evaluation,
    champion_scores: Floats | None,
    champion_name: str | None,
    champion_seen: int,
    champion_threshold: float | None = None,
) -> Decision:
    """Decide whether a model may be promoted.

    It needs enough documents, the floor on the metric of record (where one is set), a gain over
    each baseline of ``policy.beat`` whose interval lies above zero (over all labelled documents
    where the evaluation is cross-validated, else over the test documents), and against the
    champion a gain whose interval lies above minus the margin.

    Args:
        policy: What is asked for.
        metric: The metric of record.
        evaluation: Of the model, on the test documents.
        champion_scores: The champion's scores of ``evaluation.predictions``, in their order,
            (n,); None where there is no champion.
        champion_name: What to call it in the reasons.
        champion_seen: How many of these test documents the champion was trained on.
        champion_threshold: Where the champion keeps a document; by default as the model does.
            Only the metrics of the decision depend on it.
    """
    reasons = [_enough("documents", evaluation.n, evaluation.groups)]
    reasons.append(_finite(metric, evaluation))
    if reasons[-1].passed:
        if policy.floor is not None:
            reasons.append(_floor(metric, policy.floor, evaluation))
        reasons += [_beats(name, metric, evaluation) for name in policy.beat]
        reasons.append(
            _holds_against_champion(
                policy, metric, evaluation, champion_scores, champion_name, champion_seen,
                evaluation.threshold if champion_threshold is None else champion_threshold,
            )
        )  # fmt: skip
    return Decision.of(reasons)


def compare_periods(
    metric: MetricName,
    margin: float,
    old: Period,
    new: Period,
    target: Target,
    thresholds: Thresholds,
    seed: int,
    new_gain: float = 0.0,
) -> tuple[Decision, PeriodComparison]:
    """Decide whether a challenger trained on newer documents may replace the champion.

    It must not lose on the old period (lower end of the gain's interval above minus the margin)
    and must gain on the new one (gain of at least ``new_gain``, its interval above zero). Both
    are asked for, so the two tests need no correction for being two: a challenger that is no
    better on the new period passes as seldom as one interval lies above zero by chance.

    Args:
        metric: The metric of record.
        margin: How much of the metric may be lost, in its own units.
        old: Test documents of the old period.
        new: Test documents of the new period.
        target: What is predicted.
        thresholds: Where each model keeps a document.
        seed: Of the resamples.
        new_gain: How much of the metric must at least be gained on the new period.
    """
    reasons: list[Reason] = []
    figures: dict[str, PeriodFigures | None] = {}
    for name, period in (("old", old), ("new", new)):
        period = Period(*period)
        enough = _enough(f"{name}_documents", len(period.labels), len(set(period.groups)))
        reasons.append(enough)
        try:
            both = _period_figures(metric, period, target, Thresholds(*thresholds), seed)
        except TamisError as error:
            both = None
            reasons.append(Reason(check=f"{name}_period", passed=False, detail=_sentence(error)))
        figures[name] = both if enough.passed else None
        if both is not None and enough.passed:
            reasons.append(_period_reason(name, metric, margin, new_gain, both))
    return Decision.of(reasons), PeriodComparison(metric=metric, **figures)


def _period_figures(
    metric: MetricName, period: Period, target: Target, thresholds: Thresholds, seed: int
) -> PeriodFigures:
    resamples = resample(period.groups, seed)
    if metric not in metric_names(target):
        raise UsageError(f"{metric} is not given for a {target.kind} target")
    champion, challenger = (
        sample(target, period.labels, scores, threshold, resamples)[metric]
        for scores, threshold in (
            (period.champion, thresholds.champion),
            (period.challenger, thresholds.challenger),
        )
    )
    return PeriodFigures(
        champion=interval(champion),
        challenger=interval(challenger),
        gain=difference(challenger, champion),
    )


def _period_reason(
    name: str, metric: MetricName, margin: float, new_gain: float, both: PeriodFigures
) -> Reason:
    won = both.gain
    if name == "old":
        passed, asked = won.low > -margin, f"its lower end must lie above -{margin:g}"
    else:
        # Written so that a NaN fails: it is not above zero.
        passed, asked = won.value >= new_gain and won.low > 0, "its lower end must lie above 0"
        if new_gain:
            asked = f"the gain must be at least {new_gain:g} and {asked}"
    return Reason(
        check=f"{name}_period",
        passed=passed,
        detail=(
            f"On {won.n} test documents of the {name} period ({won.groups} groups) the challenger "
            f"has {metric} {both.challenger} against the champion's {both.champion}, a gain of "
            f"{won}; {asked}."
        ),
    )


def _enough(check: str, n: int, groups: int) -> Reason:
    passed = n >= MIN_DOCUMENTS and groups >= MIN_GROUPS
    return Reason(
        check=check,
        passed=passed,
        detail=(
            f"There are {n} test documents in {groups} groups; at least {MIN_DOCUMENTS} in "
            f"{MIN_GROUPS} are needed to judge a model."
        ),
    )


def _finite(metric: MetricName, evaluation: Evaluation) -> Reason:
    found = evaluation.model.figures.get(metric)
    if found is None:
        return Reason(
            check="figures", passed=False, detail=f"The evaluation has no figure for {metric}."
        )
    passed = bool(np.isfinite([found.value, found.low, found.high]).all())
    state = "finite" if passed else "not a finite number, so nothing can be concluded"
    return Reason(
        check="figures",
        passed=passed,
        detail=f"The model's {metric} is {found} on {evaluation.n} test documents: {state}.",
    )


def _floor(metric: MetricName, floor: float, evaluation: Evaluation) -> Reason:
    found = evaluation.model.figures[metric]
    passed = gain(metric, found.value, floor) >= 0
    asked = "at least" if HIGHER_IS_BETTER[metric] else "at most"
    return Reason(
        check="floor",
        passed=passed,
        detail=(
            f"{metric} is {found} on {found.n} test documents ({found.groups} groups); "
            f"{asked} {floor:g} is asked for."
        ),
    )


def _beats(name: str, metric: MetricName, evaluation: Evaluation) -> Reason:
    """Judged on the cross-validated scores where there are some: five times the documents."""
    validated = evaluation.cross_validation
    judged = evaluation if validated is None else validated
    kind = "test" if validated is None else "cross-validated"
    won = judged.gains.get(name, {}).get(metric)
    if won is None:
        detail = f"The evaluation has no {metric} of the {name} baseline to compare with."
        return Reason(check=f"beats_{name}", passed=False, detail=detail)
    # Written so that a NaN fails: it is not above zero.
    return Reason(
        check=f"beats_{name}",
        passed=won.low > 0,
        detail=(
            f"The gain in {metric} over the {name} baseline is {won} on {won.n} {kind} documents; "
            f"its lower end must lie above 0."
        ),
    )


def _holds_against_champion(
    policy: GatePolicy,
    metric: MetricName,
    evaluation: Evaluation,
    champion_scores: Floats | None,
    champion_name: str | None,
    champion_seen: int,
    champion_threshold: float,
) -> Reason:
    if champion_scores is None:
        detail = "There is no champion yet, so there is nothing to be worse than."
        return Reason(check="champion", passed=True, detail=detail)
    name = champion_name or "the champion"
    target, labels = evaluation.target, evaluation.labels()
    try:
        resamples = resample([p.group for p in evaluation.predictions], evaluation.seed)
        mine = sample(target, labels, evaluation.scores(), evaluation.threshold, resamples)
        theirs = sample(target, labels, champion_scores, champion_threshold, resamples)
    except TamisError as error:
        detail = f"The model cannot be compared with {name}: {_sentence(error)}"
        return Reason(check="champion", passed=False, detail=detail)
    won = difference(mine[metric], theirs[metric])
    seen = (
        f" {name} was trained on {champion_seen} of them, which flatters it."
        if champion_seen
        else ""
    )
    return Reason(
        check="champion",
        passed=won.low > -policy.champion_margin,
        detail=(
            f"The gain in {metric} over {name} ({theirs[metric].value:.3f}) is {won} on {won.n} "
            f"test documents; its lower end must lie above -{policy.champion_margin:g}.{seen}"
        ),
    )


def _sentence(error: TamisError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
