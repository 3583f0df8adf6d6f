"""Shards made to exhaust memory or time, and storages that fail."""

import gzip
import io
import random
import tracemalloc
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.corpus import columnar, streams
from tamis.corpus.document import Document, Quarantined
from tamis.corpus.readers import ReadLimits, ReadMeter, Shard, list_shards, read_shard
from tamis.task import Columns
from tests.corpus.broken_shards import PACKED, SUFFIXES, shard
from tests.memory import printed


def read(path, **limits):
    (listed,) = list_shards([str(path)])
    return list(read_shard(listed, Columns(), ReadLimits(**limits)))


def reasons(rows):
    return [row.reason for row in rows if isinstance(row, Quarantined)]


def texts(rows):
    return [row.text for row in rows if isinstance(row, Document)]


class peak:
    """Bytes that Python held at most, within a ``with`` block."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        self.bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


class TestText:
    def test_a_file_is_one_document(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_bytes(b"\xef\xbb\xbfone\n\ntwo\x00\n")
        (row,) = read(path)
        assert (row.text, row.source, row.metadata, row.row) == ("one\n\ntwo\n", "", {}, 0)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [(b"\xff\xfea\x00", "invalid_utf8"), (b" \n", "empty_text"), (b"x" * 101, "too_long")],
    )
    def test_one_that_is_none(self, tmp_path, data, reason):
        path = tmp_path / "a.txt"
        path.write_bytes(data)
        rows = read(path, max_line_bytes=100)
        assert reasons(rows) == [reason]
        assert rows[0].raw == data

    @pytest.mark.parametrize("packing", PACKED)
    def test_100_mb_are_not_held(self, tmp_path, packing):
        path = tmp_path / f"a.txt{packing}"
        path.write_bytes(PACKED[packing](b"word " * 20_000_000))
        with peak() as held:
            assert reasons(read(path, max_line_bytes=1_000_000)) == ["too_long"]
        assert held.bytes < 5_000_000

    def test_half_a_file_is_no_document(self, tmp_path):
        path = tmp_path / "a.txt.gz"
        data = gzip.compress(" ".join(map(str, range(9999))).encode())
        path.write_bytes(data[: len(data) // 2])
        assert reasons(read(path)) == ["corrupt_gzip"]


class TestBombs:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "warc"])
    @pytest.mark.parametrize("packing", [".gz", ".zst"])
    def test_a_stream_is_cut_where_it_becomes_one(self, tmp_path, monkeypatch, suffix, packing):
        monkeypatch.setattr(streams, "RATIO_FROM", 1 << 20)
        path = tmp_path / f"a.{suffix}{packing}"
        good = shard(suffix, ["first", "second"])
        if suffix == "warc":
            good += b"WARC/1.0\r\nWARC-Type: request\r\nContent-Length: 40000000\r\n\r\n"
        data = good + bytes(40_000_000)
        path.write_bytes(gzip.compress(data) if packing == ".gz" else PACKED[packing](data))
        with peak() as held:
            rows = read(path, max_ratio=500, max_line_bytes=100_000)
        assert texts(rows) == ["first", "second"]
        assert reasons(rows) == ["zip_bomb"]
        assert "became over" in rows[-1].detail
        assert held.bytes < 5_000_000

    def test_gzip_at_its_best_is_one(self, tmp_path):
        packer = zlib.compressobj(9, wbits=31)
        data = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(data)
        assert reasons(read(path)) == ["zip_bomb"]

    def test_repetitive_lines_are_none(self, tmp_path, monkeypatch):
        monkeypatch.setattr(streams, "RATIO_FROM", 1 << 20)
        chance = random.Random(0)
        names = [f"{chance.random()}" for _ in range(40)]
        lines = (
            f'{{"text": "{"the same words " * 20}{n} {i}"}}' for i in range(300) for n in names
        )
        data = "\n".join(lines).encode()
        path = tmp_path / "a.jsonl.zst"
        path.write_bytes(PACKED[".zst"](data))
        assert len(data) / path.stat().st_size > 50
        assert len(texts(read(path))) == 12_000

    def test_many_empty_members_are_no_harm(self, tmp_path):
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(b"") * 5_000 + gzip.compress(b'{"text": "a"}\n'))
        assert texts(read(path)) == ["a"]


class TestParquet:
    def test_a_column_that_becomes_too_much_is_not_decoded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(columnar, "RATIO_FROM", 1 << 20)
        path = tmp_path / "a.parquet"
        with pq.ParquetWriter(
            path, pa.schema([("text", pa.string())]), compression="zstd", use_dictionary=False
        ) as writer:
            writer.write_table(pa.table({"text": ["before"] * 5}))
            writer.write_table(pa.table({"text": ["0" * 1_000_000] * 50}))
            writer.write_table(pa.table({"text": ["after"] * 5}))
        rows = read(path, max_ratio=500)
        assert texts(rows) == ["before"] * 5 + ["after"] * 5
        assert [row.row for row in rows] == [0, 1, 2, 3, 4, 5, *range(55, 60)]
        assert [(row.reason, row.place) for row in rows if isinstance(row, Quarantined)] == [
            ("zip_bomb", "row group 1")
        ]

    def test_a_row_group_that_claims_too_much(self, tmp_path, monkeypatch):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": [f"t{i}" * 99 for i in range(99)]}), path)
        monkeypatch.setattr(columnar, "_GROUP_BYTES", 1_000)
        assert reasons(read(path)) == ["zip_bomb"]

    def test_one_value_in_every_row(self, tmp_path):
        # A dictionary holds a megabyte once, its rows each as a whole.
        path = tmp_path / "a.parquet"
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000), ["x" * 1_000_000])
        table = pa.table({"text": column, "id": [f"{i}" for i in range(1_000)]})
        pq.write_table(table, path, store_schema=False)
        assert pq.ParquetFile(path).schema_arrow.field("text").type == pa.string()
        assert path.stat().st_size < 1_000_000
        code = (
            "import sys\n"
            "from tamis.corpus.readers import list_shards, read_shard\n"
            "from tamis.task import Columns\n"
            "print(sum(1 for _ in read_shard(list_shards(sys.argv[1:])[0], Columns())))\n"
            "print(peak_mb())\n"
        )
        rows, megabytes = map(int, printed(code, path))
        assert rows == 1_000
        assert megabytes < 1_000

    def test_a_dictionary_typed_column(self, tmp_path):
        path = tmp_path / "a.parquet"
        column = pa.array(["one", "two", None, "one", " "]).dictionary_encode()
        pq.write_table(pa.table({"text": column, "n": [1, 2, 3, 4, 5]}), path)
        rows = read(path)
        assert texts(rows) == ["one", "two", "one"]
        assert reasons(rows) == ["missing_text", "empty_text"]

    @pytest.mark.parametrize("column", ["text", "other"])
    def test_a_cell_of_100_mb(self, tmp_path, column):
        path = tmp_path / "a.parquet"
        table = {name: ["fine"] * 3 for name in ("text", "other")}
        table[column] = ["fine", "x" * 100_000_000, "fine"]
        pq.write_table(pa.table(table), path, use_dictionary=False)
        del table
        with peak() as held:
            rows = read(path)
        assert texts(rows) == ["fine", "fine"]
        assert reasons(rows) == ["too_long"]
        assert "100,000,000 bytes" in rows[1].detail and rows[1].raw == b"x" * 4096
        assert held.bytes < 5_000_000

    def test_memory_does_not_grow_with_the_row_group(self, tmp_path):
        chance = random.Random(0)
        path = tmp_path / "a.parquet"
        words = [chance.randbytes(10_000).hex() for _ in range(4_000)]
        pq.write_table(pa.table({"text": words}), path, use_dictionary=False, compression="none")
        del words
        pool = pa.proxy_memory_pool(pa.default_memory_pool())
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        try:
            with peak() as held:
                (listed,) = list_shards([str(path)])
                assert sum(1 for _ in read_shard(listed, Columns())) == 4_000
        finally:
            pa.set_memory_pool(before)
        assert path.stat().st_size > 80_000_000
        assert held.bytes + pool.max_memory() < 75_000_000


class ClientError(Exception):
    """As clients of object stores raise them."""


class TestFailingStorage:
    KINDS = (*(f"{suffix}{packing}" for suffix in SUFFIXES for packing in PACKED), "parquet")

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("error", [OSError("gone"), ClientError("gone"), None], ids=repr)
    def test_is_an_os_error_and_never_a_short_shard(self, tmp_path, monkeypatch, kind, error):
        chance = random.Random(0)
        suffix, _, packing = kind.partition(".")
        data = shard(suffix, [chance.randbytes(60).hex() for _ in range(300)])
        path = tmp_path / f"a.{kind}"
        path.write_bytes(PACKED[f".{packing}" if packing else ""](data))
        (listed,) = list_shards([str(path)])
        left = [0]

        class Wire(io.FileIO):
            def read(self, size=-1):
                left[0] -= 1
                if left[0] < 0:
                    if error is None:  # it just ends, as if that were all
                        return b""
                    raise error
                return super().read(min(size, 4_096))

        monkeypatch.setattr(
            "fsspec.implementations.local.LocalFileSystem._open",
            lambda self, path, *args, **kwargs: Wire(path),
        )
        for reads in range(3):
            left[0] = reads
            with pytest.raises(OSError, match=r"gone|the storage ended"):
                list(read_shard(listed, Columns()))
        left[0] = 10_000
        assert not reasons(list(read_shard(listed, Columns())))

    def test_one_that_cannot_be_opened(self, tmp_path):
        missing = Shard("a", "nosuch://a.jsonl", "jsonl", "none", 5, "")
        with pytest.raises(OSError):
            list(read_shard(missing, Columns()))


class TestSurrogates:
    def test_a_lone_surrogate_never_reaches_a_writer(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(
            b'{"text": "a \\ud800 b"}\n{"text": "a", "m": "\\udfff"}\n{"text": "c", "\\ud800": 1}\n'
            b'{"text": "a", "n": {"deep": ["\\ud83d"]}}\n{"text": "\\ud83d\\ude00"}\n'
            b'{"text": "\xed\xa0\x80"}\n'
        )
        rows = read(path)
        assert texts(rows) == ["\U0001f600"]
        assert reasons(rows) == ["invalid_json"] * 4 + ["invalid_utf8"]

    def test_values_inside_values(self, tmp_path):
        path = tmp_path / "a.jsonl"
        fine, deep = ("[" * n + "]" * n for n in (150, 900))
        wide = ", ".join("[]" for _ in range(5_000))
        path.write_text(
            f'{{"text": "a", "m": {fine}}}\n{{"text": "b", "m": {deep}}}\n'
            f'{{"text": "c", "m": [{wide}]}}\n'
        )
        rows = read(path)
        assert texts(rows) == ["a", "c"]
        assert reasons(rows) == ["invalid_json"]


class TestMeter:
    @pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv.zst", "warc", "parquet"])
    def test_says_how_far_the_reading_has_come(self, tmp_path, kind):
        chance = random.Random(0)
        suffix, _, packing = kind.partition(".")
        data = shard(suffix, [chance.randbytes(500).hex() for _ in range(3_000)])
        path = tmp_path / f"a.{kind}"
        path.write_bytes(PACKED[f".{packing}" if packing else ""](data))
        (listed,) = list_shards([str(path)])
        meter = ReadMeter()
        shares = []
        for _ in read_shard(listed, Columns(), meter=meter):
            shares.append(meter.share)
        assert shares == sorted(shares)
        assert 0.3 < shares[1_499] < 0.7
        assert meter.share > 0.99


def test_a_300_mb_shard_is_read_in_little_memory(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    chance = random.Random(0)
    block = "".join(
        f'{{"text": "{chance.randbytes(40).hex()} {"word " * 400}"}}\n' for _ in range(1_000)
    ).encode()
    member = gzip.compress(block, 1)
    path.write_bytes(member * 150)
    assert len(block) * 150 > 300_000_000
    code = (
        "import sys\n"
        "from tamis.corpus.readers import list_shards, read_shard\n"
        "from tamis.task import Columns\n"
        "rows = read_shard(list_shards(sys.argv[1:])[0], Columns())\n"
        "for _ in range(10): next(rows)\n"
        "before = peak_mb()\n"
        "print(10 + sum(1 for _ in rows), peak_mb() - before)\n"
    )
    rows, grown = map(int, printed(code, path)[0].split())
    assert rows == 150_000
    assert grown < 20
