import io
import json
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import tamis.scoring.progress as progress
from tamis.corpus.manifest import Counts, read_manifest, read_output
from tamis.corpus.readers import list_shards
from tamis.engine.local import LocalEngine
from tamis.errors import EngineError, ResumeRefused, UsageError
from tamis.fingerprint import code_fingerprint
from tamis.scoring.filter_report import FilterReport
from tamis.scoring.filter_run import run_filter
from tests.scoring import filter_stubs as stubs


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for shard in range(4):
        rows = [{"text": f"text {shard} {i}", "source": f"s{i % 3}"} for i in range(50)]
        lines = [json.dumps(row).encode() for row in rows]
        lines.insert(10, b"{broken")
        (folder / f"part{shard}.jsonl").write_bytes(b"\n".join(lines))
    return folder


def run(corpus, out, workers=0, fresh=False, parts=None, **changes):
    plan = stubs.make_plan(out, **changes)
    engine = LocalEngine(workers)
    return run_filter(plan, list_shards([str(corpus)]), parts, engine, fresh, stubs.quiet)


def identity(out, part="kept"):
    return [(r["shard"], r["row"], r["id"], r["text"], r["score"]) for r in read_output(out, part)]


def test_the_report_adds_up(corpus, tmp_path):
    out = str(tmp_path / "out")
    report = run(corpus, out)
    assert (report.counts.read, report.counts.quarantined, report.shards) == (204, 4, 4)
    kept = list(read_output(out, verify=True))
    assert report.counts.kept == len(kept)
    assert 0.2 < report.kept_share < 0.6
    assert sum(report.summary.histogram) == 200
    assert report.summary.quarantine == {"invalid_json": 4}
    assert report.summary.best[0].score == max(row["score"] for row in kept)
    written = Path(out, "report.json").read_text()
    assert FilterReport.model_validate_json(written) == report
    assert "<svg" in Path(out, "report.html").read_text()


def test_any_number_of_workers_gives_the_same_files(corpus, tmp_path):
    shas = []
    for workers in (0, 1, 3):
        out = str(tmp_path / f"out{workers}")
        run(corpus, out, workers)
        shas.append([f.sha256 for r in read_manifest(out).shards for f in r.files])
    assert shas[0] == shas[1] == shas[2]


def test_a_second_run_does_nothing_and_reports_the_same(corpus, tmp_path):
    out = str(tmp_path / "out")
    first = run(corpus, out)
    before = Path(out, "manifest.jsonl").read_bytes()
    times = {f: f.stat().st_mtime_ns for f in Path(out, "kept").iterdir()}
    second = run(corpus, out, load=_never)
    assert second.counts == first.counts and second.summary == first.summary
    assert Path(out, "manifest.jsonl").read_bytes() == before
    assert {f: f.stat().st_mtime_ns for f in Path(out, "kept").iterdir()} == times


def _never(model_dir):
    raise AssertionError("nothing is left to score")


def test_only_what_is_missing_is_done(corpus, tmp_path):
    out = str(tmp_path / "out")
    run(corpus, out)
    whole = sorted(identity(out))
    path = Path(out, "manifest.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2][:30])
    untouched = json.loads(lines[0])["files"][0]["path"]
    time = Path(out, untouched).stat().st_mtime_ns
    run(corpus, out)
    assert sorted(identity(out)) == whole
    assert Path(out, untouched).stat().st_mtime_ns == time


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"threshold": 2.5}, "threshold is 2.5, was 3.0"),
        ({"model_version": "stub-2"}, "model is stub-2, was stub-1"),
        ({"format": "jsonl.zst"}, "format is jsonl.zst, was parquet"),
        ({"parts": {"task": "other"}}, "task is other, was mine"),
    ],
)
def test_resume_is_refused_under_other_settings(corpus, tmp_path, changes, part):
    out = str(tmp_path / "out")
    run(corpus, out, parts={"task": "mine"})
    before = identity(out)
    with pytest.raises(ResumeRefused, match=part):
        run(corpus, out, **{"parts": {"task": "mine"}, **changes})
    assert identity(out) == before
    report = run(corpus, out, fresh=True, **{"parts": {"task": "mine"}, **changes})
    assert report.shards == 4


@pytest.mark.parametrize("change", ["added", "removed", "edited", "touched"])
def test_resume_is_refused_over_other_shards(corpus, tmp_path, change):
    out = str(tmp_path / "out")
    run(corpus, out)
    first = corpus / "part0.jsonl"
    if change == "added":
        (corpus / "part9.jsonl").write_text('{"text": "new"}')
    elif change == "removed":
        first.unlink()
    elif change == "edited":
        first.write_bytes(first.read_bytes() + b"\n")
    else:
        os.utime(first, (1, 1))
    with pytest.raises(ResumeRefused, match="input is "):
        run(corpus, out)


def test_resume_is_refused_under_other_code(corpus, tmp_path, monkeypatch):
    out = str(tmp_path / "out")
    run(corpus, out)
    monkeypatch.setattr("tamis.scoring.filter_run.code_fingerprint", lambda: "0.9+feed")
    with pytest.raises(ResumeRefused, match=r"code is 0\.9\+feed"):
        run(corpus, out)


def test_the_code_fingerprint_sees_the_sources(tmp_path, monkeypatch):
    (tmp_path / "scoring").mkdir()
    source = tmp_path / "scoring" / "sift.py"
    source.write_text("a = 1")
    monkeypatch.setattr("tamis.fingerprint._ROOT", tmp_path)
    before = code_fingerprint()
    assert before == code_fingerprint()
    source.write_text("a = 2")
    assert code_fingerprint() != before


