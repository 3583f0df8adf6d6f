import uuid
from pathlib import Path

import fsspec
import pytest

from tamis.corpus.manifest import Counts, ShardRecord, read_manifest
from tamis.corpus.output import open_output
from tamis.corpus.store import open_store
from tamis.errors import EngineError, ResumeRefused, UsageError

PARTS = {"threshold": "3.0"}


@pytest.fixture(params=["local", "memory"])
def out(request, tmp_path):
    """An output on a local disk, and one on an object store."""
    if request.param == "local":
        yield str(tmp_path / "out")
        return
    yield f"memory://{uuid.uuid4().hex}/out"
    fsspec.filesystem("memory").store.clear()


def record(position):
    return ShardRecord(shard="s", position=position, counts=Counts())


class TestStore:
    """Intermediate files, further ledgers, what killed runs leave."""

    def test_ledgers_are_told_apart(self, out):
        store = open_store(out)
        store.append(0, b"manifest")
        store.append(0, b"sift 0", "sift")
        store.append(1, b"sift 1", "sift")
        assert list(store.records()) == [b"manifest"]
        assert list(store.records("sift")) == [b"sift 0", b"sift 1"]
        assert list(store.records("near")) == []

    @pytest.mark.parametrize("name", ["../manifest", "a/b", ".", "Sift"])
    def test_a_ledger_has_a_plain_name(self, out, name):
        with pytest.raises(ValueError, match="ledger"):
            open_store(out).append(0, b"x", name)

    def test_many_records_come_back_in_order(self, out):
        store = open_store(out)
        for number in range(150):
            store.append(number, b"%d" % number)
        assert list(store.records()) == [b"%d" % number for number in range(150)]

    def test_work_goes_with_clear_whatever_its_files_are_called(self, out):
        with open_output(out, PARTS) as output:
            output.store.write("work/near/a b/x.bin", b"x")
            output.store.write("work/y", b"y")
            output.store.append(0, b"z", "sift")
            output.store.append(7, b"x")
            output.store.clear()
            assert [name for name in output.store.names() if name[0] != "."] == []

    def test_a_folder_is_removed_with_all_below_it(self, out):
        store = open_store(out)
        store.write("work/near/a/x", b"x")
        store.write("work/near/y", b"x")
        store.write("work/nearby", b"x")
        store.remove_tree("work/near")
        store.remove_tree("work/near")
        store.remove_tree("work/never")
        assert store.names("work") == ["nearby"]

    @pytest.mark.parametrize("path", ["", ".", "/", "/tmp", "work/../kept", ".."])
    def test_never_the_output_itself(self, out, path):
        store = open_store(out)
        store.write("kept/a", b"x")
        with pytest.raises(ValueError, match="below"):
            store.remove_tree(path)
        assert store.names("kept") == ["a"]

    def test_a_work_file_is_read_from_any_place(self, out):
        store = open_store(out)
        store.write("work/near/x.bin", bytes(range(200)))
        with store.open("work/near/x.bin") as file:
            file.seek(100)
            assert file.read(3) == b"def"
            file.seek(1)
            assert file.read(1) == b"\x01"

    def test_sweep_removes_what_no_record_names(self, out):
        store = open_store(out)
        for part in ("kept", "dropped", "duplicates", "quarantine"):
            store.write(f"{part}/00000-a.parquet", b"x")
        for name in ("00001-a.near.parquet", "00002-b.3fa2.jsonl.zst", ".tmp-1", "notes.txt"):
            store.write(f"kept/{name}", b"x")
        assert store.sweep({"kept/00000-a.parquet", "duplicates/00000-a.parquet"}) == 5
        assert store.names("kept") == ["00000-a.parquet", "notes.txt"]
        assert store.names("duplicates") == ["00000-a.parquet"]
        assert store.names("dropped") == store.names("quarantine") == []

    def test_sweep_leaves_rows_of_earlier_runs_of_a_table(self, out):
        store = open_store(out)
        for run in ("r1", "r2"):
            store.write(f"kept/00000-a.{run}.parquet", b"x")
            store.write(f"kept/00001-a.{run}.parquet", b"x")
            store.write(f"quarantine/00000-a.{run}.jsonl.zst", b"x")
        named = {"kept/00000-a.r2.parquet", "quarantine/00000-a.r2.jsonl.zst"}
        assert store.sweep(named, run="r2") == 2
        assert store.names("kept") == [
            "00000-a.r1.parquet",
            "00000-a.r2.parquet",
            "00001-a.r1.parquet",
        ]
        assert store.names("quarantine") == ["00000-a.r2.jsonl.zst"]

    def test_clear_leaves_the_files_of_a_table(self, out):
        with open_output(out, PARTS) as output:
            output.commit(record(0))
            output.store.write("kept/00000-a.parquet", b"x")
            output.store.write("work/x", b"x")
            output.store.write("report.html", b"x")
            output.store.clear(keep_table=True)
            assert list(output.store.records()) == []
            names = [name for name in output.store.names() if name[0] != "."]
            assert names == ["kept", "run.json"]

    def test_torn_ledgers_are_repaired(self, tmp_path):
        out = str(tmp_path / "out")
        with open_output(out, PARTS) as output:
            output.store.append(0, b"whole", "sift")
            output.store.append(0, b"whole", "near")
        for name in ("sift", "near"):
            with Path(out, "work", f"{name}.jsonl").open("ab") as file:
                file.write(b'{"tor')
        with open_output(out, PARTS) as output:
            assert list(output.store.records("sift")) == [b"whole"]
            output.store.append(1, b"next", "sift")
            output.store.append(1, b"next", "near")
            assert list(output.store.records("sift")) == [b"whole", b"next"]
            assert list(output.store.records("near")) == [b"whole", b"next"]

    def test_a_link_below_work_is_not_followed(self, tmp_path):
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "thesis.tex").write_text("x")
        out = tmp_path / "out"
        (out / "work" / "a").mkdir(parents=True)
        (out / "work" / "a" / "link").symlink_to(mine)
        (out / "work" / "top").symlink_to(mine)
        store = open_store(str(out))
        store.remove_tree("work/top")
        store.remove_tree("work")
        assert (mine / "thesis.tex").exists() and not (out / "work").exists()


