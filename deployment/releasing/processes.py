"""Service processes of this machine that outlive the command which started them."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployment.stacks import PROJECT
from tamis.errors import EngineError

_PORTS = range(18_000, 32_000)
"""Below those that the kernel hands out to connections, so that none is taken meanwhile."""
_POLL = 0.05
_TAIL = 2_000


@dataclass(frozen=True)
class Program:
    """What to run.

    Attributes:
        command: With the port filled in.
        environment: All of it.
        cwd: Working folder.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path = PROJECT


@dataclass(frozen=True)
class Identity:
    """A process that holds its lock.

    Attributes:
        pid: Its number.
        created: When it began; a number that was given to another process has another time.
        port: That it listens on.
    """

    pid: int
    created: float
    port: int


class Daemon:
    """One version's process.

    Args:
        folder: For its record, lock, identity and output.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether the lock is held: by the process, or what it started and left behind."""
        if self._child is not None:
            self._child.poll()  # so that a dead one leaves nothing in the table of processes
        try:
            lock = os.open(self.folder / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def identity(self) -> Identity | None:
        """Who holds the lock; None where nobody does, or has not said so yet."""
        if not self.alive:
            return None
        try:
            return Identity(**json.loads((self.folder / "identity.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def ports(self) -> set[int]:
        """All ports that processes of this version have had."""
        try:
            return set(json.loads((self.folder / "ports.json").read_text("utf-8")))
        except (OSError, ValueError):
            return set()

    def start(self, program: Program, port: int) -> None:
        """Begin, unless it runs; returns at once."""
        if self.alive:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        replace(self.folder / "ports.json", json.dumps(sorted({*self.ports(), port})))
        record = {"command": list(program.command), "cwd": str(program.cwd), "port": port}
        replace(self.folder / "record.json", json.dumps(record))
        (self.folder / "identity.json").unlink(missing_ok=True)
        with (self.folder / "service.log").open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "deployment.releasing.launch", self.folder / "record.json"],
                cwd=PROJECT,
                env={**program.environment, "PYTHONPATH": str(PROJECT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float) -> int:
        """Its port, once it answers.

        Raises:
            EngineError: It ends, or takes longer.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.identity()
            if found is not None and is_ready(found.port):
                return found.port
            if self._child is not None and self._child.poll() is not None and not self.alive:
                raise EngineError(f"it ended before it was ready: {self.said()}")
            time.sleep(_POLL)
        raise EngineError(f"not ready within {seconds:g} s: {self.said()}")

    def said(self) -> str:
        """The last line that it wrote."""
        try:
            with (self.folder / "service.log").open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
                lines = stream.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1][:500] if lines else f"it said nothing (see {self.folder})"

    def stop(self, seconds: float) -> None:
        """Ask it to end, and end it after a while."""
        found = self.identity()
        if found is not None and _is(found):
            os.kill(found.pid, signal.SIGTERM)
            if not self._wait_dead(seconds):
                os.killpg(found.pid, signal.SIGKILL)
        elif found is not None:  # its children are left: a session of their own
            _kill_session(found.pid)
        if not self._wait_dead(10):
            raise EngineError(f"the process of {self.folder.name} does not end")
        (self.folder / "identity.json").unlink(missing_ok=True)

    def _wait_dead(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL)
        return True


def is_ready(port: int) -> bool:
    """Whether a service answers that it is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def free_port() -> int:
    """A port of this machine that nothing listens on.

    Raises:
        EngineError: There is none.
    """
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EngineError("no port is free on this machine")


def replace(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    staged = path.with_name(f"{path.name}.partial")
    staged.write_text(text, "utf-8")
    staged.replace(path)


def _is(found: Identity) -> bool:
    import psutil  # type: ignore[import-untyped]

    try:
        return bool(abs(psutil.Process(found.pid).create_time() - found.created) < 1.0)
    except psutil.NoSuchProcess:
        return False


def _kill_session(session: int) -> None:
    import psutil

    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                process.kill()
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
