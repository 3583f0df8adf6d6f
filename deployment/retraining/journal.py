"""What a run has done so far, and the lock that lets one run go on at a time.

LEDGER/TASK/retrains/runs/000001/000001.json ...
LEDGER/TASK/retrains/lock
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from deployment.releasing.journal import CLOSED, Event, Journal
from deployment.retraining.ledger import Ledger
from deployment.retraining.request import TriggerRequest, Work
from tamis.errors import OutputBusy

_OPENED = "opened"
INTERRUPTED = "interrupted"


class RunUnderWay(OutputBusy):
    """A run of the task goes on in another process."""


def _nothing() -> None:
    pass


class Run(Journal):
    """The events of one run.

    Args:
        fs: fsspec file system.
        folder: Of its events.
        number: Of the run.
        guard: Called before each event is written; raises where the lock was lost.
    """

    def __init__(
        self, fs: Any, folder: str, number: int, guard: Callable[[], None] = _nothing
    ) -> None:
        super().__init__(fs, folder, number)
        self._guard = guard

    @property
    def request(self) -> TriggerRequest:
        """What was asked for."""
        return TriggerRequest.model_validate_json(json.dumps(self.events[0].data))

    @property
    def opened(self) -> datetime:
        """When."""
        return datetime.fromisoformat(self.events[0].at)

    def work(self, step: str) -> Work:
        """What a stage is told."""
        begun = next((event.at for event in self.events if event.step == step), None)
        at = self.opened
        first = datetime.fromisoformat(begun) if begun else at
        return Work(run=self.name, at=at, begun=first, request=self.request)

    def attempts(self, step: str) -> int:
        """How often a step was begun, but for what somebody interrupted."""
        begun = sum(event.step == step and event.phase == "begun" for event in self.events)
        named = (event.data.get("step") for event in self.events if event.step == INTERRUPTED)
        return begun - len([name for name in named if name == step])

    def write(self, event: Event) -> None:
        """Put an event where it is kept, while the lock is ours.

        Raises:
            EngineError: It is not.
        """
        self._guard()
        super().write(event)


class Retrains:
    """Runs and ledger of one task, beside its promotion ledger.

    Args:
        url: Of the promotion ledger's folder, local or in a bucket.
        task: The task.
    """

    run_kind: type[Run] = Run

    def __init__(self, url: str, task: str) -> None:
        self.fs, root = fsspec.core.url_to_fs(url)
        self.task, self.folder = task, f"{root}/{task}/retrains"
        self.ledger = Ledger(self.fs, f"{self.folder}/ledger")
        self._guard: Callable[[], None] = _nothing

    def numbers(self) -> list[int]:
        """Numbers of all runs, oldest first."""
        self.fs.invalidate_cache()
        files = self.fs.glob(f"{self.folder}/runs/*/000001.json")
        return sorted(int(str(file).rsplit("/", 2)[-2]) for file in files)

    def get(self, number: int) -> Run:
        """One of them."""
        return self.run_kind(self.fs, f"{self.folder}/runs/{number:06d}", number, self._guard)

    def latest(self) -> Run | None:
        """The newest, if there is one."""
        numbers = self.numbers()
        return self.get(numbers[-1]) if numbers else None

    def unfinished(self) -> Run | None:
        """The newest, if it is not closed: there is never more than one."""
        found = self.latest()
        return found if found is not None and found.find(CLOSED) is None else None

    def open(self, request: TriggerRequest) -> Run:
        """Begin another."""
        numbers = self.numbers()
        made = self.get(numbers[-1] + 1 if numbers else 1)
        made.note(_OPENED, request.model_dump(mode="json"))
        return made

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who watches and retrains this task.

        On a disk the lock ends with the process that holds it, in a bucket it lapses.

        Raises:
            RunUnderWay: Somebody else is.
        """
        url = f"the retraining of {self.task}"
        busy = f"{url}: another run is under way; wait for its end"
        if "file" in self.fs.protocol:
            from filelock import FileLock, Timeout

            Path(self.folder).mkdir(parents=True, exist_ok=True)
            held = FileLock(f"{self.folder}/lock", timeout=0)
            try:
                held.acquire()
            except Timeout:
                raise RunUnderWay(busy) from None
            try:
                yield
            finally:
                held.release()
            return
        from tamis.corpus.lease import Lease

        self.fs.makedirs(self.folder, exist_ok=True)
        lease = Lease(self.fs, f"{self.folder}/lock", url)
        try:
            lease.acquire()
        except OutputBusy as error:
            raise RunUnderWay(f"{busy} ({error})") from None
        self._guard = lease.check
        try:
            yield
        finally:
            self._guard = _nothing
            lease.release()
