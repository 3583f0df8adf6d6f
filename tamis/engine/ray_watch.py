"""A process that waits for another to go, then ends the Ray that it had started.

It reads one line from its standard input: ``{"processes": [[pid, created], ...], "folder": path}``
and then waits for the end of the file, which comes when whoever holds the other end is gone.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_PATIENCE = 5.0
"""Seconds for processes to go and for the last files to be written."""


def end(processes: list[list[float]], folder: str) -> None:
    """Kill processes and all below them, then remove their folder.

    Args:
        processes: Process ids, each with the time of its creation so that it is known again.
        folder: Of Ray's logs and sockets.
    """
    doomed: dict[int, psutil.Process] = {}
    for pid, created in processes:
        try:
            process = psutil.Process(int(pid))
            if process.create_time() == created:
                doomed |= {child.pid: child for child in process.children(recursive=True)}
                doomed[process.pid] = process
        except psutil.Error:
            continue
    for process in doomed.values():
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(list(doomed.values()), timeout=_PATIENCE)
    until = time.monotonic() + _PATIENCE
    while Path(folder).exists() and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)  # a dying worker may write its last line
        time.sleep(0.1)


def main() -> None:
    """Wait for the end of the input, then ``end``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    first = sys.stdin.readline()
    sys.stdin.read()
    if first:
        end(**json.loads(first))


if __name__ == "__main__":
    main()
