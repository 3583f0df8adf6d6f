"""Whether to retrain on a window: the task's policy over what was found and what was done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from deployment.retraining.request import SCHEDULED, Facts, TriggerRequest
from tamis.decision import Decision, Reason
from tamis.monitoring.retrain_settings import RetrainPolicy

Cause = Literal["drift", "performance", "schedule", "hand"]
MONTH = timedelta(days=30)


class Past(BaseModel):
    """A retraining that was begun.

    Attributes:
        run: Its name.
        at: When it was decided on.
        fingerprint: Of its window.
        annotate: Documents that the judge was to be asked about.
        end: How it ended; None while it goes on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    at: datetime
    fingerprint: str
    annotate: int = 0
    end: str | None = None


class Verdict(BaseModel):
    """The decision, and what follows from it.

    Attributes:
        decision: With every reason.
        cause: What it is retrained on; None where nothing calls for it.
        annotate: How many documents the judge is to be asked about first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Decision
    cause: Cause | None = None
    annotate: int = 0


def decide(
    policy: RetrainPolicy,
    history: Sequence[Past],
    facts: Facts,
    request: TriggerRequest,
    now: datetime,
) -> Verdict:
    """Whether to retrain on a window.

    Args:
        policy: Of the task.
        history: Retrainings that were begun before.
        facts: What the window showed.
        request: Who asks.
        now: The time of the decision.
    """
    cause, why = _cause(policy, facts, request)
    annotate, labels = _labels(policy, history, facts, now)
    reasons = [
        Reason(check="cause", passed=cause is not None, detail=why),
        _window(history, facts, insist=request.insist),
        _pause(policy, history, now, insist=request.insist),
        _rate(policy, history, now),
        *labels,
    ]
    decision = Decision.of(reasons)
    return Verdict(decision=decision, cause=cause, annotate=annotate if decision.passed else 0)


def runs_left(policy: RetrainPolicy, history: Sequence[Past], now: datetime) -> int:
    """How many retrainings the rate still allows at a time."""
    return max(0, policy.max_runs - _recent(history, now, timedelta(days=policy.per_days)))


def _cause(
    policy: RetrainPolicy, facts: Facts, request: TriggerRequest
) -> tuple[Cause | None, str]:
    if request.insist:
        return "hand", "It was asked for by hand."
    if "drift" in policy.when and facts.rings:
        return "drift", "The alarm rings: the window differs from the reference."
    if "performance" in policy.when and facts.worse:
        return "performance", "Labels that came show that the model has got worse."
    if "schedule" in policy.when and request.trigger.kind in SCHEDULED:
        return "schedule", "A schedule asked, and the policy retrains on it."
    if not policy.when:
        return None, "The policy leaves retraining to people (retrain.when is empty)."
    told = [
        f"drift: {_drift(facts)}" if each == "drift" else
        "performance: not worse" if each == "performance" else
        f"schedule: the trigger is {request.trigger.kind}"
        for each in policy.when
    ]  # fmt: skip
    return None, f"Nothing calls for it ({'; '.join(told)})."


def _drift(facts: Facts) -> str:
    if facts.drifted:
        return "the window differs, but the alarm does not ring yet or rang a moment ago"
    return "no drift"


def _window(history: Sequence[Past], facts: Facts, *, insist: bool) -> Reason:
    same = [past for past in history if past.fingerprint == facts.fingerprint]
    if not same:
        return Reason(check="window", passed=True, detail="The window was not retrained on before.")
    last = same[-1]
    said = f"It is the window of run {last.run}, which ended: {last.end or 'not yet'}"
    if insist and last.end == "failed":
        return Reason(check="window", passed=True, detail=f"{said}; by hand it is tried again.")
    return Reason(check="window", passed=False, detail=f"{said}; a window is retrained on once.")


def _pause(
    policy: RetrainPolicy, history: Sequence[Past], now: datetime, *, insist: bool
) -> Reason:
    least = policy.min_hours_between
    if not history:
        return Reason(check="pause", passed=True, detail="There was no retraining before.")
    last = max(history, key=lambda past: past.at)
    hours = (now - last.at).total_seconds() / 3600
    said = f"Run {last.run} began {hours:.1f} h ago; at least {least:g} h are asked for"
    if insist:
        return Reason(check="pause", passed=True, detail=f"{said}, but not by hand.")
    cooling = "" if hours >= least else ": it is cooling down"
    return Reason(check="pause", passed=hours >= least, detail=f"{said}{cooling}.")


def _rate(policy: RetrainPolicy, history: Sequence[Past], now: datetime) -> Reason:
    done = _recent(history, now, timedelta(days=policy.per_days))
    said = f"{done} in the last {policy.per_days:g} days; at most {policy.max_runs} are allowed"
    return Reason(check="rate", passed=done < policy.max_runs, detail=f"Retrainings: {said}.")


def _recent(history: Sequence[Past], now: datetime, span: timedelta) -> int:
    return sum(now - past.at < span for past in history)


def _labels(
    policy: RetrainPolicy, history: Sequence[Past], facts: Facts, now: datetime
) -> tuple[int, list[Reason]]:
    """How many documents to annotate, and whether there are labels enough then."""
    first, wanted, have = policy.annotate, policy.min_labelled, facts.labelled
    if first is None:
        detail = f"{have} documents of the window have labels; at least {wanted} are needed"
        said = "" if have >= wanted else ": too few, and retrain.annotate asks for none"
        return 0, [Reason(check="labels", passed=have >= wanted, detail=f"{detail}{said}.")]
    spent = sum(past.annotate for past in history if now - past.at < MONTH)
    left = max(0, first.documents_per_month - spent)
    possible = min(first.documents, max(0, facts.documents - have))
    annotate = min(possible, left)
    enough = have + annotate >= wanted
    starved = not enough and have + possible >= wanted
    labels = Reason(
        check="labels",
        passed=enough,
        detail=f"{have} documents of the window have labels, {annotate} can be annotated first; "
        f"at least {wanted} are needed{'' if enough else ': too few'}.",
    )
    budget = Reason(
        check="budget",
        passed=not starved,
        detail=f"Annotated in 30 days: {spent} of {first.documents_per_month} documents"
        f"{': the budget is spent' if starved else ''}.",
    )
    return annotate, [labels, budget]
