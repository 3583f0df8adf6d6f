"""Work for spawned processes, and a driver to be killed."""

import os
import signal
import sys
import time
from pathlib import Path

from tamis.engine.local import run_shards
from tamis.errors import ModelError

state = {}


def prepare(value):
    state["value"] = value


def refuse():
    raise ModelError("this model is damaged")


def double(item):
    return 2 * item + state.get("value", 0)


def note_pid(item):
    folder, number = item
    Path(folder, f"{number}-{os.getpid()}").touch()
    time.sleep(0.05)
    return os.getpid()


def die_once(item):
    marker, number = item
    if number == 3 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_on_three(item):
    if item == 3:
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return item


def die_beside_slow_ones(item):
    time.sleep(0.15 if item == 3 else 0.4)
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def storage_fails(item):
    folder, number, times = item
    tries = len(list(Path(folder).glob(f"{number}-*")))
    Path(folder, f"{number}-{tries}").touch()
    if tries < times:
        raise OSError("the network is gone")
    return number


def bug(item):
    raise ValueError("unforeseen")


def sleep_long(item):
    folder, _ = item
    Path(folder, str(os.getpid())).touch()
    time.sleep(120)


if __name__ == "__main__":
    run_shards([(sys.argv[1], n) for n in range(4)], sleep_long, print, workers=2)
