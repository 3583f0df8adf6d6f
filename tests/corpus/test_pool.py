import pytest

from tamis.corpus import packages, pool
from tamis.corpus.document import Document
from tamis.corpus.packages import PackageDocument
from tamis.corpus.pool import pool_shards
from tamis.corpus.readers import list_shards, read_shard
from tamis.task import Columns


@pytest.fixture
def few(monkeypatch):
    """A pool of 7 documents in shards of 3; the calls to read it are counted."""
    calls = []
    documents = [
        PackageDocument("news", f"gensim==1:file#{i}", f"Story {i}\nwith \u2028 and é")
        for i in range(7)
    ]

    def read_pool(*args, **kwargs):
        calls.append(kwargs)
        yield from documents

    monkeypatch.setattr(packages, "read_pool", read_pool)
    monkeypatch.setattr(packages, "version", lambda: "0123456789abcdef" * 4)
    monkeypatch.setattr(pool, "DOCUMENTS_PER_SHARD", 3)
    return documents, calls


def test_the_pool_is_laid_out_in_shards_that_read_back(tmp_path, few):
    documents, calls = few
    folder = pool_shards(tmp_path / "corpora", workers=2)
    assert folder == tmp_path / "corpora" / "packages-0123456789ab"
    assert calls == [{"workers": 2}]
    shards = list_shards([str(folder)])
    assert [shard.name for shard in shards] == ["pool-000", "pool-001", "pool-002"]
    rows = [row for shard in shards for row in read_shard(shard, Columns())]
    assert all(isinstance(row, Document) for row in rows)
    assert [(row.id, row.source, row.text) for row in rows] == [
        (document.origin, document.genre, document.text) for document in documents
    ]


def test_a_second_call_does_nothing(tmp_path, few):
    _, calls = few
    folder = pool_shards(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert pool_shards(tmp_path) == folder
    assert len(calls) == 1
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_other_packages_make_another_pool(tmp_path, few, monkeypatch):
    one = pool_shards(tmp_path)
    monkeypatch.setattr(packages, "version", lambda: "f" * 64)
    two = pool_shards(tmp_path)
    assert one != two
    assert one.is_dir()
    assert len(few[1]) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_reading_that_is_cut_short_leaves_nothing_behind(tmp_path, few, monkeypatch, error):
    documents, _ = few

    def broken(**kwargs):
        yield from documents[:5]
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(packages, "read_pool", broken)
        with pytest.raises(error):
            pool_shards(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(list(pool_shards(tmp_path).iterdir())) == 3


def test_what_a_killed_process_left_is_not_taken_for_the_pool(tmp_path, few):
    staging = tmp_path / "tmpabc" / "pool"
    staging.mkdir(parents=True)
    (staging / "pool-000.jsonl.zst").write_bytes(b"half")
    folder = pool_shards(tmp_path)
    assert len(few[1]) == 1
    assert len(list_shards([str(folder)])) == 3


def test_whoever_comes_second_takes_the_pool_of_the_first(tmp_path, few, monkeypatch):
    documents, _ = few
    target = tmp_path / "packages-0123456789ab"

    def overtaken(**kwargs):
        yield from documents
        target.mkdir()
        (target / "pool-000.jsonl.zst").write_bytes(b"theirs")

    monkeypatch.setattr(packages, "read_pool", overtaken)
    assert pool_shards(tmp_path) == target
    assert [path.read_bytes() for path in target.iterdir()] == [b"theirs"]
    assert list(tmp_path.iterdir()) == [target]
