"""The worker: one run at a time, in a process of its own, until its alerts are looked at."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from deployment.listening.inbox import Inbox, Job, Waiting
from deployment.listening.metrics import Metrics
from deployment.retraining.journal import Retrains
from deployment.retraining.ledger import Entry
from deployment.retraining.request import Trigger

logger = logging.getLogger("tamis.listening")

ATTEMPTS = 4
PAUSE_SECONDS = 5.0
STOP_SECONDS = 15.0
_KEPT_LOGS = 20
_ATTEND = Path(__file__).with_name("attend.py")


@dataclass(frozen=True)
class Command:
    """How a run is started.

    Attributes:
        of: From a trigger and the id of its request, as ``--trigger`` and ``--id`` have them, to
            the command line.
        folder: Where it is run.
        environment: What it sees.
    """

    of: Callable[[str, str], Sequence[str]]
    folder: Path
    environment: dict[str, str]


class Worker:
    """Takes what waits in an inbox, again and again.

    Args:
        inbox: With the alerts.
        command: How a run is started.
        books: Makes the ledger, which may be in a bucket; called in a thread.
        metrics: Of the listener.
        pause: Seconds after a run that failed; twice as many after each further one.
    """

    def __init__(
        self,
        inbox: Inbox,
        command: Command,
        books: Callable[[], Retrains],
        metrics: Metrics,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._inbox, self._command, self._make_books = inbox, command, books
        self._metrics, self._pause = metrics, pause
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._books: Retrains | None = None

    @property
    def alive(self) -> bool:
        """Whether it works, or waits for work."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin, with what was left from before."""
        self._task = asyncio.create_task(self._forever())

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    async def stop(self) -> None:
        """End, and the run that goes on with it: the next listener goes on with that."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def note(self, trigger: Trigger, why: str) -> None:
        """Note in the ledger that an alert did nothing; a ledger that fails stops nothing."""
        at = datetime.now(UTC).isoformat()
        name = f"alert:{trigger.name}"
        entry = Entry(at=at, action="ignored", trigger=trigger, request=name, reasons=(why,))
        try:
            await asyncio.to_thread(
                lambda: self._ledger().ledger.append((name, "ignored", at), entry)
            )
        except Exception as error:
            logger.warning("the ledger was not written: %s", type(error).__name__)

    def _ledger(self) -> Retrains:
        if self._books is None:
            self._books = self._make_books()
        return self._books

    async def _forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                job = self._inbox.job()
                if job is not None:
                    await self._look(job)
                    continue
            except Exception as error:
                logger.error("the worker goes on after a pause", exc_info=error)
                await asyncio.sleep(self._pause)
                continue
            await self._wake.wait()

    async def _look(self, job: Job) -> None:
        """One run of a job; it is over once the ledger says so, or after too many runs."""
        trigger = Trigger(kind="alertmanager", name=job.id)
        request = str(trigger)
        since, begun = datetime.now(UTC), datetime.fromisoformat(job.at)
        self._inbox.keep(job)
        if not await self._settled(request, begun):
            with self._metrics.at_work():
                code = await self._run(job, str(trigger), request)
            if not await self._settled(request, begun):
                await self._failed(job, trigger, code)
                return
        self._metrics.runs.labels(outcome="done").inc()
        self._inbox.end(job)
        await self._answer_those_that_came(since)

    async def _settled(self, request: str, begun: datetime) -> bool:
        return await asyncio.to_thread(lambda: self._ledger().ledger.settled(request, begun))

    async def _failed(self, job: Job, trigger: Trigger, code: int) -> None:
        """A run ended and the ledger does not say how: another one goes on with it, or none."""
        job = job.model_copy(update={"attempts": job.attempts + 1})
        logger.warning("run %s of %s ended with %s", job.attempts, job.id, code)
        if job.attempts >= ATTEMPTS:
            self._metrics.runs.labels(outcome="given_up").inc()
            await self.note(trigger, f"It was given up: {job.attempts} runs ended with {code}.")
            self._inbox.end(job)
            return
        self._inbox.keep(job)
        self._metrics.runs.labels(outcome="failed").inc()
        await asyncio.sleep(self._pause * 2 ** (job.attempts - 1))

    async def _answer_those_that_came(self, since: datetime) -> None:
        """Alerts that came while the run retrained need no run of their own."""
        waiting = self._inbox.waiting
        if not waiting:
            return
        entries = await asyncio.to_thread(lambda: self._ledger().ledger.entries(since))
        run = next((e.run for e in entries if e.action == "decided" and e.passed), None)
        if run is None:
            return
        for one in waiting:
            await self.note(_trigger(one), f"{one.name} came while run {run} was retraining.")
        self._inbox.settle(waiting)

    async def _run(self, job: Job, trigger: str, request: str) -> int:
        """Run the command; its exit code."""
        command = [sys.executable, "-S", "-E", str(_ATTEND), *self._command.of(trigger, request)]
        self._drop_logs()
        with (self._inbox.folder / "logs" / f"{job.id}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=self._command.folder, env=self._command.environment,
                stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            return await process.wait()
        finally:
            if process.returncode is None and process.stdin is not None:
                process.stdin.close()
                try:
                    await asyncio.wait_for(process.wait(), STOP_SECONDS)
                except TimeoutError:
                    process.kill()
                    await process.wait()

    def _drop_logs(self) -> None:
        logs = sorted((self._inbox.folder / "logs").glob("*.log"), key=os.path.getmtime)
        for path in logs[: -_KEPT_LOGS + 1]:
            path.unlink(missing_ok=True)


def _trigger(one: Waiting) -> Trigger:
    return Trigger(kind="alertmanager", name=one.key)
