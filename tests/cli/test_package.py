"""The verb `package`, with a registry and a build that are given."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cli.app import app
from deployment.packaging.record import Package, Sizes
from tamis.errors import UsageError
from tests.program import small_task

MADE = Package(
    task="small", version="3", digest="d" * 64, registered="2026-01-01T00:00:00+00:00",
    backend="onnx-int8", reason="It passes.", margin=0.1, threshold=2.5, code="0.1.0+a",
    image="python:3@sha256:0", packages=99, hashed=True, bento="small:3-abc",
    packed="2026-01-01T00:00:00+00:00", tried=True, inputs="i" * 64, fingerprint="f" * 64,
    files={}, sizes=Sizes(code=1, model=2_000_000, packages=300_000_000),
)  # fmt: skip


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    asked = []

    @contextmanager
    def session(*_, **__):
        yield SimpleNamespace(home=tmp_path / "home")

    def get(self, task, version):
        if version not in ("3", "champion"):
            raise UsageError(f"{task}: given version {version!r}; allowed: 3")
        return SimpleNamespace(version="3")

    def build(task, version, home, output, backend, trial):
        asked.append((version.version, output, backend, trial))
        return output / "small" / "3-onnx-int8-abc", MADE, True

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("deployment.session.open_session", session)
    registry = type("Registry", (), {"get": get})
    monkeypatch.setattr("deployment.registry.Registry", registry)
    monkeypatch.setattr("deployment.packaging.build.package", build)
    task = small_task(tmp_path)

    def call(*arguments):
        result = tmp_path / "result.json"
        given = ["package", "--task", str(task), "--result", str(result), *map(str, arguments)]
        done = CliRunner().invoke(app, given)
        written = json.loads(result.read_text() or "{}") if result.exists() else {}
        return done, written, asked

    return call


def test_the_champion_is_packed_and_told_of(invoke, tmp_path):
    done, result, asked = invoke()
    assert done.exit_code == 0, done.output
    assert asked == [("3", tmp_path / "home" / "packages", None, True)]
    for told in ("small version 3 is packed", "99 packages with hashes", "300 MB", "docker build"):
        assert told in done.output
    assert result["status"] == "done"
    assert result["outputs"]["fingerprint"] == "f" * 64
    assert result["outputs"]["package"].endswith("3-onnx-int8-abc")


def test_what_is_asked_for_is_handed_on(invoke, tmp_path):
    where = tmp_path / "elsewhere"
    _, _, asked = invoke("--backend", "torch", "--no-trial", "--version", "3", "--output", where)
    assert asked == [("3", where, "torch", False)]


def test_a_dry_run_builds_nothing(invoke):
    done, result, asked = invoke("--dry-run")
    assert (done.exit_code, asked, result["status"]) == (0, [], "planned")
    assert "onnx-int8 if it passes the gate" in done.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--version", "9"), "given version '9'; allowed: 3"),
        (("--output", __file__), "--output: given"),
    ],
)
def test_what_cannot_be_is_refused(invoke, arguments, told):
    done, _, asked = invoke(*arguments)
    assert isinstance(done.exception, UsageError)
    assert told in str(done.exception)
    assert asked == []


def test_an_unknown_backend_is_refused(invoke):
    done, _, asked = invoke("--backend", "tensorrt")
    assert (done.exit_code, asked) == (2, [])
