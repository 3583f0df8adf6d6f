"""Mistakes with distill, told before anything is started."""

import json
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from cli.app import main
from cli.distill import _keep
from deployment.session import Session
from deployment.stacks import LocalStack
from tamis.errors import UsageError


@pytest.fixture
def tell(monkeypatch, capsys, tmp_path):
    """Run the command line in this process: its exit code, and what it says of errors."""
    monkeypatch.delenv("TAMIS_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", "distill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().err.strip()

    return run_here


CRITERIA = "allowed: one of --threshold, --top-percent and --token-budget"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--threshold", "3", "--top-percent", "10"], f"given 2 criteria; {CRITERIA}"),
        (["--threshold", "3", "--token-budget", "1M"], f"given 2 criteria; {CRITERIA}"),
        (
            ["--threshold", "3", "--top-percent", "0", "--token-budget", "1M"],
            f"given 3 criteria; {CRITERIA}",
        ),
        (["--top-percent", "101"], "--top-percent: given 101; allowed: above 0 and below 100"),
        (["--top-percent", "-1"], "--top-percent: given -1;"),
        (["--top-percent", "nan"], "--top-percent: given nan;"),
        (["--top-percent", "0"], "--top-percent: given 0;"),
        (["--top-percent", "100"], "--top-percent: given 100;"),
        (["--token-budget", "many"], "--token-budget: given 'many'; allowed: tokens such as"),
        (["--token-budget", "0"], "--token-budget: given '0'"),
        (["--threshold", "9"], "--threshold: given 9; allowed: above 0 and at most 5"),
        (["--threshold", "nan"], "--threshold: given nan"),
        (["--ray-address", "1.2.3.4:6379"], "allowed: only with --engine ray"),
        (["--task", "edu_qualty"], "edu_quality"),
        (["--stack", "mars"], "allowed: local"),
        (["--set", "scoring.cascade.promise.recall=1"], "scoring.cascade.promise.recall"),
        (["--set", "scoring.cascade.documents=10"], "scoring.cascade.documents"),
        (["--set", "scoring.backend=abacus"], "scoring.backend"),
        (["--result", "/no/such/folder/x.json"], "--result"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(tell, arguments, part):
    code, said = tell(*arguments)
    assert code == 2
    assert said.startswith("error: ") and "\n" not in said
    assert part in said


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--documents", "10"], "--documents"),
        (["--documents", "some"], "--documents"),
        (["--top-percent", "some"], "--top-percent"),
        (["--engine", "abacus"], "--engine"),
        (["--docments", "900"], "--docments"),
    ],
)
def test_an_option_that_is_no_such_thing(tell, arguments, part):
    code, said = tell(*arguments)
    assert code == 2
    assert part in said and "Traceback" not in said


def test_what_is_kept():
    assert _keep(None, None, None).kind == "model"
    found = _keep(3.5, None, None)
    assert (found.kind, found.value) == ("threshold", 3.5)
    for percent, share in ((10, 0.1), (0.05, 0.0005), (99.9, 0.999), (12.3456789, 0.123456789)):
        found = _keep(None, percent, None)
        assert (found.kind, found.value) == ("top_share", pytest.approx(share, rel=1e-9))
    found = _keep(None, None, "1.5M")
    assert (found.kind, found.value) == ("token_budget", 1_500_000)
    with pytest.raises(UsageError):
        _keep(0.0, 0.0, None)


@pytest.fixture
def versions(monkeypatch, tmp_path):
    """A session without ZenML, and a registry of two versions."""

    @contextmanager
    def session(name):
        yield Session("local", LocalStack(kind="local", home=str(tmp_path)))

    class Registry:
        def champion(self, task):
            return SimpleNamespace(version="1")

        def get(self, task, version):
            if version not in ("1", "2"):
                raise UsageError(f"{task}: given version {version!r}; allowed: 1, 2")
            return SimpleNamespace(version=version)

    monkeypatch.setattr("deployment.session.open_session", session)
    monkeypatch.setattr("deployment.registry.Registry", Registry)


def test_versions_and_inputs_that_are_not_there(tell, versions, tmp_path):
    for arguments, part in (
        (["--version", "9"], "given version '9'; allowed: 1, 2"),
        (["--input", "none.jsonl"], "input 'none.jsonl' matches no file"),
        (["--input", "none*.jsonl", "--dry-run"], "input 'none*.jsonl' matches no file"),
    ):
        code, said = tell(*arguments)
        assert code == 2 and said.startswith("error: ") and "\n" not in said
        assert part in said
    assert not list(tmp_path.glob("taught"))


def test_a_dry_run_plans_and_runs_nothing(tell, versions, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}')
    monkeypatch.setattr(
        sys, "argv",
        ["run.py", "distill", "-i", "a.jsonl", "--version", "2", "--documents", "700",
         "--top-percent", "10", "--dry-run", "--result", "r.json"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = capsys.readouterr().out
    assert "dry run" in told and "version 2" in told and "top_share 0.1" in told
    assert "700, scored once" in told
    assert json.loads((tmp_path / "r.json").read_text())["status"] == "planned"
    assert not (tmp_path / "taught").exists() and not (tmp_path / "output").exists()
