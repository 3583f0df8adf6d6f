"""The comparison of a challenger with the champion.

Each check has three outcomes. *Failed*: the evidence shows that a limit is broken, by a test
whose false alarms over all looks of a release stay below ``alpha``; the challenger is rolled
back at once. *Passed*: the figure is within its limit. *Open*: neither, so more is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deployment.releasing.plan import Phase
from deployment.releasing.statistics import (
    Pairs,
    Rate,
    chance,
    difference,
    distance,
    more_often,
    quantile,
    spent,
)
from deployment.releasing.target import Observation, Seen
from tamis.decision import Decision, Reason
from tamis.serving.release_settings import ReleaseLimits

State = Literal["passed", "failed", "open"]
Verdict = Literal["go on", "wait", "roll back"]
CHECKS = 7
"""Among which the probability of a false alarm is shared out."""
_P95 = 0.95


@dataclass(frozen=True)
class Finding:
    """One check at one look."""

    check: str
    state: State
    detail: str


@dataclass(frozen=True)
class Evidence:
    """What a phase has shown so far.

    Attributes:
        champion: What it was given and answered.
        challenger: Likewise.
        pairs: Documents that both scored; only of a shadow.
        seconds: Since the phase began.
        sees: What was measured at all.
    """

    champion: Observation
    challenger: Observation
    pairs: Pairs | None
    seconds: float
    sees: frozenset[Seen]


@dataclass(frozen=True)
class Judgement:
    """A verdict with every check that led to it."""

    verdict: Verdict
    findings: tuple[Finding, ...]

    @property
    def decision(self) -> Decision:
        """The findings as reasons; one that stayed open has not passed."""
        return Decision.of(
            [
                Reason(
                    check=each.check,
                    passed=each.state == "passed",
                    detail=f"undecided: {each.detail}" if each.state == "open" else each.detail,
                )
                for each in self.findings
            ]
        )


def judge(
    phase: Phase, limits: ReleaseLimits, evidence: Evidence, alpha: float, look: int
) -> Judgement:
    """Look at what a phase has shown.

    Args:
        phase: It says how much traffic and time is enough.
        limits: What is let pass.
        evidence: Counters since the phase began.
        alpha: Probability of a false alarm in this phase, over all looks and checks.
        look: Number of this look, from 1; one with the same number may be taken once.

    Returns:
        ``roll back`` where a check failed or the time is over before all have passed; ``go on``
        where all have, and time and traffic are enough; else ``wait``.
    """
    part = spent(alpha, look) / CHECKS
    findings = [_traffic(phase, evidence)]
    if phase.judged:
        checks: list[Callable[[ReleaseLimits, Evidence, float], Finding | None]] = [
            _errors, _refused, _latency, _scores, _kept, _agreement, _differences,
        ]  # fmt: skip
        found = [check(limits, evidence, part) for check in checks]
        findings += [each for each in found if each is not None]
    over = evidence.seconds >= phase.max_seconds
    if any(each.state == "failed" for each in findings):
        return Judgement("roll back", tuple(findings))
    if all(each.state == "passed" for each in findings) and evidence.seconds >= phase.min_seconds:
        return Judgement("go on", tuple(findings))
    return Judgement("roll back" if over else "wait", tuple(findings))


def _traffic(phase: Phase, evidence: Evidence) -> Finding:
    had = (evidence.challenger if phase.judged else evidence.champion).requests
    who = "challenger" if phase.judged else "champion"
    detail = (
        f"the {who} had {had:,} requests in {evidence.seconds:.0f} s, "
        f"{phase.min_requests:,} are needed within {phase.max_seconds:.0f} s"
    )
    enough = had >= phase.min_requests
    if not enough and evidence.seconds >= phase.max_seconds:
        return Finding("traffic", "open", f"not enough traffic: {detail}")
    return Finding("traffic", "passed" if enough else "open", detail)


def _errors(limits: ReleaseLimits, evidence: Evidence, alpha: float) -> Finding | None:
    one, two = evidence.challenger, evidence.champion
    rates = Rate(one.errors, one.requests), Rate(two.errors, two.requests)
    return _more("errors", "requests failed", *rates, limits.errors, alpha, evidence)


def _refused(limits: ReleaseLimits, evidence: Evidence, alpha: float) -> Finding | None:
    one, two = evidence.challenger, evidence.champion
    rates = Rate(one.refused, one.requests), Rate(two.refused, two.requests)
    return _more("refused", "requests were refused", *rates, limits.refused, alpha, evidence)


def _more(
    check: str, what: str, one: Rate, two: Rate, limit: float, alpha: float, evidence: Evidence
) -> Finding | None:
    if "requests" not in evidence.sees:
        return None
    gap, p = one.value - two.value, more_often(one, two)
    # Both: a difference beyond the limit, and one that chance does not make.
    state: State = "passed" if gap <= limit else "failed" if p <= alpha else "open"
    if not one.of or not two.of:
        state = "open"
    low, high = one.interval()
    return Finding(
        check,
        state,
        f"{one} {what}, 95% interval {low:.2%} to {high:.2%}; of the champion's {two}; "
        f"limit +{limit:.2%}, p = {p:.2g} where {alpha:.2g} rolls back",
    )


def _latency(limits: ReleaseLimits, evidence: Evidence, alpha: float) -> Finding | None:
    if "requests" not in evidence.sees:
        return None
    one, two = evidence.challenger.latency, evidence.champion.latency
    value, low, _ = quantile(one, _P95, alpha)
    value2, _, high2 = quantile(two, _P95, alpha)
    slack = limits.latency_slack_ms / 1_000
    allowed = max(limits.latency_ratio * value2, value2 + slack)
    surely = max(limits.latency_ratio * high2, high2 + slack)
    state: State = "passed" if value <= allowed else "failed" if low > surely else "open"
    if not one.total or not two.total:
        state = "open"
    ratio = f"{value / value2:.2f} times" if value2 else "not to be compared with"
    return Finding(
        "latency",
        state,
        f"p95 {value * 1_000:.1f} ms of {one.total:,} requests, {ratio} the champion's "
        f"{value2 * 1_000:.1f} ms of {two.total:,}; allowed {allowed * 1_000:.1f} ms",
    )


def _scores(limits: ReleaseLimits, evidence: Evidence, alpha: float) -> Finding | None:
    if "scores" not in evidence.sees:
        return None
    one, two = evidence.challenger, evidence.champion
    gap = distance(one.scores, two.scores)
    # Documents of one request are alike, so a request counts as one however many it has.
    noise = chance(_independent(one), _independent(two), alpha)
    state: State = "passed" if gap <= limits.score_shift else "open"
    if gap - noise > limits.score_shift:
        state = "failed"
    if not one.scores.total or not two.scores.total:
        state = "open"
    return Finding(
        "scores",
        state,
        f"distributions {gap:.3f} apart (largest difference of the shares below a score) over "
        f"{one.scores.total:,} and {two.scores.total:,} documents; limit {limits.score_shift:g}, "
        f"chance explains {min(1.0, noise):.3f}",
    )


def _kept(limits: ReleaseLimits, evidence: Evidence, alpha: float) -> Finding | None:
    if "scores" not in evidence.sees:
        return None
    one, two = evidence.challenger, evidence.champion
    rates = Rate(one.kept, one.documents), Rate(two.kept, two.documents)
    fewer = _thinned(rates[0], one), _thinned(rates[1], two)
    low, high = difference(*fewer, alpha)
    gap = rates[0].value - rates[1].value
    state: State = "passed" if abs(gap) <= limits.keep_rate else "open"
    if low > limits.keep_rate or high < -limits.keep_rate:
        state = "failed"
    if not one.documents or not two.documents:
        state = "open"
    shown = difference(*fewer, 0.05)
    return Finding(
        "kept",
        state,
        f"{rates[0]} documents kept, {rates[1]} by the champion; difference {gap:+.2%}, "
        f"95% interval {shown[0]:+.2%} to {shown[1]:+.2%}; limit {limits.keep_rate:.2%} either way",
    )


def _thinned(rate: Rate, observed: Observation) -> Rate:
    number = _independent(observed)
    return Rate(round(rate.value * number), number)


def _independent(observed: Observation) -> int:
    answered = observed.requests - observed.errors - observed.refused
    return min(observed.documents, answered) if answered > 0 else observed.documents


def _agreement(limits: ReleaseLimits, evidence: Evidence, alpha: float) -> Finding | None:
    pairs = evidence.pairs
    if pairs is None or "answers" not in evidence.sees:
        return None
    from scipy.stats import norm

    rate = Rate(pairs.same, pairs.number)
    surely = rate.interval(float(norm.isf(alpha)))[1]
    state: State = "passed" if rate.value >= limits.agreement else "open"
    if surely < limits.agreement:
        state = "failed"
    low, high = rate.interval()
    return Finding(
        "agreement",
        state if pairs.number else "open",
        f"{rate} documents decided as the champion decides them, 95% interval {low:.2%} to "
        f"{high:.2%}; limit {limits.agreement:.2%}",
    )


def _differences(limits: ReleaseLimits, evidence: Evidence, alpha: float) -> Finding | None:
    pairs = evidence.pairs
    if pairs is None or "answers" not in evidence.sees:
        return None
    state: State = "passed" if pairs.mean <= limits.score_difference else "open"
    if pairs.at_least(alpha) > limits.score_difference:
        state = "failed"
    return Finding(
        "score difference",
        state if pairs.number else "open",
        f"scores of a document differ by {pairs.mean:.3f} of the scale on average, over "
        f"{pairs.number:,} documents; limit {limits.score_difference:g}",
    )
