"""All that one stand-in holds."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.vertex.standin.errors import missing
from tests.vertex.standin.processes import Attempt, Slots
from tests.vertex.standin.resources import Collection, Resource, new_number
from tests.vertex.standin.specification import Container

_SECRET_WORDS = ("TOKEN", "KEY", "PASSWORD", "SECRET")


@dataclass(frozen=True)
class Settings:
    """How a stand-in was started.

    Attributes:
        project: Identifier of the one project there is.
        number: The same project's number, which names in answers hold.
        location: The one there is.
        folder: Where tasks work.
        environment: That every task gets.
        parallel: Tasks that run at once.
        seed: Of the choice among deployed models.
    """

    project: str
    number: str
    location: str
    folder: Path
    environment: dict[str, str]
    parallel: int = 2
    seed: int = 0

    @property
    def parent(self) -> str:
        """Name of the location, as answers hold it."""
        return f"projects/{self.number}/locations/{self.location}"


@dataclass
class Run:
    """What the stand-in knows of the running of one task beyond what the API shows.

    Attributes:
        name: Of the task.
        stop: Set to end it.
        container: Once known.
        attempts: So far.
        custom_job: Name of the custom job that it is, if it is one.
        detail: The task as the API shows it.
    """

    name: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    container: Container | None = None
    attempts: list[Attempt] = field(default_factory=list)
    custom_job: str | None = None
    detail: Resource = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """For tests, without secrets."""
        last = self.attempts[-1] if self.attempts else None
        container = self.container or Container("", [], [], {})
        return {
            "state": self.detail.get("state"),
            "pid": last.pid if last else None,
            "exit_code": last.exit_code if last else None,
            "image": container.image,
            "command": container.command,
            "args": container.args,
            "env": {name: hidden(name, value) for name, value in container.env.items()},
            "resources": container.resources,
            "custom_job": self.custom_job,
            "log": str(last.log) if last else None,
            "attempts": [
                {
                    "number": attempt.number,
                    "pid": attempt.pid,
                    "exit_code": attempt.exit_code,
                    "started": attempt.started,
                    "ended": attempt.ended,
                    "log": str(attempt.log),
                }
                for attempt in self.attempts
            ],
        }


def hidden(name: str, value: str) -> str:
    """The value of an environment variable, or stars where its name says that it is a secret."""
    return "***" if any(word in name.upper() for word in _SECRET_WORDS) else value


class State:
    """Resources, running tasks and what was asked so far.

    Args:
        settings: How the stand-in was started.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pipelines = Collection(settings.parent, "pipelineJobs")
        self.customs = Collection(settings.parent, "customJobs")
        self.schedules = Collection(settings.parent, "schedules")
        self.models = Collection(settings.parent, "models")
        self.endpoints = Collection(settings.parent, "endpoints")
        self.operations: dict[str, Resource] = {}
        self.runs: dict[str, dict[str, Run]] = {}
        self.requests: list[dict[str, str]] = []
        self.serving: dict[str, str] = {}
        self.slots = Slots(settings.parallel)
        self.random = random.Random(settings.seed)
        self._background: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the requests."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def operation(
        self, version: str, kind: str, response: Resource | None = None, parent: str = ""
    ) -> Resource:
        """A long-running operation that is done.

        Args:
            version: Of the API.
            kind: Of the response, like ``UploadModelResponse``; empty for nothing.
            response: Its fields.
            parent: Resource that it works on; the location where empty.
        """
        package = f"google.cloud.aiplatform.{version}.{kind}" if kind else "google.protobuf.Empty"
        identifier = new_number()
        operation: Resource = {
            "name": f"{parent or self.settings.parent}/operations/{identifier}",
            "done": True,
            "response": {"@type": f"type.googleapis.com/{package}", **(response or {})},
        }
        self.operations[identifier] = operation
        return operation

    def run(self, job: str, task: str) -> Run:
        """A task of a job.

        Raises:
            ApiError: There is none.
        """
        if task not in self.runs.get(job, {}):
            raise missing(f"jobs/{job}/tasks/{task}")
        return self.runs[job][task]

    async def stop(self, *runs: Run) -> None:
        """End tasks, running or waiting."""
        for run in runs:
            run.stop.set()
        await self.slots.stopped()

    async def close(self) -> None:
        """End all processes, at once."""
        every = [run for job in self.runs.values() for run in job.values()]
        await self.stop(*every)
        # A process may be starting just now: ask until none is left.
        while self._background:
            for run in every:
                for attempt in run.attempts:
                    if attempt.running:
                        attempt.signal(signal.SIGKILL)
            await asyncio.wait(self._background, timeout=0.2)
