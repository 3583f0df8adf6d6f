"""The target ``local``: service processes of this machine behind an nginx of their own.

Both outlive the command that started them. Everything is in one folder:

    FOLDER/traffic.json           what is wanted, and the ports
    FOLDER/versions/VERSION/      a version's process: record, lock, identity, output
    FOLDER/nginx/                 nginx's prefix: configuration, logs, process number
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from deployment.releasing.front import LOG, Nginx, worker_user
from deployment.releasing.measured import Counted
from deployment.releasing.nginx import Front, Split
from deployment.releasing.processes import Daemon, Program, free_port, is_ready, replace
from deployment.releasing.scrape import scrape
from deployment.releasing.target import Answer, Observation, Target, Traffic
from tamis.errors import EngineError, UsageError
from tamis.serving.release_settings import ReleaseSettings, Strategy

_VERSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class ServiceLimits:
    """What the front has to let through.

    Attributes:
        body_bytes: Largest body.
        seconds: Longest time to answer.
        body_seconds: Longest time to send.
    """

    body_bytes: int = 4 * 1024**2
    seconds: float = 30.0
    body_seconds: float = 10.0


class LocalTarget(Target):
    """Versions of one task on this machine.

    Args:
        folder: For its files.
        settings: Of the release.
        program: What runs a version: from its folder and a port.
        limits: Of the service.
        log: Folder of the request log that the processes share; None where there is none.
        task: The task, as records of the log name it.
    """

    name: ClassVar[str] = "local"
    strategies: ClassVar[tuple[Strategy, ...]] = ("shadow", "canary", "blue-green")

    def __init__(
        self,
        folder: Path,
        settings: ReleaseSettings,
        program: Callable[[str, Path, int], Program],
        limits: ServiceLimits | None = None,
        log: Path | None = None,
        task: str = "",
    ) -> None:
        self._folder, self._settings, self._program = folder, settings, program
        self._limits, self._log, self._task = limits or ServiceLimits(), log, task
        self._nginx = Nginx(folder / "nginx")
        self._counted = Counted(folder / "nginx" / LOG)
        self._daemons: dict[str, Daemon] = {}
        self.sees = super().sees | ({"answers"} if log is not None else frozenset())

    @property
    def address(self) -> str:
        """Where requests go to."""
        return f"http://{self._settings.local.host}:{self._settings.local.port}/"

    def state(self) -> Traffic:
        """As nginx itself tells it."""
        wanted = self._wanted()
        told = self._nginx.asked(wanted["control"]) if "control" in wanted else None
        ready = frozenset(
            name for name in self.running() if (port := self._port(name)) and is_ready(port)
        )
        if told is None:
            return Traffic(ready=ready)
        return Traffic(told["shares"], told["shadow"], ready, self.address)

    def running(self) -> frozenset[str]:
        """Versions whose process lives."""
        return frozenset(name for name in self._known() if self._daemon(name).alive)

    def start(self, version: str, folder: Path, shadow: bool) -> None:
        """Run a version's process; a version in traffic that had died gets its new port routed."""
        if _VERSION.fullmatch(version) is None:
            raise UsageError(f"--version: given {version!r}; allowed: letters, digits, - and _")
        daemon = self._daemon(version)
        port = free_port()
        try:
            daemon.start(self._program(version, folder, port), port)
            daemon.wait_ready(self._settings.ready_seconds)
        except EngineError as error:
            raise EngineError(f"version {version}: {error}") from None
        now = self._wanted()
        if version in {*now.get("shares", {}), now.get("shadow")}:
            self._apply(now, dead=True)

    def route(self, shares: Mapping[str, int], shadow: str | None) -> None:
        """Reload nginx with other shares; requests in flight end where they began."""
        now = self._wanted()
        given = {name: percent for name, percent in shares.items() if percent}
        self._apply(now | {"shares": given, "shadow": shadow})

    def stop(self, version: str) -> None:
        """Wait for requests in flight, then end the process."""
        now = self._wanted()
        if version in {*now.get("shares", {}), now.get("shadow")}:
            raise UsageError(f"version {version}: it has traffic; route it elsewhere first")
        self._nginx.drain(self._settings.drain_seconds)
        self._daemon(version).stop(self._settings.drain_seconds)

    def observe(self, version: str) -> Observation:
        """Requests as nginx saw them, also those that met no process; scores from the process."""
        self._counted.read()
        seen = self._counted.of(self._daemon(version).ports())
        port = self._port(version)
        told = scrape(f"http://127.0.0.1:{port}/metrics") if port else None
        if told is None:
            return seen
        scores = {"documents": told.documents, "kept": told.kept, "scores": told.scores}
        return seen.model_copy(update=scores)

    def answers(self, version: str) -> Iterator[Answer]:
        """From the request log, since measuring began."""
        if self._log is None or not self._log.is_dir():
            return
        from tamis.monitoring.windows import Reader

        since = self._wanted().get("since")
        start = datetime.fromisoformat(since) if since else None
        columns = ["request_id", "index", "model_version", "score", "decision"]
        name = f"{self._task}/{version}"
        with Reader(self._log) as reader:
            for batch in reader.batches(start, columns=columns, shadow=True):
                for row in batch.to_pylist():
                    if row["model_version"] == name and row["score"] is not None:
                        kept = row["decision"] == "keep"
                        yield Answer(row["request_id"], row["index"], row["score"], kept)

    def measure(self, wanted: bool) -> None:
        """Have nginx note each request, or no longer: the log grows only while a release goes on.

        The version in front at the beginning is the one that is asked where another fails.
        """
        now = self._wanted()
        if wanted == bool(now.get("since")):
            return
        if wanted:
            (self._folder / "nginx" / LOG).unlink(missing_ok=True)
            shares = now.get("shares", {})
            stable = max(shares, key=lambda name: shares[name], default=None)
            now |= {"since": datetime.now(UTC).isoformat(), "stable": stable}
        else:
            now |= {"since": None, "stable": None}
        if now.get("shares"):
            self._apply(now)
        else:
            self._write(now)

    def end(self) -> None:
        """Take everything out of service."""
        self._nginx.end()
        for version in self.running():
            self._daemon(version).stop(self._settings.drain_seconds)
        self._write(self._wanted() | {"shares": {}, "shadow": None, "since": None, "stable": None})

    def _apply(self, wanted: dict[str, Any], dead: bool = False) -> None:
        """Write down what is wanted, then have nginx do it.

        Args:
            wanted: Shares, shadow and the rest of ``traffic.json``.
            dead: Keep the shares of a version that has died; nginx asks the stable one instead.
        """
        if "control" not in wanted:
            wanted = wanted | {"control": free_port()}
        names = {*wanted["shares"], wanted.get("shadow"), wanted.get("stable")} - {None}
        ports = {name: self._port(name) or (self._last_port(name) if dead else None)
                 for name in names}  # fmt: skip
        missing = sorted(name for name in (*wanted["shares"], wanted.get("shadow"))
                         if name is not None and ports[name] is None)  # fmt: skip
        if missing:
            raise EngineError(f"version {missing[0]} does not run, so it can have no traffic")
        self._write(wanted)
        split = Split(
            shares=wanted["shares"],
            shadow=wanted.get("shadow"),
            ports={name: port for name, port in ports.items() if port is not None},
            stable=wanted.get("stable"),
            measured=bool(wanted.get("since")),
        )
        own, limits = self._settings.local, self._limits
        front = Front(
            host=own.host, port=own.port, control=wanted["control"], user=worker_user(),
            connections=own.connections, body_bytes=limits.body_bytes + 1_024,
            seconds=limits.seconds + 5, body_seconds=limits.body_seconds + 5,
            shadow_seconds=own.shadow_seconds, drain_seconds=self._settings.drain_seconds,
        )  # fmt: skip
        self._nginx.apply(front, split)

    def _wanted(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / "traffic.json").read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise EngineError(f"{self._folder}/traffic.json is damaged; remove it") from None
        return found if isinstance(found, dict) else {}

    def _write(self, wanted: dict[str, Any]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace(self._folder / "traffic.json", json.dumps(wanted))

    def _known(self) -> list[str]:
        folder = self._folder / "versions"
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []

    def _daemon(self, version: str) -> Daemon:
        return self._daemons.setdefault(version, Daemon(self._folder / "versions" / version))

    def _last_port(self, version: str) -> int | None:
        return max(self._daemon(version).ports(), default=None)

    def _port(self, version: str) -> int | None:
        found = self._daemon(version).identity()
        return found.port if found else None
