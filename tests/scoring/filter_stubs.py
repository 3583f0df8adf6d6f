"""Scorers without a network, importable by spawned workers, and a filter to be killed."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from tamis.corpus.readers import list_shards
from tamis.corpus.settings import ExactSettings, FilterSettings, NearDuplicateSettings
from tamis.engine.local import LocalEngine
from tamis.scoring.filter_run import run_filter
from tamis.scoring.plan import SiftPlan

PLAIN = FilterSettings(
    exact=ExactSettings(enabled=False), near_duplicates=NearDuplicateSettings(enabled=False)
)
"""Score and decide, nothing else."""


@dataclass
class Scored:
    values: np.ndarray
    tokens: np.ndarray


def true_score(text: str) -> float:
    """0.00-5.00, decided by the text alone."""
    return xxhash.xxh32_intdigest(text.encode()) % 501 / 100


class Stub:
    """Scores by hash; ``model_dir`` is ``key=value,…``: delay (s a block), dies_once (a file)."""

    def __init__(self, model_dir: str) -> None:
        self.settings = dict(part.split("=", 1) for part in model_dir.split(",") if "=" in part)

    def score(self, texts):
        time.sleep(float(self.settings.get("delay", 0)))
        for text in texts:
            if text.startswith("POISON"):
                os.kill(os.getpid(), signal.SIGKILL)
            if text.startswith("DIE ONCE") and not Path(self.settings["dies_once"]).exists():
                Path(self.settings["dies_once"]).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        values = [np.nan if t.startswith("NAN") else true_score(t) for t in texts]
        return Scored(np.array(values), np.array([len(t.split()) for t in texts], dtype=np.int64))


def load_stub(model_dir: str) -> Stub:
    return Stub(model_dir)


def make_plan(out, model_dir: str = "stub", threshold: float = 3.0, **changes) -> SiftPlan:
    settings = {
        "scale": (0.0, 5.0),
        "model_version": "stub-1",
        "block": 16,
        "load": load_stub,
        "filter": PLAIN,
    }
    return SiftPlan(model_dir, str(out), threshold, **{**settings, **changes})


def quiet(state) -> None:
    """A progress that shows nothing."""


def main() -> None:
    corpus, out, workers, delay = sys.argv[1:]
    plan = make_plan(out, f"delay={delay}")
    run_filter(plan, list_shards([corpus]), engine=LocalEngine(int(workers)), progress=quiet)


if __name__ == "__main__":
    main()
