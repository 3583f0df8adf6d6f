import random
import struct
import uuid

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.corpus import exact
from tamis.corpus.exact import (
    SECTIONS,
    find_duplicates,
    read_duplicates,
    sections_for,
    text_hash,
    write_hashes,
)
from tamis.corpus.store import open_store
from tamis.errors import DataError

ALL = range(SECTIONS)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    """An output on a local disk, and one on an object store."""
    if request.param == "local":
        yield open_store(str(tmp_path / "out"))
        return
    yield open_store(f"memory://{uuid.uuid4().hex}/out")
    fsspec.filesystem("memory").store.clear()


def corpus(shards, documents, texts, seed=0):
    """Shards of rows with texts out of a few: {row: text} each, rows with gaps."""
    chance = random.Random(seed)
    return [
        {
            row: f"text {chance.randrange(texts)}"
            for row in range(documents)
            if chance.random() < 0.8
        }
        for _ in range(shards)
    ]


def write(store, shards):
    paths = []
    for position, shard in enumerate(shards):
        rows = list(shard)
        random.Random(position).shuffle(rows)
        paths.append(f"work/{position:05d}.hashes")
        write_hashes(store, paths[-1], [text_hash(shard[row]) for row in rows], np.array(rows))
    return paths


def expected(shards):
    """What repeats, by a dictionary."""
    first, found = {}, [{} for _ in shards]
    for position, shard in enumerate(shards):
        for row in sorted(shard):
            owner = first.setdefault(shard[row], (position, row))
            if owner != (position, row):
                found[position][row] = owner
    return found


def find(store, paths, tasks=(ALL,)):
    outs = [f"work/{number}.duplicates" for number in range(len(tasks))]
    pairs = zip(tasks, outs, strict=True)
    count = sum(find_duplicates(store, paths, sections, out) for sections, out in pairs)
    found = [read_duplicates(store, outs, position) for position in range(len(paths))]
    assert count == sum(map(len, found))
    return found


class TestTextHash:
    def test_it_is_16_bytes_and_the_same_everywhere(self):
        assert text_hash("Hello world").hex() == "df8d09e93f874900a99b8775cc15b6c7"

    @pytest.mark.parametrize(
        "other",
        [
            "the café is open",
            "  The\tCAF\u00c9\r\nis   \n\n open\n",
            "The cafe\u0301 is\u00a0open",
            "The caf\u00e9 is\u3000 \u00a0 open",
            "the caf\u00e9" + " " * 1_000_001 + "is open",
        ],
    )
    def test_case_blanks_and_composition_do_not_count(self, other):
        assert text_hash("The caf\u00e9 is open") == text_hash(other)

    @pytest.mark.parametrize(
        "other", ["The cafe is open", "The caf\u00e9 is open.", "The caf\u00e9 isopen", ""]
    )
    def test_everything_else_does(self, other):
        assert text_hash("The caf\u00e9 is open") != text_hash(other)

    def test_ascii_folds_like_the_rest(self):
        for code in range(128):
            alone = chr(code)
            beside = text_hash(f"{alone}x \u00e9"), text_hash(f"{alone.lower()}x \u00e9")
            assert beside[0] == beside[1]
            assert (text_hash(alone) == text_hash("")) == alone.isspace()

    @given(st.text(st.characters()))
    @settings(max_examples=200, deadline=None)
    def test_no_string_breaks_it(self, text):
        assert len(text_hash(text)) == 16
        assert text_hash(f" {text}\n") == text_hash(text)

    def test_lone_surrogates_differ(self):
        assert text_hash("a \ud800") != text_hash("a \ud801")


