"""Work for Ray tasks, models for its actors, and two drivers."""

import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tamis.engine.ray import RayEngine
from tamis.errors import ConfigError, ModelError

state = {"begun": []}


def begin(label):
    state["begun"].append(label)


def begun(item):
    time.sleep(0.02)
    return os.getpid(), tuple(state["begun"])


def bad_key(item):
    raise ConfigError("task.yaml", "text.max_tokens", 3, "16 or more")


class Stubborn(Exception):
    def __reduce__(self):
        raise TypeError("cannot be sent")


def stubborn(item):
    raise Stubborn("stays here")


def running(item):
    folder, number = item
    mine = Path(folder, f"{number}")
    mine.touch()
    time.sleep(0.1)
    seen = len(list(Path(folder).iterdir()))
    mine.unlink()
    return seen


def first_returns(item):
    """Item 0 returns when the other has begun, which then stays."""
    folder, number = item
    if number:
        Path(folder, str(os.getpid())).touch()
        time.sleep(300)
    while not list(Path(folder).iterdir()):
        time.sleep(0.01)


@dataclass
class Said:
    values: np.ndarray
    tokens: np.ndarray
    pid: int


class Model:
    """Scores by length; ``model_dir`` is where it notes that it died."""

    def __init__(self, model_dir):
        self.marker = Path(model_dir, "died")

    def score(self, texts):
        for text in texts:
            if text == "DIE" or (text == "DIE ONCE" and not self.marker.exists()):
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if text == "BUG":
                raise ValueError("unforeseen")
        lengths = np.array([len(text) for text in texts])
        return Said(lengths / 2, lengths, os.getpid())


def load_model(model_dir):
    return Model(model_dir)


def load_damaged(model_dir):
    raise ModelError(f"{model_dir} is damaged")


def take_scorer(load, model_dir):
    state["scorer"] = load(model_dir)


def scored(texts):
    """What the scorer of this worker says, the scorer's type, and where that was."""
    said = state["scorer"].score(texts)
    return said, type(state["scorer"]).__name__, os.getpid()


def heavy_modules(item):
    return [name for name in ("torch", "transformers", "sklearn") if name in sys.modules]


def sent_sources(item):
    """The package that the driver sent, and all files in it."""
    (place,) = [path for path in sys.path if "py_modules_files" in path]
    folder = Path(place, "tamis")
    return str(folder), [path.relative_to(place).as_posix() for path in Path(place).rglob("*")]


def killed(folder):
    """Says what it has started, and works until it is killed."""
    import psutil

    from tests.engine.engine_stubs import sleep_long

    tasks, started = Path(folder, "tasks"), Path(folder, "started")
    tasks.mkdir()
    started.mkdir()
    with RayEngine(workers=2) as engine:
        engine.place(load_model, folder)
        for process in psutil.Process().children(recursive=True):
            (started / str(process.pid)).touch()
        sys.stdout.write(f"{engine._session._folder}\n")
        sys.stdout.flush()
        engine.run([(str(tasks), n) for n in range(2)], sleep_long, print)


def joined(address, model, out):
    """Joins a cluster, and takes the model away once it was placed."""
    import json

    from tamis.models.classifier import load_classifier

    with RayEngine(address, workers=1) as engine:
        load = engine.place(load_classifier, model)
        shutil.rmtree(model)
        found = []
        texts = ["proof lemma", "cheap sale click"]
        engine.run(
            [texts],
            scored,
            lambda item, result: found.append(result[0].values.tolist()),
            initializer=take_scorer,
            initargs=(load, model),
        )
        engine.run([0], sent_sources, lambda item, result: found.extend(result))
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    {"killed": killed, "joined": joined}[sys.argv[1]](*sys.argv[2:])
