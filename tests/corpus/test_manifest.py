import fcntl
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import fsspec
import pytest

import tamis
from tamis.corpus.manifest import (
    Counts,
    ShardRecord,
    list_files,
    read_manifest,
    read_output,
)
from tamis.corpus.output import open_output
from tamis.corpus.readers import list_shards
from tamis.corpus.store import open_store
from tamis.corpus.writers import part_writer
from tamis.errors import DataError, EngineError, ResumeRefused, UsageError

PARTS = {"model": "m" * 40, "threshold": "3.0", "input": "2 files abc"}


@pytest.fixture(params=["local", "memory"])
def out(request, tmp_path):
    """An output on a local disk, and one on an object store."""
    if request.param == "local":
        yield str(tmp_path / "out")
        return
    url = f"memory://{uuid.uuid4().hex}/out"
    yield url
    fsspec.filesystem("memory").store.clear()


def row(number, text="t"):
    return {"id": str(number), "text": text, "shard": "s", "row": number}


def write(out, path, rows):
    with part_writer(open_store(out), path) as writer:
        writer.write(rows)
    return writer.record


def record(out, position, rows=2, form="parquet"):
    file = write(out, f"kept/{position:05d}-s.{form}", [row(i) for i in range(rows)])
    counts = Counts(read=rows, kept=rows)
    return ShardRecord(shard="s", position=position, counts=counts, files=(file,))


def test_what_is_committed_is_read_back(out):
    with open_output(out, PARTS) as output:
        output.commit(record(out, 1, 3, "jsonl.zst"))
        output.commit(record(out, 0, 2))
    manifest = read_manifest(out)
    assert [shard.position for shard in manifest.shards] == [0, 1]
    assert manifest.counts == Counts(read=5, kept=5)
    assert manifest.run.fingerprint == PARTS
    rows = list(read_output(out, verify=True))
    assert [r["row"] for r in rows] == [0, 1, 0, 1, 2]
    assert list(read_output(out, "dropped")) == []
    assert list_files(out, "kept") == ["kept/00000-s.parquet", "kept/00001-s.jsonl.zst"]


def test_what_is_not_committed_does_not_exist(out):
    with open_output(out, PARTS) as output:
        output.commit(record(out, 0))
        record(out, 1)
    assert len(list(read_output(out))) == 2
    assert [shard.url.rpartition("/")[2] for shard in list_shards([out])] == ["00000-s.parquet"]


def test_resume_knows_what_is_done(out):
    with open_output(out, PARTS) as output:
        output.commit(record(out, 0))
    with open_output(out, PARTS) as output:
        assert output.committed == {0}
        with pytest.raises(EngineError, match="twice"):
            output.commit(record(out, 0))


def test_resume_refused_names_the_parts(out):
    open_output(out, PARTS).close()
    other = {**PARTS, "threshold": "2.5", "model": "n" * 40, "task": "abc"}
    with pytest.raises(ResumeRefused) as caught:
        open_output(out, other)
    said = str(caught.value)
    assert "threshold is 2.5, was 3.0" in said
    assert "task is abc, was not given" in said
    assert "n" * 20 in said and "n" * 40 not in said
    assert "input" not in said
    assert "--fresh" in said and "\n" not in said


