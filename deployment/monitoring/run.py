"""The real Prometheus and Alertmanager on a running service: `python -m deployment.monitoring.run`.

Ctrl-C ends both. Their data stay in the folder, and are taken up again by the next start.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from deployment.monitoring.configs import (
    Email,
    Intervals,
    Receivers,
    alertmanager_config,
    prometheus_config,
    rule_files,
)
from tamis.errors import EngineError, TamisError, UsageError

_HOST = "127.0.0.1"
_POLL = 0.05
_READY_SECONDS = 30.0
_END_SECONDS = 10.0
_APT = "sudo apt-get install prometheus prometheus-alertmanager"
_PROGRAMS = {
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}


@dataclass(frozen=True)
class Monitoring:
    """Both at work.

    Attributes:
        prometheus: Its address.
        alertmanager: Its address.
        folder: With their configuration, data and logs.
    """

    prometheus: str
    alertmanager: str
    folder: Path
    processes: tuple[subprocess.Popen[bytes], ...]

    def firing(self) -> dict[str, set[str]]:
        """The tasks for which each alert rings now.

        Raises:
            EngineError: Prometheus does not answer.
        """
        found: dict[str, set[str]] = {}
        for alert in _answer(f"{self.prometheus}/api/v1/alerts")["data"]["alerts"]:
            if alert["state"] == "firing":
                labels = alert["labels"]
                found.setdefault(labels["alertname"], set()).add(labels.get("task", ""))
        return found

    def value(self, expression: str) -> float | None:
        """The value of an expression of PromQL with one series; None where it has none.

        Raises:
            EngineError: Prometheus does not answer, or takes it for none.
        """
        query = urllib.parse.urlencode({"query": expression})
        result = _answer(f"{self.prometheus}/api/v1/query?{query}")["data"]["result"]
        return float(result[0]["value"][1]) if result else None


@contextmanager
def started(
    folder: Path,
    services: Sequence[str],
    receivers: Receivers = Receivers(),
    intervals: Intervals = Intervals(),
    prometheus_port: int = 0,
    alertmanager_port: int = 0,
) -> Iterator[Monitoring]:
    """Prometheus and Alertmanager, ready, until the block ends.

    Args:
        folder: For configuration, data and logs; made if need be.
        services: Addresses of services to watch.
        receivers: Who is told; the listener's figures are watched as well.
        intervals: How often they look.
        prometheus_port: To listen on; 0 takes a free one.
        alertmanager_port: Likewise.

    Raises:
        UsageError: A package is missing, or an address or file is not usable.
        EngineError: One did not get ready.
    """
    programs = {name: program(name) for name in _PROGRAMS}
    _require(receivers.token_file)
    _require(receivers.slack_url_file)
    if receivers.email is not None:
        _require(receivers.email.password_file)
    folder = folder.absolute()
    own = f"{_HOST}:{prometheus_port or _free_port()}"
    other = f"{_HOST}:{alertmanager_port or _free_port()}"
    configs = {
        "prometheus.yml": prometheus_config(
            services, receivers.listener, own, other, intervals
        ),
        "alertmanager.yml": alertmanager_config(receivers, intervals),
        **{f"rules/{name}": text for name, text in rule_files(intervals).items()},
    }  # fmt: skip
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    for name, text in configs.items():
        (folder / name).write_text(text, "utf-8")
    commands = {
        "alertmanager": [
            programs["alertmanager"], f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager-data'}", f"--web.listen-address={other}",
            "--cluster.listen-address=",
        ],
        "prometheus": [
            programs["prometheus"], f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus-data'}", f"--web.listen-address={own}",
            "--storage.tsdb.retention.time=30d",
        ],
    }  # fmt: skip
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(_process(command, folder / f"{name}.log"))
            for name, command in commands.items()
        }
        for name, address in (("alertmanager", other), ("prometheus", own)):
            _wait_ready(name, running[name], f"http://{address}/-/ready", folder / f"{name}.log")
        yield Monitoring(f"http://{own}", f"http://{other}", folder, tuple(running.values()))


def program(name: str) -> str:
    """Where Prometheus or Alertmanager is.

    Raises:
        UsageError: It is not installed.
    """
    for called in _PROGRAMS[name]:
        if found := shutil.which(called):
            return found
    raise UsageError(f"{name} is not installed; on Debian: {_APT}")


@contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        # In a session of its own, so that Ctrl-C reaches this process alone, which ends both.
        process = subprocess.Popen(
            list(command), cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(name: str, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise EngineError(f"{name} ended before it was ready: {_said(log)}")
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310
                return
        except OSError:
            time.sleep(_POLL)
    raise EngineError(f"{name} was not ready within {_READY_SECONDS:g} s: {_said(log)}")


def _said(log: Path) -> str:
    """The last line of trouble in a log."""
    lines = log.read_text("utf-8", "replace").splitlines()
    trouble = [line for line in lines if "level=error" in line or "err=" in line] or lines
    return trouble[-1] if trouble else "it wrote nothing"


def _answer(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise EngineError(f"{url.partition('?')[0]}: {error}") from None


def _require(file: Path | None) -> None:
    """Refuse a file of a secret that is not there or empty."""
    if file is None:
        return
    try:
        empty = not file.read_text("utf-8").strip()
    except (OSError, ValueError):
        raise UsageError(f"{file}: it cannot be read") from None
    if empty:
        raise UsageError(f"{file}: it is empty")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((_HOST, 0))
        port: int = one.getsockname()[1]
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "make monitoring", description="Prometheus and Alertmanager on a running service."
    )
    parser.add_argument("--service", action="append", metavar="URL", help="a service; may repeat")
    parser.add_argument("--listener", metavar="URL", help="what `python run.py listen` answers on")
    parser.add_argument("--token-file", type=Path, help="with the listener's token")
    parser.add_argument("--slack-url-file", type=Path, help="with Slack's incoming webhook")
    parser.add_argument("--slack-channel", default="#tamis")
    for name in ("to", "from", "server", "user"):
        parser.add_argument(f"--mail-{name}", default="")
    parser.add_argument("--mail-password-file", type=Path)
    parser.add_argument("--data", type=Path, default=Path(".tamis/prometheus"))
    parser.add_argument("--port", type=int, default=9090, help="of Prometheus; 0: a free one")
    parser.add_argument("--alertmanager-port", type=int, default=9093, help="likewise")
    return parser


def _receivers(given: argparse.Namespace) -> Receivers:
    email = None
    if given.mail_to:
        if not (given.mail_from and given.mail_server):
            raise UsageError("--mail-to: needs --mail-from and --mail-server as well")
        email = Email(
            given.mail_to, given.mail_from, given.mail_server, given.mail_user,
            given.mail_password_file,
        )  # fmt: skip
    return Receivers(
        given.listener, given.token_file, given.slack_url_file, given.slack_channel, email
    )


def _leave(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Start both, say where they are, and wait."""
    given = _parser().parse_args(arguments)
    services = given.service or ["http://127.0.0.1:3000"]
    signal.signal(signal.SIGTERM, _leave)
    try:
        with started(
            given.data, services, _receivers(given), Intervals(), given.port,
            given.alertmanager_port,
        ) as running:  # fmt: skip
            print(f"Prometheus    {running.prometheus}/alerts")  # noqa: T201
            print(f"Alertmanager  {running.alertmanager}")  # noqa: T201
            print(f"Watched       {', '.join(services)}")  # noqa: T201
            print("Ctrl-C ends both.", flush=True)  # noqa: T201
            while all(process.poll() is None for process in running.processes):
                time.sleep(1.0)
            raise EngineError(f"one of them ended; its log is in {running.folder}")
    except KeyboardInterrupt:
        print("ended")  # noqa: T201
        return 0
    except TamisError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
