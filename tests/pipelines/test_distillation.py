"""Train, distill and filter by real runs, one after another in one process that stays warm."""

import csv
import json
import os
from dataclasses import dataclass

import numpy as np
import pytest

from tamis.corpus.manifest import read_output
from tamis.scoring.select import read_report
from tests import warm
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
filter: {near_duplicates: {enabled: false}}
scoring:
  backend: torch
  cascade:
    documents: 1200
    audit: 0.2
    promise: {recall: 0.92, precision: 0.9, confidence: 0.9}
"""

PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
from cli.app import main
from deployment import distilling, filtering
from tamis.engine.local import LocalEngine

# In this process: a worker of its own would load torch anew for every run.
filtering.engine_of = distilling.engine_of = lambda request: LocalEngine(0)
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
    taught = {str(f): f.stat().st_mtime_ns for f in Path("taught").rglob("*.parquet")}
    result = json.loads(text) if text else {}
    done.append([code, out.getvalue(), err.getvalue(), result, taught])
    Path("done.json").write_text(json.dumps(done))
"""
"""Be ``run.py`` as often as told, and write down what each run left."""

AUDIT = "scoring.cascade.audit=0.3"
CORPUS = ["--input", "corpus", "-j", "1"]
RUNS = {
    "train": ["train"],
    "distill": ["distill", *CORPUS],
    "distill again": ["distill", *CORPUS],
    "filter": ["filter", *CORPUS, "--output", "out"],
    "encoder only": ["filter", *CORPUS, "--output", "alone", "--encoder-only"],
    "other threshold": ["filter", *CORPUS, "--output", "lower", "--threshold", "2"],
    "resume alone": ["filter", *CORPUS, "--output", "out", "--encoder-only"],
    "resume audited": ["filter", *CORPUS, "--output", "out", "--set", AUDIT],
    "train another": ["train", "--set", "text.max_tokens=24"],
    "filter with another": ["filter", *CORPUS, "--output", "other", "--version", "2"],
    "unknown version": ["distill", *CORPUS, "--version", "9"],
    "too small": ["distill", *CORPUS, "--threshold", "4.999"],
    "no budget": ["distill", *CORPUS, "--token-budget", "3"],
}


@dataclass
class Outcome:
    """What a run left."""

    code: int
    out: str
    err: str
    result: dict
    taught: dict  # when files of scored samples were last written, after this run


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.yaml").write_text(TASK)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "score"])
        writer.writerows(rows(240))
    (folder / "corpus").mkdir()
    texts = [text for text, _ in rows(1_500, seed=1)]
    for shard in range(3):
        lines = [json.dumps({"text": text}) for text in texts[shard::3]]
        (folder / "corpus" / f"part-{shard}.jsonl").write_text("\n".join(lines))
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
    outcomes = [Outcome(*each) for each in json.loads((home / "done.json").read_text())]
    return dict(zip(RUNS, outcomes, strict=True))


def scored(home, name):
    """Scored rows of an output by their text."""
    rows = [row for part in ("kept", "dropped") for row in read_output(str(home / name), part)]
    assert len({row["text"] for row in rows}) == len(rows)
    return {row["text"]: row for row in rows}


def test_a_distillation_reports_what_it_promises_and_measured(ran, home):
    done = ran["distill"]
    assert done.code == 0, done.err
    result = done.result
    assert (result["status"], result["verb"], result["model_version"]) == ("done", "distill", "1")
    counts = result["counts"]
    assert set(counts) == {"train", "calibration", "test"}
    assert 1_000 < sum(counts.values()) < 1_400
    assert result["metrics"]["recall"]["value"] > 0.85
    assert result["metrics"]["precision"]["value"] > 0.85
    assert 0 < result["metrics"]["sent"]["value"] < 0.5
    assert result["metrics"]["sent"]["n"] == counts["test"]
    assert "is the narrowest certified" in done.out
    page = (home / result["outputs"]["report"]).read_text()
    assert "Cascade for small" in page and "Learn then Test" in page