class TestRemote:
    """What only an object store can do to us."""

    @pytest.fixture
    def out(self):
        yield f"memory://{uuid.uuid4().hex}/out"
        fsspec.filesystem("memory").store.clear()

    def test_a_second_run_is_kept_out(self, out):
        said = pytest.raises(UsageError, match="another run is writing to memory://")
        with open_output(out, PARTS), said:
            open_output(out, PARTS)
        open_output(out, PARTS).close()
        assert ".lock" not in open_store(out).names()

    def test_the_lock_is_given_back_after_an_error(self, out):
        open_output(out, PARTS).close()
        with pytest.raises(ResumeRefused):
            open_output(out, {})
        assert ".lock" not in open_store(out).names()

    def test_nothing_is_committed_once_the_lock_is_lost(self, out):
        with open_output(out, PARTS) as output:
            output.commit(record(0))
            store = open_store(out)
            store.remove(".lock")
            with open_output(out, PARTS) as other:
                with pytest.raises(EngineError, match="lock"):
                    output.commit(record(1))
                other.commit(record(1))
        assert ".lock" not in store.names()
        assert [shard.position for shard in read_manifest(out).shards] == [0, 1]

    def test_what_a_client_raises_is_a_storage_error(self, out, monkeypatch):
        store = open_store(out)

        def broken(*_, **__):
            raise AttributeError("location")

        monkeypatch.setattr(store.fs, "put_file", broken)
        with pytest.raises(OSError, match="AttributeError: location"):
            store.write("kept/a", b"x")
