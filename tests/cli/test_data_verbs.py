"""The verbs on data versions, on a catalogue that is given."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from cli.data import app, artifact_of
from cli.train import train
from deployment.data_versions import Unreadable, assemble
from tamis.errors import UsageError
from tests.deployment.test_data_versions import DAY, FIRST, SECOND, kept, model
from tests.program import small_task
from tests.tiny import labelled

BEFORE = labelled(["one", "two"], [1.0, 2.0], ids=["a", "b"])
AFTER = labelled(["one", "three"], [3.0, 2.0], ids=["a", "[red]c\x1b[2J"], sources=["web", "[b]x"])
GARBAGE = Unreadable(id="99garbage", kind="window", at=DAY, reason="JSONDecodeError: [bold]no")


@pytest.fixture
def catalogue(monkeypatch):
    """Two versions of the small task, and what their documents are."""

    @contextmanager
    def session(*_, **__):
        yield None

    monkeypatch.setenv("COLUMNS", "200")
    artifacts = [kept(FIRST, 1), kept(FIRST, 3), kept(SECOND, 2, kind="all_documents"), GARBAGE]
    models = [model(2, "e" * 64), model(1, FIRST, "champion")]
    monkeypatch.setattr("deployment.session.open_session", session)
    monkeypatch.setattr(
        "deployment.data_versions.catalogue", lambda task: assemble("toy", artifacts, models)
    )
    monkeypatch.setattr(
        "deployment.data_versions.load",
        lambda version: BEFORE if version.fingerprint == FIRST else AFTER,
    )


@pytest.fixture
def invoke(tmp_path, catalogue):
    task = small_task(tmp_path)

    def call(*arguments):
        given = [*map(str, arguments), "--task", str(task), "--result", str(tmp_path / "r.json")]
        done = CliRunner().invoke(app, given)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output, json.loads((tmp_path / "r.json").read_text())

    return call


def test_the_list_shows_versions_models_and_what_is_not_there(invoke, tmp_path):
    told, result = invoke("list", "--json", tmp_path / "all.json")
    lines = told.splitlines()
    assert [line[:12] for line in lines if line.startswith(("abc1", "abc2"))] == [
        "abc200000000", "abc100000000",
    ]  # fmt: skip
    assert "1 champion" in told and "2 times" in told and "all_documents" in told
    assert "eeeeeeeeeeee: 2 was trained on it; its documents were deleted" in told
    assert "99garbag: unreadable (JSONDecodeError: [bold]no)" in told
    assert result["counts"] == {"versions": 2, "artifacts": 3, "gone": 1, "unreadable": 1}
    everything = json.loads((tmp_path / "all.json").read_text())
    assert everything["versions"][1]["models"][0] == {"version": "1", "aliases": ["champion"]}


def test_one_version_is_shown_with_its_artifacts(invoke):
    told, result = invoke("show", "champion")
    assert FIRST in told and "--data abc100000000" in told
    assert told.count("documents  c") == 2
    assert result["counts"] == {"documents": 10, "labelled": 9, "artifacts": 2, "models": 1}


def test_two_versions_are_compared(invoke, tmp_path):
    page = tmp_path / "diff.html"
    told, result = invoke("diff", "champion", "--html", page, "--json", tmp_path / "diff.json")
    assert "1 → 3 (1)" in told and "mean change +2.000" in told
    counts = result["counts"]
    assert (counts["added"], counts["removed"], counts["relabelled"]) == (1, 1, 1)
    assert counts["added: [b]x"] == counts["relabelled: web"] == 1
    assert "\x1b[2J" not in told and "[red]c" in told
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads((tmp_path / "diff.json").read_text())["relabelled"]["mean_change"] == 2.0
    assert result["outputs"] == {"html": str(page), "json": str(tmp_path / "diff.json")}


def test_a_version_is_exported_once(invoke, tmp_path):
    path = tmp_path / "old.jsonl"
    told, result = invoke("export", "abc1", path)
    assert "2 documents" in told and result["outputs"] == {"file": str(path)}
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(UsageError, match="--force"):
        invoke("export", "abc1", path)
    invoke("export", "abc2", path, "--force")
    assert "three" in path.read_text()


def test_what_cannot_be_written_is_refused_before_the_session(invoke, tmp_path):
    with pytest.raises(UsageError, match="^--html: given"):
        invoke("diff", "abc1", "abc2", "--html", tmp_path / "none" / "x.html")
    with pytest.raises(UsageError, match="^--json: given"):
        invoke("list", "--json", tmp_path)


@pytest.mark.parametrize("given", ["abc", ""])
def test_a_model_is_not_trained_on_a_version_that_is_not_there(tmp_path, catalogue, given):
    task = small_task(tmp_path)
    verb = typer.Typer(pretty_exceptions_enable=False)
    verb.command()(train)
    for more in (["--dry-run"], []):
        done = CliRunner().invoke(verb, ["--task", str(task), "--data", given, *more])
        assert isinstance(done.exception, UsageError)
        assert str(done.exception).startswith(f"--data: given {given!r}")


def test_documents_without_labels_are_not_trained_on(monkeypatch, catalogue):
    bare = assemble("toy", [kept(FIRST, 1, kind="window", labels=0)], [])
    monkeypatch.setattr("deployment.data_versions.catalogue", lambda task: bare)
    with pytest.raises(UsageError, match="of which no document has a label"):
        artifact_of(SimpleNamespace(name="toy"), "abc1")
