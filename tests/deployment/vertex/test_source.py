import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from deployment.vertex import source
from deployment.vertex.source import files, only_source
from tests.deployment.vertex.test_options import own_zenml

PROJECT = Path(__file__).resolve().parents[3]
FOLDERS = ("deployment", "materializers", "pipelines", "steps", "tamis")
CODE = (*FOLDERS, "cli")
DEMO = "data/demo_annotations.jsonl"
PLANTED = "planted, and not to be taken away"
SECRETS = {
    "key.json": PLANTED,
    ".env": PLANTED,
    "deployment/key.json": PLANTED,
    "deployment/.env": PLANTED,
    "deployment/terraform/terraform.tfstate": PLANTED,
    "deployment/terraform/secret.auto.tfvars": PLANTED,
    "steps/notes.ipynb": PLANTED,
    "notebooks/look.ipynb": PLANTED,
    "tamis/weights.safetensors": PLANTED,
    "tamis/__pycache__/task.cpython-311.pyc": PLANTED,
    "data/documents.jsonl": PLANTED,
    "data/private/labels.parquet": PLANTED,
    "output/part-00000.jsonl": PLANTED,
    ".tamis/mlflow.db": PLANTED,
    "tests/tests_of_mine.py": PLANTED,
    "setup.py": PLANTED,
    "tamis/.ipynb_checkpoints/task-checkpoint.py": PLANTED,
    "steps/.venv/lib/module.py": PLANTED,
    "deployment/terraform/.terraform/modules/network/main.py": PLANTED,
}
IGNORED = {".venv/lib/python3.11/site-packages/other/module.py": PLANTED}
IMPORTS = """
import json, sys
from pathlib import Path
from zenml.utils import source_utils
source_utils.set_custom_source_root(str(Path.cwd()))
import pipelines.distillation, pipelines.filtering, pipelines.retraining, pipelines.training
import steps.caching
here = Path.cwd()
names = {name.split(".")[0] for name in NAMES}
ours = {name: module.__file__ for name, module in sys.modules.items()
        if name.split(".")[0] in names and module.__file__}
policies = {name: list(value.file_dependencies) for name, value in vars(steps.caching).items()
            if name.isupper() and hasattr(value, "file_dependencies")}
print(json.dumps([sorted(ours), [f for f in ours.values() if not Path(f).is_relative_to(here)],
                  policies]))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the project with things in it that must not travel."""
    root = tmp_path_factory.mktemp("project")
    for folder in (*CODE, "configs", "docs"):
        skipped = shutil.ignore_patterns("__pycache__", ".terraform")
        shutil.copytree(PROJECT / folder, root / folder, ignore=skipped)
    for file in ("run.py", ".gitignore", "pyproject.toml", DEMO):
        (root / file).parent.mkdir(exist_ok=True)
        shutil.copy2(PROJECT / file, root / file)
    for name, text in (SECRETS | IGNORED).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def project(copied, monkeypatch):
    monkeypatch.setattr(source, "PROJECT", copied)
    return copied


@pytest.fixture(scope="module")
def code_utils(tmp_path_factory):
    """ZenML's module, imported with a configuration of its own."""
    with own_zenml(tmp_path_factory.mktemp("zenml")):
        from zenml.utils import code_utils

        yield code_utils


@pytest.fixture
def archive(project, code_utils, tmp_path):
    """What ZenML uploads of the project while a session is open."""
    path = tmp_path / "code.tar.gz"
    with only_source(), path.open("wb") as file:
        code_utils.CodeArchive(root=str(project)).write_archive(file)
    return path


def uploaded(path):
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)
    return {member.name for member in members}


def test_source_travels_and_nothing_else(archive, project):
    names = uploaded(archive)
    assert not names & {*SECRETS, *IGNORED}
    assert names - {DEMO} == {
        path.relative_to(PROJECT).as_posix()
        for folder in FOLDERS
        for path in (PROJECT / folder).rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(PROJECT).parts)
    }
    assert DEMO in names
    assert PLANTED.encode() not in b"".join((project / name).read_bytes() for name in names)
    assert archive.stat().st_size < 2**20


def test_files_are_named_by_their_place_in_the_project(project):
    found = files()
    assert found["steps/model.py"] == str(project / "steps" / "model.py")
    assert found["tamis/scoring/prices.py"] == str(project / "tamis" / "scoring" / "prices.py")
    assert list(found) == sorted(found)


@pytest.mark.parametrize("git", [False, True], ids=["no-git", "git"])
def test_zenml_by_itself_would_take_keys_and_data(copied, code_utils, tmp_path, git):
    root = tmp_path / "project"
    shutil.copytree(copied, root)
    if git:
        bare = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        subprocess.run(["git", "init", "-q", str(root)], check=True, env=bare)
    taken = set(code_utils.CodeArchive(root=str(root)).get_files())
    assert {"key.json", ".env", "deployment/key.json", "data/documents.jsonl"} <= taken
    assert bool(taken & {*IGNORED}) is not git


def test_zenmls_own_way_is_back_after_the_block(code_utils):
    from zenml.pipelines import pipeline_definition

    original = code_utils.CodeArchive
    with only_source():
        changed = pipeline_definition.code_utils.CodeArchive
        assert changed is not original and issubclass(changed, original)
    assert code_utils.CodeArchive is original
    with pytest.raises(RuntimeError, match="in the block"), only_source():
        raise RuntimeError("in the block")
    assert code_utils.CodeArchive is original


def test_the_pipelines_and_steps_are_imported_from_what_travels(archive, tmp_path):
    there = tmp_path / "there"
    with tarfile.open(archive) as packed:
        packed.extractall(there, filter="data")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "ZENML", "COV"))
    } | {"ZENML_CONFIG_PATH": str(tmp_path / "zenml"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    code = f"NAMES = {CODE + ('tests', 'run')!r}\n{IMPORTS}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=there, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours, elsewhere, policies = json.loads(done.stdout.splitlines()[-1])
    assert not elsewhere
    assert {"steps.data", "steps.distill", "steps.filter", "steps.model", "steps.retrain"} <= {
        *ours
    }
    # A file that did not travel would be missing from the key of a cached result.
    assert len(policies) >= 4 and DEMO in policies["CORPUS"]
    for names in policies.values():
        assert names and all((there / name).is_file() for name in names)
    assert policies == policies_here(tmp_path)


def policies_here(folder):
    """What cached results depend on, as this machine sees it."""
    with own_zenml(folder / "zenml-here"):
        from steps import caching

    return {
        name: list(value.file_dependencies)
        for name, value in vars(caching).items()
        if name.isupper() and hasattr(value, "file_dependencies")
    }


def test_whatever_is_imported_anywhere_in_it_travels_too(project):
    found = files()
    modules = {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
               for name in found if name.endswith(".py")}  # fmt: skip
    for name, path in found.items():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                wanted = [node.module]
            else:
                continue
            ours = {each for each in wanted if each.split(".")[0] in (*CODE, "bench", "tests")}
            assert ours <= modules, f"{name} imports {ours - modules}"
