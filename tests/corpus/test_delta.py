import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

import tamis
from tamis.corpus.delta import DeltaFile, DeltaLog, score_range
from tamis.corpus.store import open_store
from tamis.errors import DataError, EngineError, UsageError

SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float64()), ("tokens", pa.int64())])
ROOT = Path(tamis.__file__).parent.parent


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out put")


def data(out, path, scores, schema=SCHEMA):
    """Put a file in place as the writers do, named by nothing yet."""
    full = Path(out, path)
    full.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"{path}:{i}", "score": score, "tokens": i, "more": "m"}
        for i, score in enumerate(scores)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema), full)
    return DeltaFile(
        path=path,
        part=path.partition("/")[0],
        size=full.stat().st_size,
        rows=len(rows),
        mtime_ms=1_700_000_000_000,
        score=score_range(open_store(out), path),
    )


def shard(out, log, position, scores=(1.0, 2.0), part="kept"):
    file = data(out, f"{part}/{position:05d}-s.{log.run}.parquet", list(scores))
    return log.commit(f"{position:05d}", b'{"position":%d}' % position, [file])


def rows(out, version=None, **options):
    table = DeltaTable(out, version=version).to_pyarrow_table(**options)
    return sorted(table.column("score").to_pylist())


def test_a_reader_finds_rows_by_part(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    kept = data(out, "kept/00000-s.parquet", [3.0, 4.0])
    dropped = data(out, "dropped/00000-s.parquet", [1.0])
    assert log.version() is None
    assert log.commit("00000", b"{}", [kept, dropped])
    assert rows(out) == [1.0, 3.0, 4.0]
    assert rows(out, filters=[("part", "=", "kept")]) == [3.0, 4.0]
    assert rows(out, filters=[("part", "=", "duplicates")]) == []
    assert DeltaTable(out).to_pyarrow_table().schema.names == [*SCHEMA.names, "part"]
    assert log.version() == 1


def test_each_shard_is_a_version_to_go_back_to(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    shard(out, log, 0, [1.0])
    shard(out, log, 1, [2.0])
    assert rows(out, version=0) == []
    assert rows(out, version=1) == [1.0]
    assert rows(out, version=2) == [1.0, 2.0]
    assert [entry["version"] for entry in DeltaTable(out).history()] == [2, 1, 0]


def test_a_shard_is_committed_once(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    assert shard(out, log, 0)
    again = DeltaLog(out, SCHEMA, run="r1")
    assert not again.commit("00000", b"other", [data(out, "kept/x.parquet", [9.0])])
    assert again.version() == 1
    assert rows(out) == [1.0, 2.0]
    assert list(again.committed()) == [b'{"position":0}']


def test_a_shard_that_another_process_commits_meanwhile_is_committed_once(out, monkeypatch):
    first, second = (DeltaLog(out, SCHEMA, run="r1") for _ in range(2))
    first.clear()
    table = first._table

    def late():
        """The second commits after the first has looked, and before it writes."""
        found = table()
        monkeypatch.undo()
        assert shard(out, second, 0, [1.0])
        return found

    monkeypatch.setattr(first, "_table", late)
    assert not first.commit("00000", b"{}", [data(out, "kept/other.parquet", [9.0])])
    assert rows(out) == [1.0]


def test_records_come_back_byte_for_byte(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    text = "\\n\\u0000'ü" * 5_000
    records = [f'{{"n":{n},"text":"{text}"}}'.encode() for n in range(3)]
    records.append(b"x" * 2_000_000)
    for number, record in enumerate(records):
        log.commit(f"{number}", record, [])
    assert list(DeltaLog(out, SCHEMA, run="r1").committed()) == records[::-1]


def test_a_shard_without_rows_is_committed_too(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    assert log.commit("00000", b"{}", [data(out, "kept/00000-s.parquet", [])])
    assert not log.commit("00000", b"{}", [])
    assert DeltaTable(out).file_uris() == []
    assert rows(out) == []


def test_records_survive_checkpoints_and_clean_up(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    for number in range(55):
        log.commit(f"{number:05d}", b"%d" % number, [])
    assert list(Path(out, "_delta_log").glob("*.checkpoint.parquet"))
    for entry in Path(out, "_delta_log").glob("*.json"):
        os.utime(entry, (0, 0))
    DeltaTable(out).cleanup_metadata()
    log.commit("00055", b"55", [])
    assert list(log.committed()) == [b"%d" % number for number in range(55, -1, -1)]
    assert not log.commit("00003", b"3", [])


def test_a_log_that_lost_entries_is_not_believed(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    for number in range(55):
        log.commit(f"{number:05d}", b"x", [])
    for entry in sorted(Path(out, "_delta_log").glob("*.json"))[:10]:
        entry.unlink()
    found = log.committed()
    assert next(found) == b"x"
    with pytest.raises(DataError, match="version 9 is gone"):
        list(found)


def test_what_an_earlier_run_committed_is_not_read_again(out):
    shard(out, DeltaLog(out, SCHEMA, run="r1"), 0)
    log = DeltaLog(out, SCHEMA, run="r2")
    shard(out, log, 5)
    DeltaTable(out).create_checkpoint()
    for version in (0, 1):
        Path(out, "_delta_log", f"{version:020d}.json").unlink()
    assert list(log.committed()) == [b'{"position":5}']


class TestStartingOver:
    def test_a_new_run_sees_nothing_of_the_old_and_the_old_stays_readable(self, out):
        old = DeltaLog(out, SCHEMA, run="r1")
        shard(out, old, 0, [1.0])
        shard(out, old, 1, [2.0])
        before = old.version()
        new = DeltaLog(out, SCHEMA, run="r2")
        new.clear()
        assert rows(out) == []
        assert list(new.committed()) == []
        assert shard(out, new, 0, [7.0])
        assert rows(out) == [7.0]
        assert list(new.committed()) == [b'{"position":0}']
        assert rows(out, version=before) == [1.0, 2.0]

    def test_it_happens_once_in_the_life_of_a_run(self, out):
        shard(out, DeltaLog(out, SCHEMA, run="r1"), 0)
        shard(out, DeltaLog(out, SCHEMA, run="r2"), 0, [7.0])
        resumed = DeltaLog(out, SCHEMA, run="r2")
        resumed.clear()
        resumed.clear()
        assert rows(out) == [7.0]

    @pytest.mark.parametrize("first", ["commit", "committed"])
    def test_it_cannot_be_forgotten(self, out, first):
        shard(out, DeltaLog(out, SCHEMA, run="r1"), 0)
        new = DeltaLog(out, SCHEMA, run="r2")
        if first == "commit":
            shard(out, new, 1, [7.0])
        assert len(list(new.committed())) == (first == "commit")
        assert rows(out) == ([7.0] if first == "commit" else [])

    def test_columns_may_change(self, out):
        shard(out, DeltaLog(out, SCHEMA, run="r1"), 0, [1.0])
        wider = SCHEMA.append(pa.field("more", pa.string()))
        new = DeltaLog(out, wider, run="r2")
        new.commit("0", b"{}", [data(out, "kept/00000-s.r2.parquet", [5.0], wider)])
        assert DeltaTable(out).to_pyarrow_table().column("more").to_pylist() == ["m"]
        assert "more" not in DeltaTable(out, version=1).to_pyarrow_table().schema.names

    def test_but_not_within_a_run(self, out):
        shard(out, DeltaLog(out, SCHEMA, run="r1"), 0)
        wider = SCHEMA.append(pa.field("more", pa.string()))
        with pytest.raises(DataError, match="other columns"):
            DeltaLog(out, wider, run="r1").commit("1", b"{}", [])

    def test_vacuum_removes_what_only_old_versions_name(self, out):
        shard(out, DeltaLog(out, SCHEMA, run="r1"), 0)
        shard(out, DeltaLog(out, SCHEMA, run="r2"), 0, [7.0])
        Path(out, "manifest.jsonl").write_text("ours")
        DeltaTable(out).vacuum(0, dry_run=False, enforce_retention_duration=False)
        assert [path.name for path in Path(out, "kept").iterdir()] == ["00000-s.r2.parquet"]
        assert Path(out, "manifest.jsonl").exists()
        assert rows(out) == [7.0]


def test_a_table_of_somebody_else_is_left_alone(out):
    write_deltalake(out, pa.table({"id": ["theirs"]}))
    with pytest.raises(UsageError, match="no run of tamis wrote"):
        DeltaLog(out, SCHEMA, run="r1").clear()
    assert DeltaTable(out).version() == 0
    assert DeltaTable(out).to_pyarrow_table().num_rows == 1


def test_a_damaged_log_is_an_error(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    shard(out, log, 0)
    Path(out, "_delta_log", f"{1:020d}.json").write_text("{")
    with pytest.raises((DataError, EngineError), match="Delta log"):
        DeltaLog(out, SCHEMA, run="r1").commit("1", b"{}", [])


@pytest.mark.parametrize("url", ["memory://x/out", "simplecache::memory://x/out"])
def test_only_places_that_delta_knows(url):
    with pytest.raises(UsageError, match=r"local folder, gs://, s3:// or abfss://"):
        DeltaLog(url, SCHEMA, run="r1")


def test_files_are_skipped_by_score(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    low = data(out, "kept/00000-s.parquet", [1.0, None, 2.0])
    high = data(out, "kept/00001-s.parquet", [3.0, 4.5])
    assert low.score == (1.0, 2.0) and high.score == (3.0, 4.5)
    log.commit("0", b"{}", [low])
    log.commit("1", b"{}", [high])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        actions = pa.table(DeltaTable(out).get_add_actions(flatten=True)).to_pylist()
    found = {a["path"]: (a["num_records"], a["min.score"], a["max.score"]) for a in actions}
    assert found == {low.path: (3, 1.0, 2.0), high.path: (2, 3.0, 4.5)}
    Path(out, low.path).unlink()  # proves that the reader does not open it
    dataset = DeltaTable(out).to_pyarrow_dataset()
    assert dataset.to_table(filter=pa.compute.field("score") > 2.5).num_rows == 2


@pytest.mark.parametrize("scores", [[], [None, None]])
def test_a_file_without_scores_tells_no_range(out, scores):
    assert data(out, "kept/a.parquet", scores).score is None


def child(out, body):
    code = (
        "import sys, pyarrow as pa\n"
        "from tamis.corpus.delta import DeltaFile, DeltaLog\n"
        "schema = pa.schema([('id', pa.string()), ('score', pa.float64()), "
        "('tokens', pa.int64())])\n"
        f"log = DeltaLog({out!r}, schema, run='r1')\n" + body
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_two_processes_lose_none_of_their_commits(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    log.clear()
    body = (
        "print(flush=True); sys.stdin.readline()\n"
        "for n in range(15):\n"
        "    assert log.commit(f'NAME-{n}', f'NAME-{n}'.encode(), [])\n"
        "# both took this one, at about the same time\n"
        "print(int(log.commit('shared', b'shared', [])), flush=True)\n"
    )
    runs = [child(out, body.replace("NAME", name)) for name in "ab"]
    try:
        for run in runs:
            run.stdout.readline()
        for run in runs:
            run.stdin.write(b"go\n")
            run.stdin.flush()
        said = [run.communicate(timeout=60)[0].strip() for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert sorted(said) == [b"0", b"1"]
    records = [record.decode() for record in log.committed()]
    assert sorted(records) == sorted(
        ["shared", *(f"{name}-{n}" for name in "ab" for n in range(15))]
    )
    assert log.version() == 31


def test_a_file_of_a_run_killed_before_its_commit_is_invisible(out):
    log = DeltaLog(out, SCHEMA, run="r1")
    shard(out, log, 0, [1.0])
    file = data(out, "kept/00001-s.r1.parquet", [8.0])
    with child(out, "list(log.committed()); print(flush=True); sys.stdin.readline()") as run:
        run.stdout.readline()
        run.send_signal(signal.SIGKILL)
        run.wait(timeout=30)
    assert rows(out) == [1.0]
    assert len(list(log.committed())) == 1
    assert log.commit("00001", b"{}", [file])
    assert rows(out) == [1.0, 8.0]
