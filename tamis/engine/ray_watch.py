"""A process that waits for another to go, then ends the Ray that it had started.

Its argument is Ray's folder. It waits for the end of its standard input, which comes when
whoever holds the other end is gone, in whatever way. Ray's own processes would notice only
after a minute, and some never where Ray was still starting.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

MARK = "TAMIS_RAY_FOLDER"
"""Variable that all processes of a Ray of ours are started with, and no other."""
_TITLE = "ray::"
_PATIENCE = 10.0
"""Seconds to go on for; processes may just be starting others."""


def end(folder: str) -> None:
    """Kill all processes of Ray that are marked with a folder or log there, then remove it.

    Args:
        folder: Of Ray's logs and sockets.
    """
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        found = _processes(folder)
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1)
        shutil.rmtree(folder, ignore_errors=True)
        if not found and not Path(folder).exists():
            return


def _processes(folder: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            zombie = process.status() == psutil.STATUS_ZOMBIE
            if not zombie and _is_of(process, folder):
                found.append(process)
    return found


def _is_of(process: psutil.Process, folder: str) -> bool:
    # Processes that name themselves write over their environment, and psutil then sees nothing
    # of it; those of Ray that do have their logs open.
    environment = Path(f"/proc/{process.pid}/environ")
    if not environment.parent.exists():
        return bool(process.environ().get(MARK) == folder)
    if f"{MARK}={folder}".encode() in environment.read_bytes().split(b"\0"):
        return True
    return process.name().startswith(_TITLE) and any(
        _target(link).startswith(f"{folder}/") for link in Path(f"/proc/{process.pid}/fd").iterdir()
    )


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed in the meantime
        return ""


def main() -> None:
    """Wait for the end of the input, then ``end``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.read()
    end(sys.argv[1])


if __name__ == "__main__":
    main()
