"""Runs containers as processes: each in its own session, folder and clean environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.vertex.standin.resources import now
from tests.vertex.standin.specification import Container

_PYTHON = re.compile(r"python[0-9.]*")
_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL of a cancelled task."""


class Slots:
    """So many tasks may run at once; waiting for a turn can be given up.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._turn = asyncio.Condition()

    async def take(self, stop: asyncio.Event) -> bool:
        """Wait for a slot.

        Returns:
            Whether one was taken: not where ``stop`` was set first.
        """
        async with self._turn:
            await self._turn.wait_for(lambda: stop.is_set() or self._free > 0)
            if stop.is_set():
                return False
            self._free -= 1
            return True

    async def give(self) -> None:
        """Hand a slot back."""
        async with self._turn:
            self._free += 1
            self._turn.notify_all()

    async def stopped(self) -> None:
        """Say that someone's ``stop`` was set."""
        async with self._turn:
            self._turn.notify_all()


@dataclass
class Attempt:
    """One run of a container.

    Attributes:
        number: From 1.
        folder: Where it works.
        pid: Of its process, which leads its own group.
        exit_code: As a container's: 128 + the signal where one killed it.
        started: When.
        ended: When.
        stopped: Whether it had to be ended.
    """

    number: int
    folder: Path
    pid: int | None = None
    exit_code: int | None = None
    started: str | None = None
    ended: str | None = None
    stopped: bool = False

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "log.txt"

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.pid is not None and self.exit_code is None

    def signal(self, number: int) -> None:
        """Send a signal to all the processes of this attempt."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def run(self, container: Container, given: Mapping[str, str], stop: asyncio.Event) -> int:
        """Run a container to its end, or until ``stop`` is set and it has been ended.

        Args:
            container: Its own environment wins over ``given``.
            given: What every task gets besides a minimal environment.
            stop: Ends it: SIGTERM, and SIGKILL where that did not help.

        Returns:
            The exit code.
        """
        home, scratch = self.folder / "home", self.folder / "tmp"
        for folder in (home, scratch):
            folder.mkdir(parents=True)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "TMPDIR": str(scratch),
            **given,
            **container.env,
            "STANDIN_WORKDIR": str(self.folder),
        }
        words = [*container.command, *container.args]
        if container.command and _PYTHON.fullmatch(Path(words[0]).name):
            words[0] = sys.executable
        self.started = now()
        with self.log.open("wb") as log:
            if not container.command:
                log.write(b"The stand-in knows no image: a container needs a command.\n")
                return self._end(127)
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    cwd=self.folder,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                log.write(f"The container did not start: {type(error).__name__}\n".encode())
                return self._end(127)
        self.pid = process.pid
        code = await self._wait(process, stop)
        # What the container's first process left behind ends with the container.
        self.signal(signal.SIGKILL)
        return self._end(128 - code if code < 0 else code)

    async def _wait(self, process: asyncio.subprocess.Process, stop: asyncio.Event) -> int:
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            self.stopped = True
            self.signal(signal.SIGTERM)
            await asyncio.wait({ended}, timeout=_GRACE)
            if not ended.done():
                self.signal(signal.SIGKILL)
        stopping.cancel()
        return await ended

    def _end(self, code: int) -> int:
        self.exit_code = code
        self.ended = now()
        return code
