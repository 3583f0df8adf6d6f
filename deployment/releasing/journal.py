"""What a release has done so far: one JSON object an event, numbered, beside the ledger.

    LEDGER/TASK/releases/000001/000001.json ...

A step is noted before it begins and after it is done, so that whoever goes on after a crash
knows which step may be half done. Steps are such that they can be done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import fsspec
from pydantic import BaseModel, ConfigDict

from tamis.errors import OutputBusy
from tamis.serving.release_settings import ReleaseSettings, Strategy

Kind = Literal["release", "rollback", "deploy"]
CLOSED = "closed"
_SPEC = "opened"


class Event(BaseModel):
    """One line of a journal.

    Attributes:
        number: From 1.
        at: When, UTC, ISO 8601.
        step: Its name.
        phase: ``begun``, ``done``, or ``note`` for a fact.
        data: What there is to know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    at: str
    step: str
    phase: Literal["begun", "done", "note"]
    data: dict[str, Any] = {}


class Spec(BaseModel):
    """What was asked for.

    Attributes:
        kind: ``release``: a challenger is tried and promoted or not. ``rollback``: an earlier
            champion returns. ``deploy``: the champion is to serve.
        version: That is to serve in the end.
        champion: When it began; None where there was none.
        target: Name of the target.
        strategy: Of a release.
        settings: Of the task at that time.
        reasons: Why the version may be released.
        by: The verb.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    version: str
    champion: str | None
    target: str
    strategy: Strategy
    settings: ReleaseSettings
    reasons: tuple[str, ...] = ()
    by: str = "release"


class Journal:
    """The events of one release."""

    def __init__(self, fs: Any, folder: str, number: int) -> None:
        self._fs, self.folder, self.number = fs, folder, number
        fs.invalidate_cache()
        files = sorted(fs.glob(f"{folder}/*.json"))
        self.events = [Event.model_validate_json(fs.cat_file(file)) for file in files]

    @property
    def spec(self) -> Spec:
        """What was asked for."""
        return Spec.model_validate_json(json.dumps(self.events[0].data))

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"{self.number:06d}"

    @property
    def closed(self) -> bool:
        """Whether nothing is left to do."""
        return self.find(CLOSED) is not None

    def find(self, step: str, *, begun: bool = False) -> Event | None:
        """The last event of a step that is done, or of one that has at least begun."""
        for event in reversed(self.events):
            if event.step == step and (begun or event.phase != "begun"):
                return event
        return None

    def note(self, step: str, data: dict[str, Any] | None = None) -> Event:
        """Write a fact."""
        return self._append(step, "note", data or {})

    def do(self, step: str, action: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        """Do a step, unless it is done; what it told, now or then."""
        done = self.find(step)
        if done is not None:
            return done.data
        self._append(step, "begun", {})
        return self._append(step, "done", action() or {}).data

    def _append(self, step: str, phase: Literal["begun", "done", "note"], data: Any) -> Event:
        event = Event(
            number=len(self.events) + 1,
            at=datetime.now(UTC).isoformat(),
            step=step,
            phase=phase,
            data=data,
        )
        self.write(event)
        self.events.append(event)
        return event

    def write(self, event: Event) -> None:
        """Put an event where it is kept; it appears whole or not at all."""
        self._fs.makedirs(self.folder, exist_ok=True)
        final = f"{self.folder}/{event.number:06d}.json"
        self._fs.pipe_file(f"{final}.partial", event.model_dump_json(indent=1).encode())
        self._fs.mv(f"{final}.partial", final)


class Journals:
    """The releases of one task, beside its ledger.

    Args:
        url: Of the ledger's folder, local or in a bucket.
        task: The task.
    """

    def __init__(self, url: str, task: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._url, self._task = url, task
        self.folder = f"{root}/{task}/releases"

    def numbers(self) -> list[int]:
        """Numbers of all releases, oldest first."""
        self._fs.invalidate_cache()
        files = self._fs.glob(f"{self.folder}/*/000001.json")
        return sorted(int(str(file).rsplit("/", 2)[-2]) for file in files)

    def get(self, number: int) -> Journal:
        """One of them."""
        return Journal(self._fs, f"{self.folder}/{number:06d}", number)

    def latest(self) -> Journal | None:
        """The newest, if there is one."""
        numbers = self.numbers()
        return self.get(numbers[-1]) if numbers else None

    def unfinished(self) -> Journal | None:
        """The newest, if it is not closed: there is never more than one."""
        found = self.latest()
        return found if found is not None and not found.closed else None

    def open(self, spec: Spec) -> Journal:
        """Begin another."""
        numbers = self.numbers()
        made = self.get(numbers[-1] + 1 if numbers else 1)
        made.note(_SPEC, spec.model_dump(mode="json"))
        return made

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who releases this task.

        On a disk the lock ends with the process, in a bucket it lapses.

        Raises:
            OutputBusy: Somebody else does.
        """
        busy = f"the releases of {self._task}"
        if "file" in self._fs.protocol:
            from filelock import FileLock, Timeout

            Path(self.folder).mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(f"{self.folder}/lock", timeout=0):
                    yield
            except Timeout:
                raise OutputBusy(
                    f"{busy}: another release or rollback is under way; wait for its end, or stop "
                    "it with Ctrl-C, which takes its challenger back"
                ) from None
            return
        from tamis.corpus.lease import Lease

        lease = Lease(self._fs, f"{self.folder}/lock", busy)
        lease.acquire()
        try:
            yield
        finally:
            lease.release()
