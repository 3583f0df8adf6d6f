"""A copy of what is linted, to be spoilt."""

import shutil
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
LINTED = ("deployment/k8s", "deployment/cloud_run", "deployment/compose", "deployment/images",
          "deployment/monitoring", ".github")  # fmt: skip


@pytest.fixture
def copy(tmp_path):
    """The linted files alone, in a folder of their own."""
    for name in LINTED:
        shutil.copytree(PROJECT / name, tmp_path / name)
    shutil.copy(PROJECT / "deployment/docker-compose.yml", tmp_path / "deployment")
    return tmp_path


class Spoiler:
    """Changes one place of one file, and fails where the place is not there."""

    def __init__(self, root):
        self.root = root

    def __call__(self, name, old, new):
        file = self.root / name
        text = file.read_text()
        assert old in text, f"{name} has no {old!r}"
        file.write_text(text.replace(old, new, 1))


@pytest.fixture
def spoil(copy):
    return Spoiler(copy)
