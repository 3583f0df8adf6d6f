"""What a piece of code prints, and the memory that it takes, in a process of its own."""

import subprocess
import sys

# ``ru_maxrss`` would be of no use: it begins with the parent's memory at the time of the fork.
PEAK = """
def peak_mb():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
"""


def printed(code, *arguments, typed="", seconds=120):
    """Lines that code prints which may call ``peak_mb``; whatever ends the process fails."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK + code, *map(str, arguments)],
        input=typed,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()