def test_fresh_removes_our_files_only(out):
    with open_output(out, PARTS) as output:
        output.commit(record(out, 0))
        output.store.write("report.html", b"x")
    store = open_store(out)
    store.write("kept/notes.txt", b"mine")
    store.write("mine.txt", b"mine")
    with open_output(out, {**PARTS, "threshold": "1"}, fresh=True) as output:
        assert output.committed == set()
    assert list(read_output(out)) == []
    assert store.names("kept") == ["notes.txt"]
    assert [n for n in store.names() if n != ".lock"] == ["kept", "mine.txt", "run.json"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_somebody_else_is_left_alone(out, fresh):
    store = open_store(out)
    store.write("thesis.tex", b"x")
    store.write("kept/00000-s.parquet", b"x")
    with pytest.raises(UsageError, match="no run of tamis wrote"):
        open_output(out, PARTS, fresh)
    assert store.read("kept/00000-s.parquet") == b"x"


def test_a_file_that_was_changed_or_lost_is_found(out):
    with open_output(out, PARTS) as output:
        output.commit(record(out, 0, 5, "jsonl.zst"))
        output.commit(record(out, 1, 5, "jsonl.zst"))
        first, second = output.records()
    store = open_store(out)
    store.write(first.files[0].path, store.read(second.files[0].path)[:-3])
    with pytest.raises(DataError, match="not what was written"):
        list(read_output(out, verify=True))
    with pytest.raises(DataError):
        list(read_output(out))
    store.remove(first.files[0].path)
    with pytest.raises(DataError, match="not there"):
        list(read_output(out, verify=True))


def test_a_shorter_file_is_found_even_unverified(out):
    with open_output(out, PARTS) as output:
        output.commit(record(out, 0, 5))
    write(out, "kept/00000-s.parquet", [row(0)])
    with pytest.raises(DataError, match="1 rows, 5 were written"):
        list(read_output(out))


def test_a_record_that_does_not_balance_is_refused():
    with pytest.raises(ValueError, match="balance"):
        ShardRecord(shard="s", position=0, counts=Counts(read=3, kept=1, dropped=1))


def test_no_file_appears_when_writing_fails(out):
    store = open_store(out)
    with pytest.raises(RuntimeError), store.create("kept/a") as file:
        file.write(b"half")
        raise RuntimeError
    assert store.names("kept") == []


def test_reading_what_is_no_output(tmp_path):
    with pytest.raises(UsageError, match="no output of tamis"):
        list(read_output(str(tmp_path)))


class TestLocal:
    """What only a file system can do to us."""

    @pytest.fixture
    def out(self, tmp_path):
        return str(tmp_path / "out")

    @pytest.mark.parametrize("torn", [b'{"shard": "s", "pos', b"\0\0\0", b"{}", "whole"])
    def test_a_torn_last_line_is_ignored_and_repaired(self, out, torn):
        with open_output(out, PARTS) as output:
            output.commit(record(out, 0))
            last = record(out, 1).model_dump_json().encode()
        path = Path(out, "manifest.jsonl")
        good = path.read_bytes()
        with path.open("ab") as file:
            file.write(last if torn == "whole" else torn)
        assert len(list(read_output(out))) == 2
        with open_output(out, PARTS) as output:
            assert output.committed == {0}
            assert path.read_bytes() == good
            output.commit(record(out, 1))
        assert len(list(read_output(out))) == 4

    def test_a_damaged_line_in_the_middle_is_an_error(self, out):
        with open_output(out, PARTS) as output:
            output.commit(record(out, 0))
            output.commit(record(out, 1))
        path = Path(out, "manifest.jsonl")
        path.write_bytes(path.read_bytes().replace(b'"position":0', b'"position":"x'))
        with pytest.raises(DataError, match="record 1"):
            open_output(out, PARTS)
        open_output(out, PARTS, fresh=True).close()

    def test_a_damaged_run_file_is_an_error(self, out):
        open_output(out, PARTS).close()
        Path(out, "run.json").write_text("{")
        with pytest.raises(DataError, match="--fresh"):
            open_output(out, PARTS)
        open_output(out, PARTS, fresh=True).close()

    def test_temporary_files_of_a_killed_run_are_removed(self, out):
        open_output(out, PARTS).close()
        for folder in ("", "kept", "dropped", "duplicates", "quarantine", "work", "work/a/b"):
            Path(out, folder).mkdir(parents=True, exist_ok=True)
            Path(out, folder, ".tmp-123abc").write_text("half")
        open_output(out, PARTS).close()
        assert not list(Path(out).rglob(".tmp-*"))

    def test_a_second_run_is_kept_out(self, out):
        with open_output(out, PARTS):
            with pytest.raises(UsageError, match="another run"):
                open_output(out, PARTS)
            code = f"from tamis.corpus.output import open_output; open_output({out!r}, {PARTS!r})"
            root = Path(tamis.__file__).parent.parent
            run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True)
            assert b"another run" in run.stderr
        open_output(out, PARTS).close()

    def test_the_lock_is_given_back_after_an_error(self, out):
        open_output(out, PARTS).close()
        with pytest.raises(ResumeRefused):
            open_output(out, {})
        descriptor = os.open(Path(out, ".lock"), os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)

    def test_the_manifest_is_one_json_line_a_shard(self, out):
        with open_output(out, PARTS) as output:
            output.commit(record(out, 0))
            output.commit(record(out, 1))
        lines = Path(out, "manifest.jsonl").read_text().splitlines()
        assert [json.loads(line)["position"] for line in lines] == [0, 1]


def test_an_object_store_gets_one_object_a_shard():
    out = f"memory://{uuid.uuid4().hex}/out"
    with open_output(out, PARTS) as output:
        output.commit(record(out, 12))
    assert open_store(out).names("manifest") == ["00012.json"]
