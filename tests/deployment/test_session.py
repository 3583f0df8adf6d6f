"""A session never changes the stack that the user has active."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.program import PROJECT, run, small_task

pytestmark = pytest.mark.pipeline


def _zenml(config, code):
    environment = {
        **os.environ,
        "ZENML_CONFIG_PATH": str(config),
        "ZENML_ANALYTICS_OPT_IN": "false",
    }
    done = warm.python("-c", code, cwd=config, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_active_stack_and_its_configuration_stay_as_they_were(tmp_path):
    config = tmp_path / "their-zenml"
    config.mkdir()
    name = "from zenml.client import Client; print(Client().active_stack_model.name)"
    assert _zenml(config, name) == "default"
    before = (config / "config.yaml").read_bytes()
    outcome = run(tmp_path / "home", "status", ZENML_CONFIG_PATH=str(config))
    assert outcome.code == 0, outcome.err
    assert (config / "config.yaml").read_bytes() == before
    assert _zenml(config, name) == "default"


def test_a_killed_run_leaves_the_active_stack_alone(tmp_path):
    config = tmp_path / "their-zenml"
    task = small_task(tmp_path)
    environment = {
        **os.environ,
        "ZENML_CONFIG_PATH": str(config),
        "TAMIS_HOME": str(tmp_path / "h"),
    }
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / "run.py"), "train", "--task", str(task)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        if "validate" in line:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    name = "from zenml.client import Client; print(Client().active_stack_model.name)"
    assert _zenml(config, name) == "default"
    assert Path(config / "config.yaml").is_file()
