"""Compare and tune by real runs, one after another in one process that stays warm."""

import csv
import json
import os
import sqlite3
from contextlib import closing

import pytest

from tamis.task import Task
from tests import warm
from tests.pipelines.test_own_data import rows
from tests.program import PROJECT

pytestmark = pytest.mark.pipeline

TASK = """\
name: small
target: {kind: ordinal, minimum: 0, maximum: 5, keep_at_least: 3}
sources:
  - kind: files
    path: labels.csv
    columns: {text: text, label: score}
    labels_by: "two of us [/bold]"
model: {family: linear, characters: null, max_features: 500}
split: {folds: 0}
gate: {beat: [median]}
compare:
  folds: 2
  preparations: {raw: [], stemmed: [normalise, stem]}
  models:
    words:
      settings: {family: linear, characters: null, max_features: 500}
      preparations: [raw, stemmed]
    other: {settings: {family: linear, characters: null, penalties: [9.0]}}
  policy: {documents_per_second: 1}
tune:
  folds: 2
  space:
    model.words: {kind: choices, values: [[1, 1], [1, 2]]}
    model.min_documents: {kind: range, low: 1, high: 5, whole: true}
"""

PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
from cli.app import main

done = []
for arguments in json.loads(sys.stdin.read()):
    out, err, result = io.StringIO(), io.StringIO(), Path("result.json")
    result.unlink(missing_ok=True)
    sys.argv = ["run.py", *arguments, "--task", "small.yaml", "--result", str(result)]
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    text = result.read_text() if result.exists() else ""
    found = json.loads(text) if text else {}
    done.append([code, out.getvalue(), err.getvalue(), found])
    Path("done.json").write_text(json.dumps(done))
"""
"""Be ``run.py`` as often as told, and write down what each run left."""

RUNS = {
    "plan": ["compare", "--dry-run"],
    "compare": [
        "compare", "--model", "words", "--table", "table.md", "--picture", "picture.png",
    ],
    "unknown": ["compare", "--model", "nope"],
    "tune": ["train", "--tune", "2"],
    "wrong space": [
        "train", "--tune", "2", "--set",
        "tune.space={model.hidden: {kind: choices, values: [1, 2]}}",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.yaml").write_text(TASK)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "score"])
        writer.writerows(rows(150))
    return folder


@pytest.fixture(scope="module")
def ran(home):
    environment = {
        **os.environ,
        "TAMIS_HOME": str(home),
        "PYTHONPATH": str(PROJECT),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "COLUMNS": "200",
    }
    environment.pop("TAMIS_DEBUG", None)
    warm.furnish(home)
    done = warm.python(
        "-c", PROGRAM, cwd=home, env=environment, given=json.dumps(list(RUNS.values()))
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(RUNS, json.loads((home / "done.json").read_text()), strict=True))


def nested_runs(home, experiment):
    """Metrics and parameters of runs below another, by name."""
    (database,) = home.rglob("mlflow.db")
    with closing(sqlite3.connect(database)) as connection:
        names = connection.execute(
            "select runs.name, runs.run_uuid from runs join experiments using (experiment_id) "
            "join tags on tags.run_uuid = runs.run_uuid and tags.key = 'mlflow.parentRunId' "
            "join runs parents on parents.run_uuid = tags.value "
            "where experiments.name = ? and runs.status = 'FINISHED'",
            (experiment,),
        ).fetchall()
        assert len({name for name, _ in names}) == len(names)
        return {
            name: dict(
                connection.execute(
                    "select key, value from params where run_uuid = :id union all "
                    "select key, value from metrics where run_uuid = :id",
                    {"id": run},
                )
            )
            for name, run in names
        }


def test_a_comparison_ends_with_the_table_and_the_picture(ran, home):
    code, out, err, result = ran["compare"]
    assert code == 0, out + err
    figures = result["cross_validation"]
    assert list(figures)[2:] == ["median", "length", "source"]
    assert set(list(figures)[:2]) == {"words", "words_stemmed"}
    assert figures["words"]["value"] > 0.5
    deployed = result["outputs"]["deploy"]
    assert f"To deploy: {deployed}, the best of" in out and deployed in figures
    assert "labels: two of us [/bold]" in out
    lines = (home / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 5 and lines[2].startswith(f"| **{next(iter(figures))}**")
    assert (home / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert not list(home.rglob("fold-*.json"))  # what a killed trial goes on with


def test_each_row_of_a_comparison_is_a_nested_run(ran, home):
    *_, result = ran["compare"]
    runs = nested_runs(home, "tamis_comparison")
    assert set(runs) == set(result["cross_validation"])
    for name, interval in result["cross_validation"].items():
        found = runs[name]
        assert found["spearman"] == pytest.approx(interval["value"])
        assert found["spearman_low"] <= found["spearman"] <= found["spearman_high"]
        assert found["deploy"] == str(name == result["outputs"]["deploy"])
        assert {"f1", "test_spearman", "size_bytes", "train_cpu_seconds"} <= set(found)
    assert runs["words_stemmed"]["preparation"] == "stemmed"
    assert runs["words"]["documents_per_second"] > 1


def test_a_tuned_model_is_trained_with_the_best_settings_and_registered(ran, home):
    code, out, err, result = ran["tune"]
    assert code == 0, out + err
    assert (result["model_version"], result["status"]) == ("1", "done")
    assert result["metrics"]["spearman"]["value"] > 0.5
    runs = nested_runs(home, "tamis_tuning")
    assert set(runs) == {"own settings", "trial 0", "trial 1"}
    for name, found in runs.items():
        assert found["state"] in ("complete", "pruned") and found["spearman"] > 0.3
        assert ("model.words" in found) == (name != "own settings")
    (journal,) = home.rglob("*.journal")
    assert journal.parent.name == "tuning"
    best = max(runs.values(), key=lambda run: run["spearman"])
    taken = [line.strip() for line in out.splitlines() if line.startswith("  --set ")]
    expected = [f"--set {k}={best[k]}" for k in ("model.words", "model.min_documents") if k in best]
    assert taken == expected
    (tuned,) = home.rglob("tuned_task/**/report.json")
    task = Task.model_validate_json(tuned.read_text())
    given = {"model.words": task.model.words, "model.min_documents": task.model.min_documents}
    assert all(f"--set {k}={json.dumps(given[k])}" in taken for k in given) or not taken
    infos = [json.loads(path.read_text()) for path in home.rglob("classifier.json")]
    assert {info["task_fingerprint"] for info in infos} == {task.fingerprint()}


def test_what_cannot_be_is_told_before_any_work(ran):
    code, _, err, result = ran["unknown"]
    assert (code, result) == (2, {})
    assert err.strip() == "error: --model: given 'nope'; allowed: words, other"
    code, out, err, result = ran["wrong space"]
    assert (code, result) == (2, {})
    assert err.startswith("error: small: tune.space: model.hidden: given 'hidden'; allowed: one of")
    assert len(err.strip().splitlines()) == 1 and "ingest" not in out


def test_a_plan_says_what_would_be_compared(ran):
    code, out, err, result = ran["plan"]
    assert (code, result["status"]) == (0, "planned"), err
    assert "words, words_stemmed, other" in out and "at least 1 documents a second" in out
