"""A listener as a process of its own: listener.py FOLDER PORT."""

import os
import sys
from pathlib import Path

from deployment.listening.server import listen
from deployment.listening.worker import Command

TOKEN = "a-token-of-the-tests-7f21"
RUN = Path(__file__).with_name("fake_run.py")


def main():
    folder = Path(sys.argv[1])

    def run(trigger, request):
        return [sys.executable, "-S", "-E", str(RUN), str(folder), trigger, request]

    command = Command(run, folder, dict(os.environ))
    listen(
        "toy", TOKEN, folder, str(folder / "ledger"), command, "127.0.0.1", int(sys.argv[2]), 0.01
    )


if __name__ == "__main__":
    main()
