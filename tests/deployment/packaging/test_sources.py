"""What a module needs, found by reading."""

import pytest

from deployment.packaging.sources import sources_of
from deployment.stacks import PROJECT

FILES = {
    "deployment/__init__.py": "",
    "deployment/service.py": """
from __future__ import annotations
import os
from typing import TYPE_CHECKING
import bentoml
from deployment.serving.app import create
if TYPE_CHECKING:
    import mlflow
    from deployment.registry import Registry
""",
    "deployment/registry.py": "import mlflow",
    "deployment/serving/__init__.py": "",
    "deployment/serving/app.py": """
from tamis import model
def create():
    import orjson
    from tamis.heavy import run
    return lambda: __import__
""",
    "deployment/serving/page/page.js": "1",
    "deployment/serving/page/README.md": "",
    "deployment/serving/page/.secret": "",
    "deployment/serving/__pycache__/app.pyc": "",
    "tamis/__init__.py": "",
    "tamis/model.py": "import numpy as np",
    "tamis/heavy.py": "import torch\ndef run():\n    import gensim.models\n",
    "tamis/apart.py": "import pandas",
    "cli/app.py": "import typer",
}


@pytest.fixture
def found(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return sources_of(tmp_path)


def test_only_what_is_reached_goes_along(found):
    assert set(found.files) == {
        "deployment/__init__.py", "deployment/service.py", "deployment/serving/__init__.py",
        "deployment/serving/app.py", "deployment/serving/page/page.js", "tamis/__init__.py",
        "tamis/model.py", "tamis/heavy.py",
    }  # fmt: skip


def test_packages_are_told_apart_by_when_they_are_imported(found):
    assert found.always == {"bentoml", "numpy"}
    assert found.with_modules == {"torch"}
    assert found.in_functions == {"orjson", "gensim"}


def test_a_module_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"deployment\.service"):
        sources_of(tmp_path)


def test_the_service_starts_without_what_is_heavy_and_takes_no_tool_along():
    found = sources_of(PROJECT)
    assert not found.always & {"torch", "transformers", "zenml", "mlflow", "pandas", "sklearn"}
    assert not (found.with_modules | found.in_functions) & {"zenml", "mlflow", "ray"}
    assert not [name for name in found.files if name.startswith(("cli/", "steps/", "pipelines/"))]
    for name in (
        "deployment/service.py",
        "tamis/serving/model.py",
        "deployment/serving/page/page.js",
    ):
        assert name in found.files