def test_works_on_an_object_store(corpus, tmp_path):
    import fsspec

    out = f"memory://{uuid.uuid4().hex}/out"
    report = run(corpus, out)
    local = str(tmp_path / "out")
    run(corpus, local)
    assert identity(out) == identity(local)
    assert run(corpus, out).summary == report.summary
    with pytest.raises(ResumeRefused):
        run(corpus, out, threshold=1.0)
    assert run(corpus, out, fresh=True, threshold=1.0).counts.kept > report.counts.kept
    fsspec.filesystem("memory").store.clear()


def test_the_kept_part_of_an_output_is_a_corpus(corpus, tmp_path):
    first, second = str(tmp_path / "one"), str(tmp_path / "two")
    report = run(corpus, first)
    again = run(first, second, threshold=4.0)
    assert again.counts.read == report.counts.kept
    assert {row["id"] for row in read_output(second)} == {
        row["id"] for row in read_output(first) if row["score"] >= 4.0
    }


def test_a_worker_killed_alone_is_made_up_for(corpus, tmp_path):
    rows = [{"text": "DIE ONCE here"}, {"text": "more"}]
    (corpus / "part2b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    marker = tmp_path / "died"
    out, calm = str(tmp_path / "out"), str(tmp_path / "calm")
    report = run(corpus, out, workers=2, model_dir=f"dies_once={marker}")
    assert marker.exists()
    run(corpus, calm, model_dir=f"dies_once={marker}")
    assert identity(out) == identity(calm)
    assert report.counts.read == 206
    assert not list(Path(out).rglob(".tmp-*"))


def test_a_document_that_kills_is_named_and_the_rest_is_safe(corpus, tmp_path):
    bad = corpus / "part1b.jsonl"
    bad.write_text('{"text": "POISON"}')
    out = str(tmp_path / "out")
    with pytest.raises(EngineError, match="shard part1b failed 3 times"):
        run(corpus, out, workers=2)
    done = read_manifest(out).shards
    assert "part1b" not in [record.shard for record in done]


def test_hostile_shards_beside_good_ones(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    good = b'{"text": "good"}\n'
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "bad.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    (folder / "bad.jsonl.zst").write_bytes(pa.compress(good, codec="zstd", asbytes=True)[:-2])
    (folder / "bad.csv").write_bytes(b"\xff\xfe\x00")
    (folder / "mixed.jsonl").write_bytes(b"\xff\n" + good + b"[]\n")
    report = run(folder, str(tmp_path / "out"), workers=1)
    assert report.shards == 6
    assert report.counts.quarantined == 5
    assert report.counts.kept + report.counts.dropped == 1


def test_two_shards_of_one_name_are_refused(corpus, tmp_path):
    shards = list_shards([str(corpus)])
    with pytest.raises(UsageError, match="share a name"):
        run_filter(stubs.make_plan(tmp_path / "out"), [*shards, shards[0]])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [b'{"text": "a"}', b'{"text": "NAN"}', b'{"text": 1}', b"{", b"", b"\xff", b"[]"]
            ),
            max_size=40,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_the_balance_holds_for_any_mixture(tmp_path, shards):
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    for number, lines in enumerate(shards):
        (folder / f"{number}.jsonl").write_bytes(b"\n".join(lines))
    counts = run(folder, str(folder / "out"), block=7).counts
    flat = [line for lines in shards for line in lines if line]
    assert counts.read == len(flat)
    assert counts.kept + counts.dropped == flat.count(b'{"text": "a"}')
    assert counts.quarantined == len(flat) - flat.count(b'{"text": "a"}')


def test_texts_in_the_report_are_escaped(tmp_path):
    path = tmp_path / "a.jsonl"
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    path.write_text(json.dumps({"text": evil, "source": evil, "id": evil}))
    html = run(path, str(tmp_path / "out")).to_html()
    assert "<script>" not in html and "<img" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "http://" not in html and "https://" not in html


def test_progress_is_told_to_the_end(corpus, tmp_path):
    states = []
    plan = stubs.make_plan(tmp_path / "out", "delay=0.05")
    run_filter(plan, list_shards([str(corpus)]), progress=states.append)
    last = states[-1]
    assert (last.phase, last.items_done, last.items) == ("sift", 4, 4)
    assert (last.documents, last.share) == (204, 1.0)
    assert any(0 < state.documents < 204 for state in states)
    assert "sift: 4/4 shards, 204 documents" in str(last)


@pytest.mark.parametrize("terminal", [True, False])
def test_console_progress(monkeypatch, terminal):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    buffer = io.StringIO()
    show = progress.ConsoleProgress(Console(file=buffer, force_terminal=terminal, width=120))
    counts = Counts(read=80, kept=20, dropped=60)
    show(progress.RunState("sift", 1, 4, 100, counts, 10.0, 0.25))
    show.close()
    assert "sift: 1/4 shards, 100 documents, 10.0/s, 25.0% kept, 0:30 left" in buffer.getvalue()
    assert ("\x1b" in buffer.getvalue()) is terminal


def test_time_left_goes_by_bytes():
    state = progress.RunState("sift", 3, 4, 1, Counts(), 10.0, 0.5)
    assert state.seconds_left == pytest.approx(10.0)
    assert progress.RunState("sift", 0, 4, 0, Counts(), 10.0, 0.0).seconds_left is None
    assert progress.clock(3723) == "1:02:03"
