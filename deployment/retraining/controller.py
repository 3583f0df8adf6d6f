"""The one function that every trigger ends in: look, decide, annotate, retrain, release.

A run that was cut off anywhere goes on where it stopped, at the next trigger or with ``resume``:
each step is noted in the journal before it begins and after it is done, and each can be done
again. A window is retrained on once, and one run goes on at a time.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from deployment.ledger import reasons_of
from deployment.releasing.journal import CLOSED
from deployment.retraining import messages
from deployment.retraining.journal import INTERRUPTED, Retrains, Run, RunUnderWay
from deployment.retraining.ledger import Action, End, Entry, history_of
from deployment.retraining.policy import Verdict, decide
from deployment.retraining.request import (
    Challenger,
    Facts,
    Labels,
    Released,
    TriggerRequest,
    Work,
)
from tamis.decision import Decision
from tamis.errors import TamisError
from tamis.monitoring.retrain_settings import RetrainPolicy

logger = logging.getLogger("tamis.retraining")

ATTEMPTS = 3
"""How often a step is begun before its run is given up."""
Told = TypeVar("Told", bound=BaseModel)


class Stages(Protocol):
    """What a run does; each stage may be called again with the same ``Work`` after a crash."""

    def monitor(self, work: Work) -> Facts:
        """Look at the window of a request."""

    def annotate(self, work: Work, facts: Facts, documents: int) -> Labels:
        """Have the judge label so many documents of the window."""

    def retrain(self, work: Work, facts: Facts, labels: Labels | None) -> Challenger:
        """Train a challenger on old and new documents, and judge it."""

    def release(self, work: Work, challenger: Challenger) -> Released:
        """Bring a challenger that passed into service, or take it back."""

    def tell(self, message: messages.Message) -> tuple[messages.Delivery, ...]:
        """Tell people; raises nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a trigger ended.

    Attributes:
        end: ``ignored``: it did nothing. ``quiet``: there was no reason to retrain. ``promoted``:
            a new champion. ``refused``: the challenger was no better. ``rolled back``: its release
            was taken back. ``failed``: a step failed too often.
        reasons: Why, a sentence each.
        run: Name of the run, where there was one.
        facts: What the window showed, where it was looked at.
        decision: Whether to retrain, where that was asked.
        challenger: What was made.
    """

    end: End | str
    reasons: tuple[str, ...] = ()
    run: str | None = None
    facts: Facts | None = None
    decision: Decision | None = None
    challenger: Challenger | None = None


class Controller:
    """Runs of one task.

    Args:
        books: Journals and ledger of the task.
        policy: Of the task.
        stages: What is done.
        clock: The time.
    """

    def __init__(
        self,
        books: Retrains,
        policy: RetrainPolicy,
        stages: Stages,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._books, self._policy, self._stages, self._clock = books, policy, stages, clock

    def take(self, request: TriggerRequest) -> Outcome:
        """Do what a trigger asks for, once.

        Where a run was cut off, it is finished first. A request that came before, and one that
        comes while a run goes on, are noted in the ledger and do nothing.

        Raises:
            Exception: What a stage raised; the same request, any other or ``resume`` goes on.
        """
        try:
            with self._books.lock(), _ended_by_sigterm():
                return self._take(request)
        except RunUnderWay:
            return self._ignore(request, self._under_way())

    def resume(self) -> Outcome | None:
        """Finish what was cut off; None where nothing was.

        Raises:
            RunUnderWay: Another one finishes it.
            Exception: What a stage raised.
        """
        with self._books.lock(), _ended_by_sigterm():
            run = self._books.unfinished()
            return None if run is None else self._finish(run)

    def _take(self, request: TriggerRequest) -> Outcome:
        cut_off = self._books.unfinished()
        if cut_off is not None:
            outcome = self._finish(cut_off)
            if cut_off.request.id == request.id:
                return outcome
        known = self._known(request)
        if known is not None:
            return self._ignore(request, f"It is a duplicate: run {known} was about it.")
        return self._finish(self._books.open(request))

    def _known(self, request: TriggerRequest) -> str | None:
        """The run that a request was about, if it came before."""
        entries = self._books.ledger.entries()
        return next((e.run for e in entries if e.request == request.id and e.run), None)

    def _under_way(self) -> str:
        run = self._books.unfinished()
        name = "A run" if run is None else f"Run {run.name}"
        return f"{name} is under way already, and one goes on at a time."

    def _ignore(self, request: TriggerRequest, why: str) -> Outcome:
        at = self._clock().isoformat()
        entry = Entry(
            at=at, action="ignored", trigger=request.trigger, request=request.id, reasons=(why,)
        )
        self._books.ledger.append((request.id, "ignored", at), entry)
        return Outcome("ignored", (why,))

    def _finish(self, run: Run) -> Outcome:
        return _Going(run, self._books, self._policy, self._stages, self._clock).finish()


class GaveUp(Exception):
    """A step failed too often."""


class _Going:
    """One run, from wherever it stands to its end."""

    def __init__(
        self,
        run: Run,
        books: Retrains,
        policy: RetrainPolicy,
        stages: Stages,
        clock: Callable[[], datetime],
    ) -> None:
        self._run, self._books, self._policy = run, books, policy
        self._stages, self._clock = stages, clock
        self._facts: Facts | None = None
        self._decision: Decision | None = None
        self._challenger: Challenger | None = None

    def finish(self) -> Outcome:
        """Go on to the end."""
        try:
            end, reasons = self._go()
        except GaveUp as error:
            end, reasons = "failed", (str(error),)
        self._note("ended", passed=end in ("quiet", "promoted"), reasons=reasons, end=end)
        if end != "quiet":
            self._tell("tell the end", messages.of_end(self._run, self._facts, end, reasons))
        if self._run.find(CLOSED) is None:
            self._run.note(CLOSED, {"end": end})
        return Outcome(end, reasons, self._run.name, self._facts, self._decision, self._challenger)

    def _go(self) -> tuple[End, tuple[str, ...]]:
        facts = self._facts = self._step("monitor", Facts, self._stages.monitor)
        if facts.rings or facts.severity == "alarm":
            self._tell("tell the alarm", messages.of_alarm(self._run, facts))
        verdict = self._step("decide", Verdict, lambda work: self._decide(facts))
        self._decision, reasons = verdict.decision, reasons_of(verdict.decision)
        passed = verdict.decision.passed
        self._note(
            "decided", passed=passed, reasons=reasons, figures=facts.figures,
            version=facts.version, documents=verdict.annotate,
        )  # fmt: skip
        if not passed:
            return "quiet", tuple(r.detail for r in verdict.decision.reasons if not r.passed)
        labels = self._annotate(facts, verdict.annotate)
        made = self._challenger = self._step(
            "retrain", Challenger, lambda work: self._stages.retrain(work, facts, labels)
        )
        self._note("retrained", passed=made.passed, reasons=made.reasons, version=made.version)
        if not made.passed:
            return "refused", made.reasons
        released = self._step("release", Released, lambda work: self._stages.release(work, made))
        promoted = released.end == "promoted"
        self._note("released", passed=promoted, reasons=released.reasons, version=made.version)
        return released.end, released.reasons

    def _decide(self, facts: Facts) -> Verdict:
        past = [p for p in history_of(self._books.ledger.entries()) if p.run != self._run.name]
        return decide(self._policy, past, facts, self._run.request, self._clock())

    def _annotate(self, facts: Facts, documents: int) -> Labels | None:
        if not documents:
            return None
        labels = self._step(
            "annotate", Labels, lambda work: self._stages.annotate(work, facts, documents)
        )
        said = (
            f"{labels.labelled} of {labels.asked} documents were labelled by {labels.by}, a "
            f"language model, for {labels.usd:.4f} USD."
        )
        self._note("annotated", passed=True, reasons=(said,), documents=labels.labelled)
        return labels

    def _step(self, name: str, kind: type[Told], stage: Callable[[Work], Told]) -> Told:
        """Do a step, unless it is done.

        Raises:
            GaveUp: It was begun too often.
            Exception: What it raised.
        """
        run = self._run
        done = run.find(name)
        if done is None and run.attempts(name) >= ATTEMPTS:
            raise GaveUp(self._why(name))

        def act() -> dict[str, Any]:
            return stage(run.work(name)).model_dump(mode="json")

        try:
            data = run.do(name, act)
        except (SystemExit, KeyboardInterrupt):
            run.note(INTERRUPTED, {"step": name})  # whoever asked for that does not count
            raise
        except Exception as error:
            run.note("error", {"step": name, "message": _said(error)})
            if run.attempts(name) >= ATTEMPTS:
                logger.error("%s failed", name, exc_info=error)
                raise GaveUp(self._why(name)) from error
            raise
        return kind.model_validate(data, strict=False)

    def _why(self, step: str) -> str:
        noted = [e.data for e in self._run.events if e.step == "error"]
        told = next((str(d["message"]) for d in reversed(noted) if d.get("step") == step), "")
        last = f"; the last time: {told}" if told else "; its process was ended each time"
        return f"{step} was begun {self._run.attempts(step)} times and not finished{last}"

    def _note(self, action: Action, **more: Any) -> None:
        run = self._run
        entry = Entry(
            at=self._clock().isoformat(), action=action, trigger=run.request.trigger,
            request=run.request.id, run=run.name,
            fingerprint=self._facts.fingerprint if self._facts else None, **more,
        )  # fmt: skip
        self._books.ledger.append(("run", run.name, action), entry)

    def _tell(self, step: str, message: messages.Message) -> None:
        """Tell people, once if nothing is cut off; whether it worked is in the ledger."""
        if self._run.find(step) is not None or self._run.attempts(step) >= ATTEMPTS:
            return

        def act() -> dict[str, Any]:
            return {"told": [list(each) for each in self._stages.tell(message)]}

        try:
            told = self._run.do(step, act)["told"]
        except Exception as error:
            logger.warning("people could not be told: %s", type(error).__name__)
            told = [["", False, type(error).__name__]]
            self._run.note(step, {"told": told})
        if not told:
            return
        entry = Entry(
            at=self._clock().isoformat(), action="told", trigger=self._run.request.trigger,
            request=self._run.request.id, run=self._run.name,
            fingerprint=self._facts.fingerprint if self._facts else None,
            passed=all(worked for _, worked, _ in told),
            reasons=tuple(f"{name or 'nobody'}: {why}" for name, _, why in told),
        )  # fmt: skip
        self._books.ledger.append(("run", self._run.name, step), entry)


def _said(error: BaseException) -> str:
    """An error in a sentence; of one that is not ours only its kind."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TamisError):
            return str(cause)[:500]
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the run as an exit does, so that it is noted; it can be gone on with."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def take(
    request: TriggerRequest,
    stages: Stages,
    books: Retrains,
    policy: RetrainPolicy,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Outcome:
    """Look at a window, and retrain and release where the policy says so: see ``Controller``."""
    return Controller(books, policy, stages, clock).take(request)


def resume(stages: Stages, books: Retrains, policy: RetrainPolicy) -> Outcome | None:
    """Finish the run that was cut off; None where none was."""
    return Controller(books, policy, stages).resume()
