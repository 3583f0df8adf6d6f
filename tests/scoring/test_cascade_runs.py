"""Whole filter runs with a cascade: the same whatever works on it, killed and resumed, audited."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tamis.corpus.manifest import read_manifest, read_output
from tamis.corpus.readers import list_shards
from tamis.engine.local import LocalEngine
from tamis.errors import ResumeRefused
from tamis.scoring.band import Band
from tamis.scoring.filter_report import FilterReport
from tamis.scoring.filter_run import run_filter
from tamis.scoring.passes import sift_shard
from tamis.scoring.summary import Summary
from tests.program import PROJECT
from tests.scoring import filter_stubs as stubs
from tests.scoring import whole_runs
from tests.scoring.test_cascade import corpus, make


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for shard in range(5):
        texts = [f"{text} {shard}" for text in corpus(40)]
        lines = [json.dumps({"text": text, "id": f"{shard}-{i}"}) for i, text in enumerate(texts)]
        lines.insert(3, "{broken")
        (folder / f"part{shard}.jsonl").write_text("\n".join(lines))
    return folder


def run_whole(shards, out, engine=None, cascade=None, **changes):
    plan = {"threshold": 2.5, "cascade": cascade or make(audit=0.3), "filter": stubs.PLAIN}
    return whole_runs.run(shards, out, engine, **{**plan, **changes})


@pytest.fixture(scope="module")
def calm(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("calm") / "out"
    return out, run_whole(shards, out)


def test_a_run_writes_both_scores_and_adds_the_audit_up(calm):
    out, report = calm
    rows = [row for part in ("kept", "dropped") for row in read_output(str(out), part, verify=True)]
    assert len(rows) == 200 and report.counts.quarantined == 5
    asked = [row for row in rows if row["encoder_score"] is not None]
    sent = [row for row in rows if 2.0 <= row["student_score"] < 3.0]
    for row in rows:
        assert (row["decision"] == "keep") == (row["score"] >= 2.5)
        decider = "encoder_score" if row in sent else "student_score"
        assert row["score"] == row[decider]
    assert all(row["encoder_score"] == stubs.true_score(row["text"]) for row in asked)
    counts = report.summary.audit
    assert counts.sent == len(sent) == 65
    assert counts.sent + counts.dropped + counts.kept == 200
    assert counts.dropped_audited + counts.kept_audited == len(asked) - len(sent) > 20
    assert counts.sent_kept + counts.kept == report.counts.kept
    parts = [Summary.model_validate(r.summary).audit for r in read_manifest(str(out)).shards]
    assert len(parts) == 5 and sum(parts[1:], parts[0]) == counts
    written = FilterReport.model_validate_json((out / "report.json").read_text())
    assert written.summary.audit == counts


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_rows(shards, calm, tmp_path, workers):
    report = run_whole(shards, tmp_path / "out", LocalEngine(workers), block=9)
    assert whole_runs.parts(tmp_path / "out") == whole_runs.parts(calm[0])
    assert report.summary.audit == calm[1].summary.audit


def test_other_shards_of_the_same_documents_give_the_same_decisions(shards, calm, tmp_path):
    lines = [line for file in sorted(shards.iterdir()) for line in file.read_text().split("\n")]
    (tmp_path / "one.jsonl").write_text("\n".join(lines[::-1]))
    report = run_whole(tmp_path / "one.jsonl", tmp_path / "out")
    assert report.summary.audit == calm[1].summary.audit
    columns = ("id", "decision", "score", "student_score", "encoder_score")
    one, many = (
        {
            tuple(row[name] for name in columns)
            for part in ("kept", "dropped")
            for row in read_output(str(out), part)
        }
        for out in (tmp_path / "out", calm[0])
    )
    assert one == many


def test_the_audit_survives_the_search_for_near_duplicates(shards, calm, tmp_path):
    report = run_whole(shards, tmp_path / "out", filter=whole_runs.SMALL)
    assert report.counts.duplicates > 0
    assert report.summary.audit == calm[1].summary.audit


def wait_after_two(shards, out):
    """A run that stops after two shards, until it is killed."""
    run_whole(shards, out, whole_runs.Interrupted(whole_runs.wait, sift_shard))


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(shards, calm, tmp_path):
    out = tmp_path / "out"
    program = f"from {__name__} import wait_after_two as run; import sys; run(*sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(shards), str(out)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert process.stdout.readline() == b"waiting\n"
        finally:
            process.kill()
    assert len(read_manifest(str(out)).shards) == 2
    report = run_whole(shards, out)
    assert whole_runs.parts(out) == whole_runs.parts(calm[0])
    assert report.summary == calm[1].summary


@pytest.mark.parametrize(
    "other",
    [
        {"audit": 0.31},
        {"audit": 0.3, "band": Band(low=2.0, high=3.1)},
        {"audit": 0.3, "encoder": "f" * 64},
        None,
    ],
)
def test_a_resume_with_another_cascade_is_refused(shards, calm, tmp_path, other):
    out = tmp_path / "out"
    shutil.copytree(calm[0], out)
    plan = stubs.make_plan(out, threshold=2.5, cascade=other and make(**other))
    with pytest.raises(ResumeRefused, match=r"\(cascade is ") as caught:
        run_filter(plan, list_shards([str(shards)]), None, LocalEngine(0), False, stubs.quiet)
    assert "\n" not in str(caught.value)
    assert whole_runs.snapshot(out) == whole_runs.snapshot(calm[0])


def test_an_output_without_a_cascade_is_not_continued_with_one(shards, tmp_path):
    plan = stubs.make_plan(tmp_path / "out", threshold=2.5)
    listed = list_shards([str(shards)])
    run_filter(plan, listed, None, LocalEngine(0), False, stubs.quiet)
    with pytest.raises(ResumeRefused, match=r"\(cascade is [0-9a-f]{16}, was not given\)"):
        run_whole(shards, tmp_path / "out")
