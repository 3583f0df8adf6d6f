"""How often detectors of drift find what changed in windows of real text, and cry wolf where not.

Every detector sees the same windows (``drift_windows.py``); what each is, and what it is given, is
in ``drift_detectors.py``. Writes ``bench/drift.json`` and ``docs/images/drift.png``. Verdicts are
kept in the folder as they come: a run that was interrupted goes on where it was. Run as
``make bench-drift``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.drift_corpus import default_folder, load_corpus  # noqa: E402
from bench.drift_figures import WANTED, Turn, missed, picture, rows_of, table  # noqa: E402
from bench.drift_windows import NONE, REFERENCE, drawn  # noqa: E402

PACKAGES = ("evidently", "scikit-learn", "scipy", "numpy", "torch", "gensim", "emoji")
SIZES = (200, 500, 2_000)
DEFAULT = ("topic", "language", "boilerplate", "noise", "label")
SHARES = (0.05, 0.1, 0.2, 0.4)
DECIDING = ("alarm", "calibration", "detectors", "drift*", "performance", "permutation", "samples",
            "settings")  # fmt: skip
"""Modules of ``tamis.monitoring`` that verdicts come from."""
TOGETHER = 5
"""Windows in one turn: what is lost at most when a run is interrupted."""


@dataclass(frozen=True)
class Cell:
    """Some windows of one kind beside one reference."""

    seed: int
    window: int
    shift: str
    share: float
    numbers: tuple[int, ...]


def cells(
    sizes: Sequence[int], shifts: Sequence[str], unchanged: int, repeats: int, references: int
) -> list[Cell]:
    """All turns; first some of every kind, so that a part of a run already says something.

    Windows of 2,000 take twice as long, and are half as many; what is to be reached is measured
    on as many windows as false alarms are.
    """
    # Windows whose labels came have a baseline of their own.
    kinds = [(NONE, 0.0), *(("label", 0.0) for shift in shifts if shift == "label")]
    kinds += [(shift, share) for shift in shifts for share in SHARES]
    exact = {(size, shift, share) for size, shift, share, _ in WANTED}
    found = []
    for size in sizes:
        for shift, share in kinds:
            much = shift == NONE or (size, shift, share) in exact
            count = unchanged if much else repeats if size < 2_000 else max(1, repeats // 2)
            for seed in range(references):
                numbers = range(seed, count, references)
                found += [
                    Cell(seed, size, shift, share, tuple(numbers[at : at + TOGETHER]))
                    for at in range(0, len(numbers), TOGETHER)
                ]
    return sorted(found, key=lambda cell: (cell.numbers[0] // references, cell.seed))


def turn(cell: Cell, folder: Path, seed: int) -> Turn:
    """Verdicts of every detector on some windows."""
    from bench.drift_detectors import judged
    from tamis.monitoring.settings import MonitorSettings

    drawing = drawn(seed + cell.seed, folder)
    found: dict[str, Any] = {**asdict(cell), "alarms": {}, "p": {}, "cpu_s": {}}
    for number in cell.numbers:
        window = drawing.draw(cell.shift, cell.share, cell.window, number)
        for name, judge in _judges(seed + cell.seed, folder, MonitorSettings()).items():
            verdicts, seconds = judged(judge, window, number)
            found["cpu_s"].setdefault(name, []).append(round(seconds, 4))
            for detector, verdict in verdicts.items():
                found["alarms"].setdefault(detector, []).append(int(verdict.alarm))
                if verdict.p is not None:
                    found["p"].setdefault(detector, []).append(verdict.p)
    return found


@cache
def _judges(seed: int, folder: Path, settings: Any) -> Any:
    from bench.drift_detectors import judges

    return judges(drawn(seed, folder).reference, settings)


def code() -> str:
    """A hash over what decides verdicts; those of other code are not taken up again."""
    names = [f"tamis/monitoring/{name}.py" for name in DECIDING]
    files = sorted(file for name in ("bench/drift_[cdw]*.py", *names) for file in ROOT.glob(name))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def kept(journal: Path) -> list[Turn]:
    """Turns of an earlier run; a line that was cut is left out."""
    found = []
    for line in journal.read_text("utf-8").splitlines() if journal.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def measure(wanted: Sequence[Cell], journal: Path, folder: Path, seed: int) -> list[Turn]:
    """Verdicts on all windows, those that are in the journal already and the rest."""
    done = {_key(each): each for each in kept(journal)}
    found = [done[_key(asdict(cell))] for cell in wanted if _key(asdict(cell)) in done]
    rest = [cell for cell in wanted if _key(asdict(cell)) not in done]
    windows, start, ready = sum(len(cell.numbers) for cell in rest), time.monotonic(), 0
    if found:
        _say(f"{len(found)} of {len(wanted)} turns are there already")
    with journal.open("a", encoding="utf-8") as file, ExitStack() as stack:
        pool = _pool()
        # What is waiting is given up when this ends early; without that it would all be computed.
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting = {pool.submit(turn, cell, folder, seed): cell for cell in rest}
        for number, future in enumerate(as_completed(waiting), 1):
            result = future.result()
            file.write(json.dumps(result) + "\n")
            file.flush()
            found.append(result)
            ready += len(waiting[future].numbers)
            if number % 20 == 0 or number == len(rest):
                spent = time.monotonic() - start
                left = spent / ready * (windows - ready)
                _say(f"{ready:,} of {windows:,} windows, {spent:.0f} s, {left:.0f} s left")
    return found


def _key(cell: Any) -> tuple[Any, ...]:
    names = ("seed", "window", "shift", "share")
    return (*(cell[name] for name in names), tuple(cell["numbers"]))


def _pool() -> Executor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(2, mp_context=context, initializer=_alone)


def _alone() -> None:
    """One thread a process, since those of BLAS would wait for each other; gone with the parent."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def facts(references: int) -> dict[str, Any]:
    """What it ran on, and with what."""
    from tamis.machine import machine

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "reference": REFERENCE,
        "references": references,
    }


