"""Services under measurement: started on ports of their own, ended with all they started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
START_S = 120.0
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Service:
    """How a service is started and asked.

    Attributes:
        name: In the rows.
        command: With ``{port}`` for its port.
        environment: Laid over ours.
        ready: Path that answers 200 when it is ready.
        path: Where documents are sent.
        key: Of the Authorization header; empty for none.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: str
    path: str
    key: str = ""

    def body(self, texts: Sequence[str]) -> str:
        """A request for the scores of texts."""
        if self.path == "/invocations":
            return json.dumps({"inputs": list(texts)}, ensure_ascii=False)
        documents = [{"text": text} for text in texts]
        return json.dumps({"documents": documents}, ensure_ascii=False)


@dataclass
class Running:
    """A service that answers.

    Attributes:
        service: What was started.
        port: Where it listens.
        process: The first of its processes.
    """

    service: Service
    port: int
    process: psutil.Popen

    def tree(self) -> list[psutil.Process]:
        """Its processes that live."""
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """CPU time of the whole tree, of those that have ended too."""
        total = 0.0
        for each in self.tree():
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory_mb(self) -> tuple[float, float]:
        """Resident and unshared memory of the tree in MB (10^6 bytes)."""
        resident = unshared = 0
        for each in self.tree():
            try:
                found = each.memory_full_info()
            except psutil.NoSuchProcess:
                continue
            resident, unshared = resident + found.rss, unshared + found.uss
        return resident / 1e6, unshared / 1e6


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(service: Service, logs: Path) -> Iterator[Running]:
    """Start a service, wait until it is ready, and end it with all its processes.

    Raises:
        SystemExit: It ended, or was not ready in time; with the end of what it wrote.
    """
    port, log = free_port(), logs / f"{service.name}.log"
    command = [part.replace("{port}", str(port)) for part in service.command]
    with log.open("wb") as out:
        process = psutil.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **service.environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = Running(service, port, process)
    try:
        _await(found, log)
        yield found
    finally:
        _end(found)


def _await(found: Running, log: Path) -> None:
    end = time.monotonic() + START_S
    url = f"http://127.0.0.1:{found.port}{found.service.ready}"
    while time.monotonic() < end and found.process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    told = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
    raise SystemExit(f"{found.service.name} is not ready:\n{told}")


def _end(found: Running) -> None:
    tree = found.tree() if found.process.is_running() else []
    for each in tree[:1]:
        each.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(tree, timeout=15)
    for each in left:
        each.kill()
    psutil.wait_procs(left, timeout=5)


def load(found: Running, spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the load client on a service; what it wrote, and CPU seconds of the service meanwhile.

    Raises:
        SystemExit: The client failed.
    """
    given, result = folder / "spec.json", folder / "result.json"
    headers = {"Accept": "application/json"}
    if found.service.key:
        headers["Authorization"] = f"Bearer {found.service.key}"
    where = {"port": found.port, "path": found.service.path, "headers": headers}
    given.write_text(json.dumps(where | spec), encoding="utf-8")
    with client(given, result) as process:
        wait_for(process, "ready")
        before = found.cpu_seconds()
        go(process)
        wait_for(process, "done")
        after = found.cpu_seconds()
        if process.wait():
            raise SystemExit("the load client failed")
    told: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return told | {"server_cpu_s": after - before}


@contextmanager
def client(spec: Path, result: Path) -> Iterator[subprocess.Popen[str]]:
    """The load client as a process; killed if it is still there in the end."""
    command = [sys.executable, str(ROOT / "bench" / "serving_load.py"), str(spec), str(result)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], wanted: str) -> None:
    """Read the client's next line.

    Raises:
        SystemExit: It is another one.
    """
    told = process.stdout.readline().strip() if process.stdout else ""
    if told != wanted:
        raise SystemExit(f"the load client said {told!r}, not {wanted!r}")


def go(process: subprocess.Popen[str]) -> None:
    """Tell the client to begin."""
    if process.stdin:
        process.stdin.write("go\n")
        process.stdin.flush()
