"""The controller of releases: what changes registry, ledger and traffic, and in which order.

A release that was cut off anywhere is taken up again by ``resume``: each step is noted in the
journal and can be done twice. At the end registry alias, ledger and traffic say the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deployment.ledger import Ledger, previous_champion, reasons_of
from deployment.releasing.journal import CLOSED, Journal, Journals, Spec
from deployment.releasing.target import Target, Traffic
from deployment.releasing.trial import VERDICT, Progress, Trial, Verdict, start_or_refuse
from tamis.decision import Decision
from tamis.errors import OutputBusy, UsageError
from tamis.serving.release_settings import ReleaseSettings

if TYPE_CHECKING:
    from deployment.registry import Registry

End = Literal["promoted", "rolled back", "serves"]


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        end: ``promoted``; ``rolled back``: the champion of before serves; ``serves``: champion and
            traffic agree, and no version was tried.
        version: That it was about.
        champion: That serves now.
        decision: With the reasons, where there was one to take.
        traffic: Of the target.
        release: Number in the journal, if there was something to do.
    """

    end: End
    version: str
    champion: str
    decision: Decision | None
    traffic: Traffic
    release: int | None = None


def _ignore(progress: Progress) -> None:
    pass


class Controller:
    """Releases of one task on one target.

    Args:
        task: The task.
        registry: Whose alias says which version is champion.
        ledger: Of the task.
        journals: Beside it.
        target: Where versions serve.
        folder_of: Makes the folder that a version is served from, once.
        settings: Of the task.
        scale: Width of the scale of scores.
        watch: Is told how a trial goes.
        clock: Seconds since 1970.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        task: str,
        registry: Registry,
        ledger: Ledger,
        journals: Journals,
        target: Target,
        folder_of: Callable[[str], Path],
        settings: ReleaseSettings,
        scale: float = 1.0,
        watch: Callable[[Progress], None] = _ignore,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._task, self._registry, self._ledger = task, registry, ledger
        self._journals, self._target, self._folder_of = journals, target, folder_of
        self._settings, self._scale, self._watch = settings, scale, watch
        self._clock, self._sleep = clock, sleep

    def release(self, spec: Spec) -> Outcome:
        """Try a challenger and promote it, or take it back; or have the champion serve.

        Args:
            spec: With the kind ``release`` or ``deploy``.

        Raises:
            OutputBusy: Another release is under way, or one was cut off.
            UsageError: Registry and ledger disagree, or the target cannot do this.
            EngineError: The target failed; ``resume`` goes on.
        """
        if spec.strategy == "shadow" and "answers" not in self._target.sees:
            raise UsageError(
                "--strategy: given 'shadow', which compares answers; allowed: it where the "
                "request log is on (serve.log.enabled)"
            )
        if spec.strategy not in self._target.strategies:
            allowed = ", ".join(self._target.strategies)
            raise UsageError(
                f"--strategy: given {spec.strategy!r}; allowed with --target {self._target.name}: "
                f"{allowed}"
            )
        with self._journals.lock():
            self._refuse_unfinished()
            self._require_agreement()
            return self._finish(self._journals.open(spec))

    def resume(self) -> Outcome:
        """Take up what was cut off; where nothing was, make registry and traffic follow the ledger.

        Raises:
            OutputBusy: A release is under way.
            UsageError: Nothing was ever released.
            EngineError: The target failed.
        """
        with self._journals.lock():
            journal = self._journals.unfinished()
            if journal is not None:
                return self._finish(journal)
            return self._settle()

    def rollback(self, by: str = "rollback") -> Outcome:
        """Have the champion before this one serve again, or take an unfinished release back.

        Raises:
            OutputBusy: A release is under way.
            UsageError: There is no champion before this one.
            EngineError: The target failed; ``resume`` goes on.
        """
        with self._journals.lock():
            journal = self._journals.unfinished()
            if journal is not None:
                undecided = journal.spec.kind == "release" and journal.find(VERDICT) is None
                if undecided:
                    verdict = Verdict.abort("by hand", f"it was taken back by {by}")
                    journal.note(VERDICT, verdict.data())
                outcome = self._finish(journal)
                if outcome.end == "rolled back":
                    return outcome
            self._require_agreement()
            champion = self._registry.champion(self._task)
            previous = previous_champion(self._ledger.entries(), champion.version)
            if previous is None:
                raise UsageError(
                    f"{self._task}: version {champion.version} has no champion before it"
                )
            self._registry.get(self._task, previous)
            spec = Spec(
                kind="rollback", version=previous, champion=champion.version,
                target=self._target.name, strategy="canary", settings=self._settings, by=by,
                reasons=(f"rolled back from version {champion.version} to version {previous}",),
            )  # fmt: skip
            return self._finish(self._journals.open(spec))

    def _finish(self, journal: Journal) -> Outcome:
        spec = journal.spec
        if spec.kind == "rollback":
            return self._go_back(journal, spec)
        if spec.kind == "deploy" or spec.champion is None:
            return self._deploy(journal, spec)
        found = journal.find(VERDICT)
        verdict = Verdict.of(found.data) if found else self._try(journal, spec, spec.champion)
        if found is None:
            journal.note(VERDICT, verdict.data())
        if verdict.end == "promote":
            return self._promote(journal, spec, verdict.decision)
        return self._take_back(journal, spec, verdict)

    def _try(self, journal: Journal, spec: Spec, champion: str) -> Verdict:
        """The trial; whoever interrupts it takes the challenger back."""
        shadow = spec.strategy == "shadow"
        try:
            journal.do("start champion", lambda: self._ensure(champion))
            journal.do("route champion", lambda: self._settle_traffic(champion))
            journal.do("begin measuring", lambda: self._target.measure(True))
            if journal.find("start challenger") is None:
                refused = start_or_refuse(
                    lambda: self._do_start(journal, spec.version, shadow), spec.version
                )
                if refused is not None:
                    return refused
            trial = Trial(
                journal, self._target, self._ensure, self._scale, self._watch,
                self._clock, self._sleep,
            )  # fmt: skip
            return trial.run()
        except KeyboardInterrupt:
            return Verdict.abort("by hand", "it was interrupted")

    def _do_start(self, journal: Journal, version: str, shadow: bool) -> None:
        journal.do("start challenger", lambda: self._ensure(version, shadow))

    def _promote(self, journal: Journal, spec: Spec, decision: Decision) -> Outcome:
        reasons = spec.reasons + reasons_of(decision)
        journal.do("start version", lambda: self._ensure(spec.version))
        journal.do("ledger", lambda: self._append(journal, spec, "promoted", reasons))
        journal.do("alias", lambda: self._make_champion(spec.version))
        journal.do("route", lambda: self._target.route({spec.version: 100}, None))
        journal.do("end measuring", lambda: self._target.measure(False))
        # A blue champion stays, for a way back that takes no time to start.
        warm = spec.champion if spec.strategy == "blue-green" else None
        journal.do("stop others", lambda: self._stop_all_but(spec.version, warm))
        return self._close(journal, "promoted", spec.version, spec.version, decision)

    def _take_back(self, journal: Journal, spec: Spec, verdict: Verdict) -> Outcome:
        champion = spec.champion or ""
        action: Literal["refused", "aborted"] = "refused" if verdict.end == "refuse" else "aborted"
        reasons = reasons_of(verdict.decision)
        journal.do("start champion again", lambda: self._ensure(champion))
        journal.do("route back", lambda: self._target.route({champion: 100}, None))
        journal.do("ledger", lambda: self._append(journal, spec, action, reasons))
        journal.do("end measuring", lambda: self._target.measure(False))
        journal.do("stop others", lambda: self._stop_all_but(champion))
        return self._close(journal, "rolled back", spec.version, champion, verdict.decision)

    def _go_back(self, journal: Journal, spec: Spec) -> Outcome:
        journal.do("start version", lambda: self._ensure(spec.version))
        journal.do("route", lambda: self._target.route({spec.version: 100}, None))
        journal.do("ledger", lambda: self._append(journal, spec, "rolled_back", spec.reasons))
        journal.do("alias", lambda: self._make_champion(spec.version))
        journal.do("end measuring", lambda: self._target.measure(False))
        journal.do("stop others", lambda: self._stop_all_but(spec.version))
        return self._close(journal, "rolled back", spec.champion or "", spec.version, None)

    def _deploy(self, journal: Journal, spec: Spec) -> Outcome:
        """The champion is to serve, or the first version becomes it: there is none to compare."""
        journal.do("start version", lambda: self._ensure(spec.version))
        if spec.kind == "release":
            journal.do("ledger", lambda: self._append(journal, spec, "promoted", spec.reasons))
            journal.do("alias", lambda: self._make_champion(spec.version))
        journal.do("route", lambda: self._target.route({spec.version: 100}, None))
        journal.do("stop others", lambda: self._stop_all_but(spec.version))
        end: End = "promoted" if spec.kind == "release" else "serves"
        return self._close(journal, end, spec.version, spec.version, None)

    def _close(
        self, journal: Journal, end: End, version: str, champion: str, decision: Decision | None
    ) -> Outcome:
        self._settle_traffic(champion)
        journal.note(CLOSED, {"end": end, "champion": champion})
        return Outcome(end, version, champion, decision, self._target.state(), journal.number)

    def _settle(self) -> Outcome:
        """Registry and traffic say what the ledger says."""
        last = self._journals.latest()
        entries = self._ledger.entries()
        told = entries[-1].champion if entries else None
        if told is None:
            told = self._registry.champion(self._task).version
        self._make_champion(told)
        self._ensure(told)
        self._settle_traffic(told)
        warm = last.spec.champion if last and last.spec.strategy == "blue-green" else None
        self._stop_all_but(told, warm)
        return Outcome("serves", told, told, None, self._target.state())

    def _ensure(self, version: str, shadow: bool = False) -> None:
        self._target.start(version, self._folder_of(version), shadow)

    def _settle_traffic(self, champion: str) -> None:
        now = self._target.state()
        if dict(now.shares) != {champion: 100} or now.shadow is not None:
            self._target.route({champion: 100}, None)

    def _stop_all_but(self, *kept: str | None) -> None:
        for version in sorted(self._target.running() - set(kept)):
            self._target.stop(version)

    def _append(
        self,
        journal: Journal,
        spec: Spec,
        action: Literal["promoted", "refused", "rolled_back", "aborted"],
        reasons: tuple[str, ...],
    ) -> None:
        moves = action in ("promoted", "rolled_back")
        champion = spec.version if moves else spec.champion
        self._ledger.append(
            action, spec.version, spec.champion, champion, reasons,
            f"{spec.by} to {spec.target}", journal.name,
        )  # fmt: skip

    def _make_champion(self, version: str) -> None:
        now = self._registry.with_alias(self._task, "champion")
        if now is None or now.version != version:
            self._registry.set_alias(self._task, "champion", version)
        challenger = self._registry.with_alias(self._task, "challenger")
        if challenger is not None and challenger.version == version:
            self._registry.set_alias(self._task, "challenger", None)

    def _refuse_unfinished(self) -> None:
        found = self._journals.unfinished()
        if found is not None:
            spec = found.spec
            raise OutputBusy(
                f"{self._task}: the {spec.kind} of version {spec.version} was cut off; "
                "`release --resume` goes on with it, `rollback` takes it back"
            )

    def _require_agreement(self) -> None:
        entries = self._ledger.entries()
        told = entries[-1].champion if entries else None
        champion = self._registry.with_alias(self._task, "champion")
        if told is not None and (champion is None or champion.version != told):
            said = champion.version if champion else "none"
            raise UsageError(
                f"{self._task}: the registry says version {said} is champion, the ledger says "
                f"{told}; `release --resume` or `promote --version N` makes them agree"
            )