class TestFindDuplicates:
    def test_it_finds_what_a_dictionary_finds(self, store):
        shards = corpus(12, 60, 300)
        assert find(store, write(store, shards)) == expected(shards)

    def test_tasks_together_find_what_one_finds(self, store):
        shards = corpus(5, 60, 100, seed=1)
        paths = write(store, shards)
        tasks = [range(0, 1), range(1, 100), range(100, 255), range(255, 256)]
        assert find(store, paths, tasks) == expected(shards)

    def test_the_order_of_writing_does_not_count(self, store):
        shards = corpus(3, 40, 30)
        paths = write(store, shards)
        for out in ("one", "two"):
            find_duplicates(store, paths, ALL, out)
            write_hashes(
                store,
                paths[1],
                [text_hash(shards[1][row]) for row in sorted(shards[1])],
                sorted(shards[1]),
            )
        assert store.read("one") == store.read("two")

    def test_equal_first_halves_are_not_equal_hashes(self, store):
        digests = [b"a" * 8 + bytes([i // 2] * 8) for i in range(6)]
        write_hashes(store, "a", digests, range(6))
        assert find(store, ["a"]) == [{1: (0, 0), 3: (0, 2), 5: (0, 4)}]

    def test_hashes_may_come_as_an_array(self, store):
        array = np.random.default_rng(0).integers(0, 256, (50, 16), dtype=np.uint8)
        one = write_hashes(store, "a", array, np.arange(50, dtype=np.uint64))
        other = write_hashes(store, "b", [row.tobytes() for row in array], range(50))
        assert store.read("a") == store.read("b")
        assert one.size == len(store.read("a"))
        assert one.sha256.digest() == other.sha256.digest()

    def test_empty_shards_and_no_shards(self, store):
        write_hashes(store, "empty", [], [])
        write_hashes(store, "one", [text_hash("x")], [9])
        assert find(store, ["empty", "one", "empty", "one"]) == [{}, {}, {}, {9: (1, 9)}]
        assert find(store, []) == []

    def test_rows_at_the_limit(self, store):
        last = (1 << 32) - 1
        write_hashes(store, "a", [b"x" * 16] * 2, [last, 0])
        assert find(store, ["a"]) == [{last: (0, 0)}]
        for rows in ([0, last + 1], [-1, 0]):
            with pytest.raises(DataError, match="rows must lie between"):
                write_hashes(store, "b", [b"x" * 16] * 2, rows)
        with pytest.raises(DataError, match="2 hashes but 1 rows"):
            write_hashes(store, "b", [b"x" * 16] * 2, [0])

    def test_a_task_reads_its_sections_only(self, store, monkeypatch):
        paths = write(store, corpus(2, 400, 5_000))
        read = []
        monkeypatch.setattr(
            exact.WorkFile,
            "read",
            lambda self, dtype, count, start, real=exact.WorkFile.read: (
                read.append(count * dtype.itemsize) or real(self, dtype, count, start)
            ),
        )
        find_duplicates(store, paths, range(10, 20), "out")
        records = sum(read) - len(paths) * 257 * 8
        whole = sum(len(store.read(path)) for path in paths) - len(paths) * (257 * 8 + 32)
        assert 0 < records < whole / 10


class TestDamage:
    @pytest.fixture
    def files(self, tmp_path):
        store = open_store(str(tmp_path))
        write_hashes(store, "a", [text_hash(str(i // 2)) for i in range(20)], range(20))
        find_duplicates(store, ["a"], ALL, "out")
        return store

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[:20],
            lambda data: data[:-1],
            lambda data: data + b"x" * 24,
            lambda data: b"PAR1" + data[4:],
            lambda data: data[:7] + b"\x02" + data[8:],
            lambda data: data[:8] + struct.pack("<Q", 1 << 62) + data[16:],
            lambda data: data[:40] + struct.pack("<Q", 1 << 62) + data[48:],
            lambda data: data[:32] + struct.pack("<Q", 1 << 62) + data[40:],
        ],
    )
    def test_damaged_files_are_told(self, files, damage):
        files.write("b", damage(files.read("a")))
        with pytest.raises(DataError, match="b "):
            find_duplicates(files, ["a", "b"], ALL, "other")
        files.write("out", damage(files.read("out")))
        with pytest.raises(DataError, match="out "):
            read_duplicates(files, ["out"], 0)

    def test_the_wrong_kind_version_or_shard(self, files):
        with pytest.raises(DataError, match="not the work file"):
            read_duplicates(files, ["a"], 0)
        with pytest.raises(DataError, match="knows 1 shards, none at 1"):
            read_duplicates(files, ["out"], 1)
        with pytest.raises(DataError, match="gone is not there"):
            find_duplicates(files, ["gone"], ALL, "other")
        data = bytearray(files.read("a"))
        data[7] = 9
        files.write("a", bytes(data))
        with pytest.raises(DataError, match="version 9, this is version 1"):
            find_duplicates(files, ["a"], ALL, "other")


@pytest.mark.parametrize("workers", [0, 1, 7, 1_000])
@pytest.mark.parametrize("documents", [0, 100, 3_000_000, 10**9, 10**11])
def test_sections_are_shared_out_once(documents, workers):
    tasks = sections_for(documents, workers)
    assert [section for task in tasks for section in task] == list(ALL)
    assert all(tasks)
    if documents <= exact.RECORDS_PER_TASK:
        assert len(tasks) <= max(1, workers)
    largest = max(len(task) for task in tasks) * documents / SECTIONS
    assert largest < 1.3 * exact.RECORDS_PER_TASK or len(tasks) == SECTIONS
