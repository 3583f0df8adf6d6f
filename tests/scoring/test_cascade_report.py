"""What a filter with a cascade tells, and what can be done with its output."""

import json

import pytest

from tamis.corpus.manifest import read_output
from tamis.corpus.readers import list_shards
from tamis.engine.local import LocalEngine
from tamis.scoring.audit import AuditCounts, audit
from tamis.scoring.filter_report import audit_lines
from tamis.scoring.filter_run import run_filter
from tamis.scoring.select import Criterion, select
from tamis.scoring.settings import Promise
from tests.scoring import filter_stubs as stubs
from tests.scoring.test_cascade import TEXTS, Encoder, make


def load_encoder(model_dir):
    return Encoder()


@pytest.fixture(scope="module")
def filtered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cascade")
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS)
    (folder / "a.jsonl").write_text(lines)
    out = str(folder / "out")
    plan = stubs.make_plan(out, threshold=2.5, cascade=make(audit=0.5), load=load_encoder)
    report = run_filter(
        plan, list_shards([str(folder / "a.jsonl")]), engine=LocalEngine(0), progress=stubs.quiet
    )
    return out, report


def rows(out):
    parts = ("kept", "dropped")
    return {row["row"]: row for part in parts for row in read_output(out, part)}


def test_the_report_says_who_decided(filtered):
    out, report = filtered
    counts = report.audit.counts
    found = rows(out).values()
    assert counts.sent == sum(row["text"].startswith("neutral") for row in found) == 40
    assert counts.dropped == counts.kept == 40
    audited = [r for r in found if not r["text"].startswith("neutral") and r["encoder_score"]]
    assert 0 < len(audited) <= counts.dropped_audited + counts.kept_audited < 80
    page = report.to_html()
    assert "dropped by the student" in page
    assert "WARNING" in page  # half of what it decides is wrong here
    assert audit_lines(report.audit)[0].startswith("WARNING")


def test_a_filter_without_a_cascade_says_nothing_of_one(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one"}))
    plan = stubs.make_plan(tmp_path / "out")
    report = run_filter(
        plan, list_shards([str(tmp_path / "a.jsonl")]), engine=LocalEngine(0), progress=stubs.quiet
    )
    assert report.audit is None and "Cascade" not in report.to_html()


def test_no_alarm_where_the_promise_may_hold():
    sound = AuditCounts(sent=100, sent_kept=50, dropped=1_000, dropped_audited=100)
    lines = audit_lines(audit(sound, Promise()))
    assert lines and not any("WARNING" in line for line in lines)


def test_deciding_again_keeps_both_scores_and_counts_those_of_the_student(filtered, tmp_path):
    out, _ = filtered
    again = str(tmp_path / "again")
    selection = select(out, again, Criterion("threshold", 3.5), progress=stubs.quiet)
    before, after = rows(out), rows(again)
    for name in ("score", "student_score", "encoder_score"):
        assert {k: r[name] for k, r in before.items()} == {k: r[name] for k, r in after.items()}
    alone = sum(row["encoder_score"] is None for row in before.values())
    assert selection.student_only == alone > 0
