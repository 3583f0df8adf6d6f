import json

import numpy as np
import pytest

from tamis.corpus.split import split
from tamis.models.train import train
from tamis.task import Task
from tests.tiny import BINARY, easy_set, save_tiny_bert, tiny_task


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="session")
def fitted(backbone, tmp_path_factory):
    """Classifiers by name, each trained once."""
    folder, made = tmp_path_factory.mktemp("checkpoints"), {}

    def fit(name):
        if name not in made:
            task, data = _task(name, backbone)
            sides = split(data, task.target, task.split, task.seed)
            made[name] = train(task, data, sides, folder / name).classifier
        return made[name]

    return fit


def _task(name, backbone):
    target = BINARY if name in ("binary", "linear binary") else None
    size = 120 if name in ("linear", "linear binary") else 60
    data = easy_set(size, target or {"kind": "ordinal"})
    if name.startswith("linear"):
        task = tiny_task(backbone, target)
        raw = task.model_dump(mode="json") | {"model": {"family": "linear"}}
        return Task.model_validate_json(json.dumps(raw)), data
    heads = {"kernel": ["kernel"], "mlp": ["mlp"]}.get(name, ["ridge"])
    pooling = {"max": ["max"], "cls": ["cls"]}.get(name, ["mean"])
    text = {"max_tokens": 64}
    if name == "tail":
        text = {"max_tokens": 24, "long": "head_tail"}
    elif name == "windows":
        text = {"max_tokens": 16, "long": "windows_mean"}
    elif name == "prepared":
        text = {"max_tokens": 64, "preparation": ["urls", "normalise"]}
    task = tiny_task(
        backbone, target, text=text, model={"frozen": {"heads": heads, "poolings": pooling}}
    )
    return task, data


@pytest.fixture
def rng():
    return np.random.default_rng(0)
