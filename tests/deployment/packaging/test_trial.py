"""The environment that a package is tried in holds what is locked, and nothing else."""

import subprocess

import pytest

from deployment.packaging.build import REQUIREMENTS
from deployment.packaging.closure import closure, read_pins
from deployment.packaging.trial import link_environment


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    names = {"opentelemetry-sdk", "pyyaml", "python-dateutil"}
    pins = closure(names, read_pins(REQUIREMENTS))
    return link_environment(pins, tmp_path_factory.mktemp("linked") / "venv")


def says(python, code):
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, env={})
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_what_is_locked_is_there_with_what_it_requires(python):
    code = "import yaml, six, dateutil, opentelemetry.sdk.trace; print(yaml.__file__)"
    assert says(python, code).startswith(str(python.parent.parent))
    code = "from importlib.metadata import version; print(version('pyyaml'))"
    assert says(python, code) == read_pins(REQUIREMENTS)["pyyaml"].version


@pytest.mark.parametrize("name", ["torch", "numpy", "pip", "opentelemetry.util.http"])
def test_what_is_not_locked_is_not(python, name):
    assert says(python, f"import {name}").startswith("ModuleNotFoundError")
