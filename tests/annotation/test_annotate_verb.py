"""``python run.py annotate`` by real runs, one after another in one process that stays warm."""

import csv
import json
import os
from dataclasses import dataclass

import pyarrow.parquet as pq
import pytest
import yaml

from tests import warm
from tests.annotation.judge_server import KEY, score_of, serving
from tests.pipelines.test_own_data import rows
from tests.program import PROJECT

pytestmark = pytest.mark.pipeline

TASK = """\
name: small
target: {kind: ordinal, minimum: 0, maximum: 5, keep_at_least: 3}
sources:
  - {kind: files, path: labels.csv, columns: {text: text, label: score}}
text: {max_tokens: 32}
model: {frozen: {layers: [1], heads: [ridge]}}
split: {folds: 0}
gate: {beat: [median]}
annotate: {rubric: rubric.md, model: judge-7b, backoff_seconds: 0.01, double_share: 0.2}
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
    done.append([code, out.getvalue(), err.getvalue(), json.loads(text) if text else {}])
    Path("done.json").write_text(json.dumps(done))
"""
"""Be ``run.py`` as often as told, and write down what each run left."""


def verbs(url, refusing):
    """The runs by name, for a judge and one that refuses everything."""
    ask = ["annotate", "--input", "corpus.jsonl"]
    here = [*ask, "--endpoint", url]
    return {
        "train": ["train"],
        "dry": [*here, "--budget", "40", "--output", "out", "--dry-run"],
        "mix": [*here, "--budget", "40", "--output", "out", "--strategy", "mix"],
        "again": [*here, "--budget", "40", "--output", "out", "--strategy", "mix"],
        "other": [*here, "--budget", "40", "--output", "out", "--strategy", "random"],
        "default": [*here, "--budget", "5", "--format", "jsonl"],
        "export": ["annotate", "--output", "out", "--export", "argilla", "review.json"],
        "import": ["annotate", "--output", "out", "--import", "label-studio", "reviewed.json"],
        "no output": ["annotate", "--import", "argilla", "x.json"],
        "no tool": ["annotate", "--output", "out", "--export", "excel", "x.json"],
        "no endpoint": [*ask],
        "no key": [*ask, "--endpoint", "https://judge.example.org/v1",
                   "--set", "annotate.key_variable=NOT_SET"],
        "refused": [*ask, "--endpoint", refusing, "--model", "unknown", "--budget", "8"],
    }  # fmt: skip


@dataclass
class Outcome:
    """What a run left."""

    code: int
    out: str
    err: str
    result: dict


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.yaml").write_text(TASK)
    (folder / "rubric.md").write_text('---\nname: words\nversion: "1"\n---\nGood words are good.\n')
    labelled = list(rows(200))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "score"])
        writer.writerows(labelled)
    new = [f"{text} score {score:.0f}" for text, score in rows(120, seed=1)]
    texts = [*new, *(text for text, _ in labelled[:30]), *new[:10]]
    lines = [json.dumps({"text": text, "id": f"c{i}"}) for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join([*lines, "{broken"]))
    review = {
        "data": {"text": new[0]},
        "annotations": [
            {
                "completed_by": {"email": "ann@example.org"},
                "result": [{"from_name": "score", "type": "choices", "value": {"choices": ["5"]}}],
            }
        ],
    }
    every = [review | {"data": {"text": text}} for text in new]
    (folder / "reviewed.json").write_text(json.dumps(every))
    return folder


@pytest.fixture(scope="module")
def ran(home):
    environment = {
        **os.environ,
        "TAMIS_HOME": str(home),
        "PYTHONPATH": str(PROJECT),
        "TAMIS_JUDGE_KEY": KEY,
        "COLUMNS": "200",
    }
    environment.pop("TAMIS_DEBUG", None)
    refuses = {"": ("status 401", 10**6)}
    with serving() as server, serving(faults=refuses) as refusing:
        runs = verbs(server.url, refusing.url)
        warm.furnish(home)
        done = warm.python(
            "-c", PROGRAM, cwd=home, env=environment, given=json.dumps(list(runs.values()))
        )
        assert done.returncode == 0, done.stderr
        assert all(h["authorization"] == f"Bearer {KEY}" for h in server.headers)
    outcomes = [Outcome(*each) for each in json.loads((home / "done.json").read_text())]
    return dict(zip(runs, outcomes, strict=True))


def test_a_round_is_chosen_asked_about_and_reported(ran, home):
    done = ran["mix"]
    assert done.code == 0, done.err
    counts = done.result["counts"]
    assert (counts["asked"], counts["labelled"], counts["remaining"]) == (40, 40, 0)
    assert (counts["second_labelled"], counts["requests"]) == (8, 48)
    assert done.result["model_version"] == "1"
    assert done.result["metrics"]["exact"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 8}
    report = json.loads((home / "out" / "report.json").read_text())
    considered = report["chosen"]["considered"]
    assert considered["labelled"] == 30 and considered["duplicates"] == 10
    assert considered["unreadable"] == 1 and considered["considered"] == 120
    assert set(report["chosen"]["by_strategy"]) == {
        "random", "uncertain", "drifted", "disagreeing",
    }  # fmt: skip
    assert ran["dry"].result["status"] == "planned" and "judge-7b at http" in ran["dry"].out


def test_the_same_command_asks_nothing_again(ran):
    counts = ran["again"].result["counts"]
    assert (counts["requests"], counts["cached"], counts["labelled"]) == (0, 48, 40)


def test_another_question_wants_another_output(ran, home):
    assert ran["other"].code == 2 and "strategy is" in ran["other"].err
    done = ran["default"]
    assert done.code == 0, done.err
    labels = home / done.result["outputs"]["labels"]
    assert len(labels.read_text().splitlines()) == 5
    assert "/output/small/annotations/" in str(labels)


def test_people_overrule_the_judge(ran, home):
    assert ran["export"].result["counts"] == {"exported": 40}
    assert len(json.loads((home / "review.json").read_text())) == 40
    done = ran["import"]
    assert done.code == 0, done.err
    assert done.result["counts"]["reviewed"] == 40
    assert "80 skipped: not a document of this output" in done.out
    found = pq.read_table(home / "out" / "labels.parquet").to_pylist()
    assert {row["score"] for row in found} == {5.0}
    assert all(row["judge_score"] == score_of(row["text"]) for row in found)
    assert {row["labelled_by"] for row in found} == {"ann@example.org"}
    (entry,) = yaml.safe_load((home / "out" / "source.yaml").read_text())
    assert "40 of 40 by people" in entry["labels_by"]


def test_the_key_is_nowhere(ran, home):
    for file in home.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("name", "code", "part"),
    [
        ("no output", 2, "also give --output"),
        ("no tool", 2, "given 'excel'; allowed: argilla, label-studio"),
        ("no endpoint", 2, "annotate.endpoint: given None"),
        ("no key", 2, "the environment variable NOT_SET is not set"),
        ("refused", 1, "the endpoint refuses (HTTP 401"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(ran, name, code, part):
    done = ran[name]
    assert done.code == code, done.err
    (said,) = done.err.strip().splitlines()
    assert said.startswith("error: ") and part in said