def _progress() -> Any:
    last = [time.monotonic()]

    def told(done: int, total: int) -> None:
        if time.monotonic() - last[0] > 10 or done == total:
            last[0] = time.monotonic()
            _say(f"encoded {done:,} of {total:,} documents")

    return told


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def lines(rows: Sequence[Any]) -> list[str]:
    """Tables for people, and what was missed."""
    found: list[str] = []
    for size in dict.fromkeys(row["window"] for row in rows):
        found += ["", f"Windows of {size:,} documents:", "", *table(rows, size)]
    return [*found, "", *(f"missed: {line}" for line in missed(rows))]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40, help="Windows of each kind.")
    parser.add_argument("--unchanged", type=int, default=200, help="Windows without a shift.")
    parser.add_argument("--windows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--shifts", nargs="+", default=DEFAULT)
    parser.add_argument("--references", type=int, default=20, help="Drawn anew so often.")
    parser.add_argument("--seed", type=int, default=0, help="Of the first reference.")
    parser.add_argument("--folder", type=Path, help="Of the encoded documents and the verdicts.")
    parser.add_argument(
        "--quick", action="store_true", help="Few windows; results stay in the folder."
    )
    parser.add_argument("--fresh", action="store_true", help="Take up no earlier run.")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("DO_NOT_TRACK", "1")  # Evidently's
    from tamis.monitoring.settings import MonitorSettings

    folder = (given.folder or default_folder()).resolve()
    corpus = load_corpus(folder, _progress()).folder.name
    if given.quick:
        given.repeats, given.unchanged, given.references, given.windows = 6, 16, 2, (500,)
    wanted = cells(given.windows, given.shifts, given.unchanged, given.repeats, given.references)
    journal = folder / f"verdicts-{corpus}-{code()}-{given.seed}.jsonl"
    if given.fresh:
        journal.unlink(missing_ok=True)
    turns = measure(wanted, journal, folder, given.seed)
    rows = rows_of(turns, MonitorSettings())
    print("\n".join(lines(rows)))
    about = facts(given.references)
    result = [row | about for row in rows]
    quick = given.quick
    output = given.output or (folder if quick else ROOT / "bench") / "drift.json"
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    picture(rows, given.picture or (folder if quick else ROOT / "docs" / "images") / "drift.png")


if __name__ == "__main__":
    main()
