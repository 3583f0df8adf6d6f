"""Alerts on disk: what was accepted is never lost, and never taken twice.

FOLDER/waiting/KEY.json   accepted
FOLDER/job.json           the alerts that a run is about now
FOLDER/done/KEY.json      what was looked at, the newest
FOLDER/lock               held by the listener
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from deployment.listening.payload import Alert
from tamis.errors import OutputBusy
from tamis.fingerprint import sha256_of
from tamis.monitoring.segments import write_atomically

MOST_WAITING = 1_000
MOST_DONE = 5_000


class Full(Exception):
    """No more alerts fit."""


class Waiting(BaseModel):
    """An alert that was accepted.

    Attributes:
        key: Of the alert.
        name: What the rule is called.
        at: When it came, UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    name: str
    at: str


class Job(BaseModel):
    """The alerts that one run is about.

    Attributes:
        id: The same after a crash.
        alerts: Which.
        attempts: Runs that failed.
        at: When it was made, UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    alerts: tuple[Waiting, ...]
    attempts: int = 0
    at: str


class Inbox:
    """The alerts of a task; one process holds it.

    Args:
        folder: Where they lie; made if it is not there.

    Raises:
        OutputBusy: Another listener holds it.
        OSError: The folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock, Timeout

        self.folder = folder
        for name in ("waiting", "done", "logs"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = FileLock(folder / "lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise OutputBusy(f"{folder}: another listener is at work on this task") from None
        self._waiting = self._read()
        self._known = {path.stem for path in (folder / "done").glob("*.json")}
        self._known |= {one.key for one in self._waiting}
        self._forget()

    def close(self) -> None:
        """Let another one hold it."""
        self._lock.release()

    def holds(self, key: str) -> bool:
        """Whether an alert came before."""
        return key in self._known

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """What no job has taken yet, oldest first."""
        return tuple(self._waiting)

    def accept(self, alerts: Iterable[Alert]) -> tuple[Waiting, ...]:
        """Keep new alerts; they are on the disk when this returns.

        Raises:
            Full: There is no room for all of them, and none was taken.
            OSError: The disk failed; what was written before stays.
        """
        new = {alert.key: alert for alert in alerts if alert.key not in self._known}
        if len(self._waiting) + len(new) > MOST_WAITING:
            raise Full
        taken = []
        for key, alert in new.items():
            one = Waiting(key=key, name=alert.name, at=datetime.now(UTC).isoformat())
            write_atomically(self._path("waiting", key), one.model_dump_json().encode())
            self._known.add(key)
            self._waiting.append(one)
            taken.append(one)
        return tuple(taken)

    def job(self) -> Job | None:
        """The job that was begun and not ended, or one of all that waits; None where nothing does.

        Raises:
            OSError: The disk failed.
        """
        try:
            return Job.model_validate_json((self.folder / "job.json").read_bytes())
        except FileNotFoundError:
            pass
        except ValueError:  # damaged: its alerts wait still
            (self.folder / "job.json").replace(self.folder / "job.json.damaged")
        if not self._waiting:
            return None
        alerts = tuple(self._waiting)
        name = sha256_of(one.key for one in alerts)[:16]
        job = Job(id=name, alerts=alerts, at=datetime.now(UTC).isoformat())
        self.keep(job)
        return job

    def keep(self, job: Job) -> None:
        """Write a job down."""
        write_atomically(self.folder / "job.json", job.model_dump_json().encode())

    def end(self, job: Job) -> None:
        """Nothing is left to do about a job."""
        self.settle(job.alerts)
        (self.folder / "job.json").unlink(missing_ok=True)

    def settle(self, alerts: Iterable[Waiting]) -> None:
        """Nothing is left to do about alerts."""
        gone = {one.key for one in alerts}
        for key in gone:
            with suppress(FileNotFoundError):
                self._path("waiting", key).replace(self._path("done", key))
        self._waiting = [one for one in self._waiting if one.key not in gone]
        self._forget()

    def _forget(self) -> None:
        """Keep the newest of what is done; a folder of files needs no more of a database."""
        done = sorted((self.folder / "done").glob("*.json"), key=os.path.getmtime)
        for path in done[:-MOST_DONE]:
            path.unlink(missing_ok=True)
            self._known.discard(path.stem)

    def _read(self) -> list[Waiting]:
        found = []
        for path in (self.folder / "waiting").glob("*.json"):
            try:
                found.append(Waiting.model_validate_json(path.read_bytes()))
            except ValueError:
                path.replace(path.with_suffix(".damaged"))
        return sorted(found, key=lambda one: (one.at, one.key))

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.json"
