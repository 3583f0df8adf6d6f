"""What a run of the monitor leaves behind, without one: fake_run.py FOLDER TRIGGER REQUEST.

FOLDER/fail: it ends with 1. FOLDER/hold: it waits until that is gone. FOLDER/retrains: it says
that it retrained.
"""

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path


def entry(ledger, trigger, request, number, **more):
    ledger.mkdir(parents=True, exist_ok=True)
    kind, _, name = trigger.partition(":")
    at = datetime.now(timezone.utc)  # noqa: UP017
    told = {"at": at.isoformat(), "action": "ended", "request": request, "run": "000001",
            "trigger": {"kind": kind, "name": name}} | more  # fmt: skip
    staged = ledger / f"{number}.partial"
    staged.write_text(json.dumps(told))
    staged.rename(ledger / f"{at:%Y%m%dT%H%M%S%f}Z-{os.getpid():015d}{number}.json")


def main():
    folder, trigger, request = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    child = subprocess.Popen([sys.executable, "-S", "-E", "-c", "import time; time.sleep(60)"])
    with (folder / "runs").open("a") as file:
        file.write(json.dumps([trigger, request, os.getpid(), child.pid]) + "\n")
    sys.stdout.write("a line of the run\n")
    sys.stdout.flush()
    while (folder / "hold").exists():
        time.sleep(0.005)
    if (folder / "fail").exists():
        sys.exit(1)
    ledger = folder / "ledger/toy/retrains/ledger"
    if (folder / "retrains").exists():
        entry(ledger, trigger, request, 1, action="decided", passed=True, fingerprint="f")
    entry(ledger, trigger, request, 2, end="promoted", passed=True)


if __name__ == "__main__":
    main()
