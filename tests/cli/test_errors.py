"""What a user's mistake gives: one sentence, exit code 2, no traceback, nothing started."""

import subprocess
import sys

import pytest

from tests.program import PROJECT, run, run_warm

HEAVY = ("zenml", "mlflow", "torch", "transformers", "sklearn", "pyarrow", "pandas", "numpy")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--task", "edu_qualty"], "edu_quality"),
        (["train", "--set", "sed=3"], "did you mean 'seed'"),
        (["train", "--set", "gate.floor"], "allowed: key=value"),
        (["train", "--set", "sources.0.genres=[blog]"], "patterns over wikipedia"),
        (["train", "--set", "target.keep_at_least=9"], "above 0 and at most 5"),
        (["train", "--stack", "vertex"], "project: given '<project id>'"),
        (["train", "--stack", "mars"], "allowed: local"),
        (["train", "--result", "/no/such/folder/x.json"], "--result"),
        (["filter", "--threshold", "7"], "above 0 and at most 5"),
        (["filter"], "no champion"),
        (["retrain", "--window", "nothing-here-*.jsonl"], "nothing-here"),
        (["rollback"], "no champion"),
        (["promote"], "no challenger"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(tmp_path, arguments, told):
    outcome = run_warm(tmp_path, *arguments)
    assert outcome.code == 2, outcome.err
    assert told in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("error:")


def test_an_unknown_option_ends_with_two(tmp_path):
    assert run(tmp_path, "train", "--tsk", "x").code == 2


def test_help_imports_nothing_heavy():
    code = f"import cli.app, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_dry_run_plans_and_runs_nothing(tmp_path):
    outcome = run(tmp_path, "train", "--dry-run")
    assert outcome.code == 0
    assert outcome.result["status"] == "planned"
    assert not (tmp_path / "artifacts").exists()


def test_the_schema_in_the_docs_is_the_one_in_force():
    import json

    from cli.result import schema

    assert json.loads((PROJECT / "docs" / "result.schema.json").read_text("utf-8")) == schema()
