"""Become a service process that outlives its starter: python -m deployment.releasing.launch RECORD.

The process holds a lock for as long as it lives, also after it has become another program. So
nobody takes a dead process for a living one, or another one's number for it, and of two starters
one wins.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path


def main(record: Path) -> None:
    """Take the lock, write down who we are, become the program; end where another has the lock.

    Args:
        record: JSON with ``command``, ``cwd`` and ``port``; lock and identity go beside it.
    """
    import psutil  # type: ignore[import-untyped]

    lock = os.open(record.parent / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    os.set_inheritable(lock, True)
    wanted = json.loads(record.read_text("utf-8"))
    identity = {
        "pid": os.getpid(), "created": psutil.Process().create_time(), "port": wanted["port"],
    }  # fmt: skip
    staged = record.parent / "identity.json.partial"
    staged.write_text(json.dumps(identity), "utf-8")
    staged.replace(record.parent / "identity.json")
    os.chdir(wanted["cwd"])
    os.execvp(wanted["command"][0], wanted["command"])  # noqa: S606


if __name__ == "__main__":
    main(Path(sys.argv[1]))
