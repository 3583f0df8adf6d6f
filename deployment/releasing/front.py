"""The nginx of one task on this machine: started, reloaded, asked what it does, ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from deployment.releasing.nginx import STATE, Front, Split, configuration
from deployment.releasing.processes import replace
from tamis.errors import EngineError

LOG = "requests.log"
_POLL = 0.02
_RELOAD_SECONDS = 15.0
_AGREE = 3
"""Answers in a row from the new configuration: old workers have stopped to take connections."""


class Nginx:
    """One nginx, with a folder of its own as prefix.

    Args:
        folder: The prefix.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def apply(self, front: Front, split: Split) -> None:
        """Have nginx do this; starts it where it does not run. Nothing happens if it does already.

        Raises:
            EngineError: There is no nginx, it refuses the configuration, or the port is taken.
        """
        now = self.asked(front.control)
        running = self.master() is not None
        if running and now is not None:
            same = configuration(front, split, now["generation"])
            if _read(self.folder / "nginx.conf") == same:
                return
        self._folders()
        generation = time.time_ns()
        replace(self.folder / "next.conf", configuration(front, split, generation))
        self._run("-t", "-c", "next.conf")
        (self.folder / "next.conf").replace(self.folder / "nginx.conf")
        if running:
            self._signal(signal.SIGHUP)
        else:
            self._end_orphans(front.control)
            self._run("-c", "nginx.conf")
        self._wait_for(front.control, generation)

    def asked(self, control: int) -> dict[str, Any] | None:
        """What the configuration in force says of itself; None where nginx does not run."""
        if self.master() is None:
            return None
        try:
            url = f"http://127.0.0.1:{control}{STATE}"
            with urllib.request.urlopen(url, timeout=2) as answer:
                found = json.loads(answer.read(65_536))
        except (OSError, urllib.error.URLError, ValueError):
            return None
        return found if isinstance(found, dict) and "generation" in found else None

    def master(self) -> int | None:
        """The master's process, if it is ours: a number may have gone to another program."""
        import psutil  # type: ignore[import-untyped]

        try:
            pid = int((self.folder / "nginx.pid").read_text("utf-8"))
            process = psutil.Process(pid)
            line = " ".join(process.cmdline())
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        ours = "nginx" in line and f"-p {self.folder} " in f"{line} "
        return pid if ours and alive else None

    def drain(self, seconds: float) -> None:
        """Wait until workers of earlier configurations have given their last answers."""
        until = time.monotonic() + seconds
        while self._leaving() and time.monotonic() < until:
            time.sleep(_POLL)

    def end(self, seconds: float = 10.0) -> None:
        """End it, once requests in flight are answered."""
        if self.master() is None:
            return
        self._signal(signal.SIGQUIT)
        until = time.monotonic() + seconds
        while self.master() is not None:
            if time.monotonic() > until:
                self._signal(signal.SIGTERM)
            time.sleep(_POLL)

    def _end_orphans(self, control: int) -> None:
        """Workers whose master was killed go on, and keep the port from the next one."""
        import psutil

        left = [
            process
            for process in psutil.process_iter(["name"])
            if process.info["name"] == "nginx" and _listens(process, control)
        ]
        for process in left:
            process.send_signal(signal.SIGQUIT)
        psutil.wait_procs(left, timeout=5, callback=None)
        for process in left:
            if process.is_running():
                process.kill()

    def _leaving(self) -> bool:
        import psutil

        master = self.master()
        if master is None:
            return False
        try:
            children = psutil.Process(master).children()
            return any("shutting down" in " ".join(child.cmdline()) for child in children)
        except psutil.Error:
            return False

    def _signal(self, number: int) -> None:
        master = self.master()
        if master is not None:
            os.kill(master, number)

    def _wait_for(self, control: int, generation: int) -> None:
        until, agreed = time.monotonic() + _RELOAD_SECONDS, 0
        while agreed < _AGREE:
            now = self.asked(control)
            agreed = agreed + 1 if now is not None and now["generation"] == generation else 0
            if time.monotonic() > until:
                raise EngineError(f"nginx did not take its configuration: {self._said()}")
            if not agreed:
                time.sleep(_POLL)

    def _folders(self) -> None:
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (self.folder / "temp" / kind).mkdir(parents=True, exist_ok=True)

    def _run(self, *arguments: str) -> None:
        command = [binary(), "-p", str(self.folder), "-e", "error.log", *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, timeout=30, check=False, cwd="/",
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr.strip() or self._said()).splitlines()
            raise EngineError(f"nginx refuses to start: {said[0][:500] if said else 'no reason'}")

    def _said(self) -> str:
        lines = _read(self.folder / "error.log")[-2_000:].strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _listens(process: Any, port: int) -> bool:
    import psutil

    try:
        found = process.net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


def binary() -> str:
    """Where nginx is.

    Raises:
        EngineError: It is not installed.
    """
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise EngineError("--target local: nginx is not installed; `apt-get install nginx-light`")
    return found


def worker_user() -> str | None:
    """Who the workers run as: nobody in particular where root starts nginx, else who starts it."""
    if os.geteuid() != 0:
        return None
    import grp
    import pwd

    user = pwd.getpwnam("nobody")
    return f"{user.pw_name} {grp.getgrgid(user.pw_gid).gr_name}"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
