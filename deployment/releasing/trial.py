"""The phases of one release: traffic is split, looked at, and a verdict is reached."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deployment.releasing.journal import Journal, Spec
from deployment.releasing.judge import Evidence, Judgement, judge
from deployment.releasing.plan import Phase, phases, shares
from deployment.releasing.statistics import Pairs
from deployment.releasing.target import Observation, Target
from tamis.decision import Decision, Reason
from tamis.errors import EngineError, TamisError

VERDICT = "verdict"
MOST_PAIRS = 100_000
"""Documents of a shadow that are compared; memory is bounded by it."""
_GROWTH = 1.1
_STEP = 10
"""A look is taken when the traffic has grown by a tenth, and by so many requests at least."""


@dataclass(frozen=True)
class Progress:
    """What to show of a release that goes on.

    Attributes:
        number: Of the release.
        spec: What was asked for.
        phase: The present phase.
        plan: All phases.
        evidence: Of the present phase so far.
        judgement: Of the last look, if there was one in this phase.
    """

    number: int
    spec: Spec
    phase: Phase
    plan: tuple[Phase, ...]
    evidence: Evidence
    judgement: Judgement | None


@dataclass(frozen=True)
class Verdict:
    """How a trial ended.

    Attributes:
        end: ``promote``; ``refuse``: the judge was against it; ``abort``: it was not judged.
        decision: With the reasons.
    """

    end: Literal["promote", "refuse", "abort"]
    decision: Decision

    def data(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return {"end": self.end, "decision": self.decision.model_dump(mode="json")}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Verdict:
        """From the journal."""
        return cls(data["end"], Decision.model_validate(data["decision"]))

    @classmethod
    def abort(cls, check: str, detail: str) -> Verdict:
        """A trial that came to nothing."""
        return cls("abort", Decision.of([Reason(check=check, passed=False, detail=detail)]))


class Trial:
    """Lead a challenger through its phases, or on from where a killed controller left it.

    Args:
        journal: Of the release.
        target: Where it happens; champion and challenger run there.
        ensure: Starts a version unless it runs.
        scale: Width of the scale of scores.
        watch: Is told how it goes.
        clock: Seconds since 1970.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        journal: Journal,
        target: Target,
        ensure: Callable[[str, bool], None],
        scale: float,
        watch: Callable[[Progress], None],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._journal, self._target, self._ensure = journal, target, ensure
        self._scale, self._watch, self._clock, self._sleep = scale, watch, clock, sleep
        self._spec = journal.spec
        self._plan = tuple(phases(self._spec.strategy, self._spec.settings))
        judged = sum(phase.judged for phase in self._plan)
        self._alpha = self._spec.settings.alpha / judged
        self._champion = self._spec.champion or ""

    def run(self) -> Verdict:
        """All phases, until one is against the challenger or the last has passed."""
        reasons: list[Reason] = []
        for phase in self._plan:
            found = self._phase_or_gone(phase)
            if isinstance(found, Verdict):
                return found
            reasons += [
                reason.model_copy(update={"check": f"{phase.name}: {reason.check}"})
                for reason in found.decision.reasons
            ]
            if found.verdict == "roll back":
                return Verdict("refuse", Decision.of(reasons))
        return Verdict("promote", Decision.of(reasons))

    def _phase_or_gone(self, phase: Phase) -> Judgement | Verdict:
        try:
            return self._phase(phase)
        except EngineError:
            gone = self._gone()
            if gone is None:
                raise
            return gone

    def _phase(self, phase: Phase) -> Judgement | Verdict:
        ended = self._journal.find(f"judged {phase.name}")
        if ended is not None:
            return _judgement(ended.data)
        shadow = self._spec.version if phase.shadow else None
        split = shares(phase, self._champion, self._spec.version)
        self._journal.do(f"route {phase.name}", lambda: self._target.route(split, shadow))
        begun = self._journal.do(f"measure {phase.name}", self._baseline)
        if self._target.state().shares != split:  # something else moved it meanwhile
            self._target.route(split, shadow)
        last = self._journal.find(f"look {phase.name}")
        look = last.data["look"] if last else 0
        seen = last.data["requests"] if last else 0
        judgement: Judgement | None = None
        while True:
            gone = self._gone()
            if gone is not None:
                return gone
            evidence = self._evidence(phase, begun)
            had = (evidence.challenger if phase.judged else evidence.champion).requests
            if self._worth_a_look(phase, evidence, seen, had, judgement):
                look, seen = look + 1, had
                if phase.shadow:
                    evidence = self._with_pairs(evidence, begun)
                limits = self._spec.settings.limits
                judgement = judge(phase, limits, evidence, self._alpha, look)
                if judgement.verdict != "wait":
                    data = _data(judgement) | {"champion": evidence.champion.model_dump()}
                    self._journal.note(f"judged {phase.name}", data)
                    self._tell(phase, evidence, judgement)
                    return judgement
                # Looks are counted over a crash, so that none is taken twice.
                self._journal.note(f"look {phase.name}", {"look": look, "requests": seen})
            self._tell(phase, evidence, judgement)
            self._sleep(self._spec.settings.look_seconds)

    def _worth_a_look(
        self, phase: Phase, evidence: Evidence, seen: int, had: int, last: Judgement | None
    ) -> bool:
        if evidence.seconds >= phase.max_seconds:
            return True
        if had >= max(seen + _STEP, seen * _GROWTH):
            return True
        waited = last is not None and all(each.state == "passed" for each in last.findings)
        return waited and evidence.seconds >= phase.min_seconds

    def _baseline(self) -> dict[str, Any]:
        versions = {"champion": self._champion, "challenger": self._spec.version}
        seen = {
            who: self._target.observe(name).model_dump(mode="json")
            for who, name in versions.items()
        }
        return seen | {"at": self._clock()}

    def _evidence(self, phase: Phase, begun: Mapping[str, Any]) -> Evidence:
        names = {"champion": self._champion, "challenger": self._spec.version}
        counted = {
            who: self._target.observe(name).since(_observation(begun[who]))
            for who, name in names.items()
        }
        if phase.before is not None:
            earlier = self._journal.find(f"judged {phase.before}")
            known = earlier.data["champion"] if earlier is not None else {}
            counted["champion"] = _observation(known)
        return Evidence(
            champion=counted["champion"],
            challenger=counted["challenger"],
            pairs=None,
            seconds=max(0.0, self._clock() - begun["at"]),
            sees=self._target.sees,
        )

    def _with_pairs(self, evidence: Evidence, begun: Mapping[str, Any]) -> Evidence:
        """Join what both said of the same documents."""
        shadow: dict[tuple[str, int], tuple[float, bool]] = {}
        for answer in self._target.answers(self._spec.version):
            shadow[answer.request_id, answer.index] = (answer.score, answer.kept)
            if len(shadow) >= MOST_PAIRS:
                break
        pairs = Pairs()
        for answer in self._target.answers(self._champion):
            other = shadow.pop((answer.request_id, answer.index), None)
            if other is not None:
                gap = min(1.0, abs(answer.score - other[0]) / self._scale)
                pairs.add(answer.kept == other[1], gap)
        return Evidence(
            evidence.champion, evidence.challenger, pairs, evidence.seconds, evidence.sees
        )

    def _gone(self) -> Verdict | None:
        """Start a champion that has died again; a challenger that has is not given another try."""
        ready = self._target.state().ready
        if self._champion not in ready:
            self._ensure(self._champion, False)
        if self._spec.version in ready:
            return None
        reason = Reason(
            check="ready", passed=False, detail=f"version {self._spec.version} stopped answering"
        )
        return Verdict("refuse", Decision.of([reason]))

    def _tell(self, phase: Phase, evidence: Evidence, judgement: Judgement | None) -> None:
        told = Progress(
            self._journal.number, self._spec, phase, self._plan, evidence, judgement
        )  # fmt: skip
        self._watch(told)


def start_or_refuse(start: Callable[[], None], version: str) -> Verdict | None:
    """Start a challenger; one that does not become ready is refused."""
    try:
        start()
    except TamisError as error:
        reason = Reason(check="ready", passed=False, detail=f"version {version}: {error}")
        return Verdict("refuse", Decision.of([reason]))
    return None


def _observation(data: Mapping[str, Any]) -> Observation:
    return Observation.model_validate_json(json.dumps(data))


def _data(judgement: Judgement) -> dict[str, Any]:
    findings = [[each.check, each.state, each.detail] for each in judgement.findings]
    return {"verdict": judgement.verdict, "findings": findings}


def _judgement(data: Mapping[str, Any]) -> Judgement:
    from deployment.releasing.judge import Finding

    return Judgement(data["verdict"], tuple(Finding(*each) for each in data["findings"]))