def test_the_cascade_is_kept_with_the_version(ran, home):
    (attached,) = {folder.parent for folder in (home / "models").rglob("cascade.json")}
    assert (attached / "report.html").is_file() and (attached / "student.safetensors").is_file()
    assert not [file for file in home.rglob("*") if file.suffix in (".pkl", ".pickle")]


def test_a_second_distillation_scores_nothing_again(ran):
    first, second = ran["distill"], ran["distill again"]
    assert second.code == 0, second.err
    assert len(first.taught) >= 3
    assert second.taught == first.taught == ran["no budget"].taught
    assert second.result["metrics"] == first.result["metrics"]
    assert second.result["counts"] == first.result["counts"]


def test_a_filter_uses_the_cascade_and_says_so(ran, home):
    done = ran["filter"]
    assert done.code == 0, done.err
    assert "student decides below" in done.out
    assert done.result["threshold"] == ran["distill"].result["threshold"]
    rows, threshold = scored(home, "out"), done.result["threshold"]
    assert len(rows) == 1_500
    assert all(row["student_score"] is not None for row in rows.values())
    assert all((row["decision"] == "keep") == (row["score"] >= threshold) for row in rows.values())
    asked = [row for row in rows.values() if row["encoder_score"] is not None]
    counts = read_report(str(home / "out")).summary.audit
    assert counts.sent + counts.dropped + counts.kept == 1_500
    assert len(asked) == counts.sent + counts.dropped_audited + counts.kept_audited
    assert 0 < counts.sent < 750
    assert sum(row["score"] == row["encoder_score"] for row in asked) >= counts.sent
    decided = 1_500 - counts.sent
    assert 0.12 * decided < counts.dropped_audited + counts.kept_audited < 0.3 * decided


def test_its_decisions_are_nearly_those_of_the_encoder(ran, home):
    rows, alone = scored(home, "out"), scored(home, "alone")
    asked = [text for text, row in rows.items() if row["encoder_score"] is not None]
    found, wanted = (
        np.array([side[text]["encoder_score"] for text in asked]) for side in (rows, alone)
    )
    assert np.abs(found - wanted).max() < 1e-4
    kept, right = (
        {text for text, row in side.items() if row["decision"] == "keep"} for side in (rows, alone)
    )
    assert len(kept & right) / len(right) > 0.9 and len(kept & right) / len(kept) > 0.88


def test_the_encoder_alone_where_asked_for(ran, home):
    done = ran["encoder only"]
    assert done.code == 0 and "encoder alone, as asked for" in done.out
    assert all(row["student_score"] is None for row in scored(home, "alone").values())
    assert read_report(str(home / "alone")).summary.audit.sent == 0


def test_the_encoder_alone_at_another_threshold(ran, home):
    done = ran["other threshold"]
    assert done.code == 0, done.err
    assert "encoder alone: the cascade was calibrated for the threshold" in done.out
    assert "not 2;" in done.out and done.result["threshold"] == 2
    assert all(row["student_score"] is None for row in scored(home, "lower").values())
    assert done.result["counts"]["kept"] > ran["encoder only"].result["counts"]["kept"]


def test_another_version_does_not_take_over_the_cascade(ran, home):
    assert ran["train another"].result["model_version"] == "2"
    done = ran["filter with another"]
    assert done.code == 0, done.err
    assert "encoder alone: no cascade was distilled for this model" in done.out
    assert all(row["student_score"] is None for row in scored(home, "other").values())


@pytest.mark.parametrize(
    ("name", "code", "part"),
    [
        ("resume alone", 2, "(cascade is not given, was "),
        ("resume audited", 2, "cascade is "),
        ("unknown version", 2, "given version '9'; allowed: 1, 2"),
        ("too small", 1, "a student needs at least 10 on either side"),
        ("no budget", 2, "--token-budget: given 3; allowed: at least about"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(ran, name, code, part):
    done = ran[name]
    assert done.code == code
    (said,) = done.err.strip().splitlines()
    assert said.startswith("error: ") and part in said
    assert not done.result
