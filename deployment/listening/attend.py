"""Run a command for as long as somebody wants it: `python attend.py COMMAND...`.

The command and all that it starts end when it ends, when this is told to (SIGTERM), and when
standard input is closed, which also happens when whoever started this is killed. Needs nothing
but the standard library, so that it starts at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_SECONDS = 10.0


def attend(command: list[str]) -> int:
    """Run it; its exit code, 128 and the signal's number where one ended it."""
    asked, gone = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def listen() -> None:
        while os.read(0, 4_096):
            pass
        asked.set()

    def end() -> None:
        asked.wait()
        _signal(child.pid, signal.SIGTERM)
        if not gone.wait(GRACE_SECONDS):
            _signal(child.pid, signal.SIGKILL)

    for work in (listen, end):
        threading.Thread(target=work, daemon=True).start()
    code = child.wait()
    gone.set()
    _signal(child.pid, signal.SIGKILL)  # what it left behind of its group
    return code if code >= 0 else 128 - code


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(attend(sys.argv[1:]))
