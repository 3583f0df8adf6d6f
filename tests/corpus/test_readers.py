import csv
import gzip
import io
import json
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tamis.corpus.document import Document, Quarantined, content_hash, normalise
from tamis.corpus.readers import ReadLimits, list_shards, read_shard
from tamis.task import Columns


def read(path, columns=None, **limits):
    (shard,) = list_shards([str(path)])
    return list(read_shard(shard, columns or Columns(), ReadLimits(**limits)))


def split(rows):
    documents = [row for row in rows if isinstance(row, Document)]
    return documents, [row for row in rows if isinstance(row, Quarantined)]


def reasons(rows):
    return [row.reason for row in rows if isinstance(row, Quarantined)]


def jsonl(texts):
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def noise(rows, seed=0):
    """Texts that do not compress away."""
    chance = random.Random(seed)
    return [f"{i} " + "".join(chance.choices("abcdefghij ", k=200)) for i in range(rows)]


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


class TestJsonl:
    def test_fields_and_metadata(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text(
            '{"body": "hello", "key": 7, "site": "x.org", "year": 2020}\n\n'
            '{"body": "world", "key": null, "label": 3}\n'
        )
        columns = Columns(text="body", id="key", source="site", label="label")
        first, second = read(path, columns)
        assert first == Document("7", "hello", "x.org", "a", 0, {"year": 2020})
        assert second == Document(content_hash("world"), "world", "", "a", 1, {"label": 3})

    def test_id_and_source_are_found_unasked(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "t", "id": "abc", "source": "s"}\n{"text": "a\\r\\nb  \\nc"}')
        first, second = read(path)
        assert (first.id, first.source, first.metadata) == ("abc", "s", {})
        assert second.id == content_hash(normalise("a\r\nb  \nc"))
        assert second.text == "a\r\nb  \nc"

    def test_a_column_that_serves_twice_stays_in_the_metadata(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "t", "site": "x"}\n')
        (row,) = read(path, Columns(source="site", group="site"))
        assert (row.source, row.metadata) == ("x", {"site": "x"})

    def test_every_kind_of_broken_line(self, tmp_path):
        broken = {
            b'{"text": "cut': "invalid_json",
            b"nonsense": "invalid_json",
            b'{"text": "\\ud800"}': "invalid_json",
            b"[" * 100_000: "invalid_json",
            b'["text"]': "not_an_object",
            b"3": "not_an_object",
            b'{"text": "\xff\xfe"}': "invalid_utf8",
            b'{"other": 1}': "missing_text",
            b'{"text": null}': "missing_text",
            b'{"text": 5}': "text_not_string",
            b'{"text": ["a"]}': "text_not_string",
            b'{"text": ""}': "empty_text",
            b'{"text": " \\n\\t"}': "empty_text",
            b'{"text": "\\u0000\\u0000"}': "empty_text",
            b"\x00\x00\x00": "invalid_json",
        }
        lines = [part for line in broken for part in (line, b'{"text": "good"}')]
        path = tmp_path / "a.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
        documents, bad = split(read(path))
        assert [row.reason for row in bad] == list(broken.values())
        assert len(documents) == len(broken)
        assert sorted(row.row for row in documents + bad) == list(range(2 * len(broken)))
        assert bad[1].raw == b"nonsense\r"
        assert bad[1].place == "line 3"
        assert all(row.detail and row.shard == "a" for row in bad)

    def test_nul_bytes_are_dropped_from_texts(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"text": "a\\u0000b"}\n{"text": "c\x00d"}\n')
        assert [row.text for row in read(path)] == ["ab", "cd"]

    def test_a_50_mb_line_is_skipped_without_holding_it(self, tmp_path):
        path = tmp_path / "a.jsonl"
        with path.open("wb") as file:
            file.write(b'{"text": "before"}\n{"text": "')
            for _ in range(50):
                file.write(b"x" * 1_000_000)
            file.write(b'"}\n{"text": "after"}\n')
        tracemalloc.start()
        rows = read(path, max_line_bytes=2_000_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        documents, (bad,) = split(rows)
        assert [row.text for row in documents] == ["before", "after"]
        assert (bad.reason, bad.row, bad.place) == ("too_long", 1, "line 2")
        assert bad.raw.startswith(b'{"text": "xxx') and len(bad.raw) <= 4096
        assert peak < 8_000_000

    def test_a_line_of_exactly_the_limit_is_read(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"text": "12345"}\n{"text": "123456"}\n')
        assert reasons(read(path, max_line_bytes=17)) == ["too_long"]
        assert reasons(read(path, max_line_bytes=18)) == []

    @pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet"])
    def test_an_empty_file_has_no_documents(self, tmp_path, suffix):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"")
        assert read(path) == []

    def test_memory_does_not_grow_with_the_shard(self, tmp_path):
        path = tmp_path / "a.jsonl.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(30):
                file.write(jsonl(["word " * 200_000]))
        (shard,) = list_shards([str(path)])
        tracemalloc.start()
        count = sum(1 for _ in read_shard(shard, Columns()))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 30
        assert peak < 10_000_000

    def test_a_failing_storage_is_not_taken_for_a_short_shard(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(jsonl(["a"]))
        (shard,) = list_shards([str(path)])
        path.unlink()
        with pytest.raises(OSError):
            list(read_shard(shard, Columns()))

    @pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst", "csv.gz", "parquet"])
    @pytest.mark.parametrize("good_reads", [0, 1, 3])
    def test_a_storage_that_fails_midway_is_an_error(
        self, tmp_path, monkeypatch, suffix, good_reads
    ):
        path = tmp_path / f"a.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"text": noise(20_000)}), path, row_group_size=1000)
        else:
            codec = "gzip" if suffix.endswith("gz") else "zstd"
            data = b"text\n" + "\n".join(noise(20_000)).encode()
            path.write_bytes(pa.compress(data, codec=codec, asbytes=True))

        reads = []

        class Failing(io.FileIO):
            def read(self, size=-1):
                reads.append(size)
                if len(reads) == good_reads + 1:  # once: whoever tries again succeeds
                    raise OSError("the network is gone")
                return super().read(size)

        monkeypatch.setattr(
            "fsspec.implementations.local.LocalFileSystem._open",
            lambda self, path, *args, **kwargs: Failing(path),
        )
        with pytest.raises(OSError, match="the network is gone"):
            read(path)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.one_of(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(
                    lambda text: json.dumps({"text": text}).encode()
                ),
                st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")),
                st.just(b'{"text": "fine"}'),
            ),
            max_size=30,
        ),
        st.sampled_from(["none", "gzip", "zstd"]),
    )
    def test_every_line_is_one_row(self, tmp_path, lines, compression):
        data = b"\n".join(lines)
        suffix = {"none": "", "gzip": ".gz", "zstd": ".zst"}[compression]
        if compression != "none":
            data = pa.compress(data, codec=compression, asbytes=True)
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(data)
        rows = read(path)
        bom = b"\xef\xbb\xbf"
        first = [line.removeprefix(bom) for line in lines[:1]]
        wanted = sum(1 for line in first + lines[1:] if line and not line.isspace())
        assert [row.row for row in rows] == list(range(wanted))
        fine = sum(line == b'{"text": "fine"}' for line in lines)
        assert sum(isinstance(row, Document) and row.text == "fine" for row in rows) >= fine


@pytest.mark.parametrize("kind", ["gz", "zst"])
class TestCompressed:
    def compressed(self, data, kind):
        if kind == "gz":
            return gzip.compress(data, mtime=0)
        return pa.compress(data, codec="zstd", asbytes=True)

    def test_reads_concatenated_members(self, tmp_path, kind):
        path = tmp_path / f"a.jsonl.{kind}"
        path.write_bytes(b"".join(self.compressed(jsonl([t]), kind) for t in "abc"))
        assert [row.text for row in read(path)] == ["a", "b", "c"]

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.999])
    def test_truncated_keeps_the_rows_before(self, tmp_path, kind, share):
        texts = noise(5000)
        whole = self.compressed(jsonl(texts), kind)
        path = tmp_path / f"a.jsonl.{kind}"
        path.write_bytes(whole[: int(len(whole) * share)])
        documents, (bad,) = split(read(path))
        # zstd gives whole blocks of 128 KiB only.
        assert len(documents) > len(texts) * share * 0.6
        assert [row.text for row in documents] == texts[: len(documents)]
        assert bad.reason == f"corrupt_{'gzip' if kind == 'gz' else 'zstd'}"
        assert bad.row == len(documents)
        assert bad.place == f"line {len(documents) + 1}"

    def test_trailing_garbage_is_reported(self, tmp_path, kind):
        path = tmp_path / f"a.jsonl.{kind}"
        path.write_bytes(self.compressed(jsonl(["a", "b"]), kind) + b"garbage")
        documents, (bad,) = split(read(path))
        assert [row.text for row in documents] == ["a", "b"]
        assert bad.reason.startswith("corrupt_")

    def test_not_compressed_at_all(self, tmp_path, kind):
        path = tmp_path / f"a.jsonl.{kind}"
        path.write_bytes(jsonl(["a"]))
        documents, (bad,) = split(read(path))
        assert not documents
        assert bad.row == 0


class TestCsv:
    def test_quotes_newlines_and_metadata(self, tmp_path):
        path = tmp_path / "a.csv"
        write_csv(path, [["id", "text", "year"], ["1", 'a "b",\nc', "2020"], ["", "d", "2021"]])
        first, second = read(path)
        assert first == Document("1", 'a "b",\nc', "", "a", 0, {"year": "2020"})
        assert second.id == content_hash("d")

    def test_broken_rows(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_bytes(
            b"\xef\xbb\xbfid,text\r\n1,good\r\n2\r\n3,too,many\r\n\r\n4,\xff\r\n5,\r\n"
            b'6,"a"b\r\n7,good\r\n8,"never closed\r\n9,swallowed\r\n'
        )
        documents, bad = split(read(path))
        assert [row.id for row in documents] == ["1", "7"]
        assert [row.reason for row in bad] == [
            "wrong_field_count",
            "wrong_field_count",
            "invalid_utf8",
            "empty_text",
            "invalid_csv",
            "invalid_csv",
        ]
        assert bad[0].raw == b"2\r\n"
        assert bad[-1].place == "line 10-11"
        assert sorted(row.row for row in documents + bad) == list(range(8))

    def test_long_fields_and_records(self, tmp_path):
        path = tmp_path / "a.csv"
        long = "x" * 200_000  # over the csv module's own default limit
        unclosed = '"' + ("y" * 19 + "\n") * 30_000
        path.write_text(f"text\n{long}\n{unclosed}")
        documents, bad = split(read(path))
        assert [len(row.text) for row in documents] == [200_000]
        assert [row.reason for row in bad] == ["invalid_csv"]
        documents, bad = split(read(path, max_line_bytes=300_000))
        assert [len(row.text) for row in documents if row.text[0] == "x"] == [200_000]
        assert bad[0].reason in ("too_long", "invalid_csv")

    @pytest.mark.parametrize("header", ["id,body", "text,text", '"text', "text,\xff"])
    def test_a_useless_header_quarantines_the_shard(self, tmp_path, header):
        path = tmp_path / "a.csv"
        path.write_bytes(header.encode("latin-1") + b"\n1,2\n")
        (row,) = read(path)
        assert isinstance(row, Quarantined)
        assert (row.row, row.reason) == (-1, "bad_header")

    def test_truncated_gzip_drops_the_half_row(self, tmp_path):
        buffer = io.StringIO()
        csv.writer(buffer).writerows([["text"], *([text] for text in noise(2000))])
        whole = gzip.compress(buffer.getvalue().encode())
        path = tmp_path / "a.csv.gz"
        path.write_bytes(whole[: len(whole) // 2])
        documents, (bad,) = split(read(path))
        assert [row.text for row in documents] == noise(2000)[: len(documents)]
        assert len(documents) > 500
        assert bad.reason == "corrupt_gzip"


class TestParquet:
    def write(self, path, table, **options):
        pq.write_table(pa.table(table), path, **options)
        return path

    def test_rows_of_several_groups(self, tmp_path):
        table = {"text": [f"t{i}" for i in range(50)], "id": list(range(50)), "n": [None] * 50}
        path = self.write(tmp_path / "a.parquet", table, row_group_size=20)
        rows = read(path, batch_rows=7)
        assert [row.text for row in rows] == table["text"]
        assert [row.row for row in rows] == table["id"]
        assert rows[3] == Document("3", "t3", "", "a", 3, {"n": None})

    def test_broken_values(self, tmp_path):
        raw = pa.array([b"good", b"\xff\xfe", b"x" * 50, b" "], pa.binary())
        bad = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2])
        path = self.write(tmp_path / "a.parquet", {"text": bad})
        rows = read(path, max_line_bytes=20)
        assert reasons(rows) == ["invalid_utf8", "too_long", "empty_text"]
        assert rows[1].raw == b"\xff\xfe"
        path = self.write(tmp_path / "b.parquet", {"text": raw})
        assert reasons(read(path)) == ["invalid_utf8", "empty_text"]
        path = self.write(tmp_path / "c.parquet", {"text": pa.array([1, None])})
        assert reasons(read(path)) == ["text_not_string", "missing_text"]

    def test_without_the_text_column(self, tmp_path):
        (row,) = read(self.write(tmp_path / "a.parquet", {"body": ["x"]}))
        assert (row.row, row.reason) == (-1, "missing_column")
        assert "body" in row.detail

    @pytest.mark.parametrize("data", [b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 50])
    def test_not_parquet(self, tmp_path, data):
        path = tmp_path / "a.parquet"
        path.write_bytes(data)
        (row,) = read(path)
        assert (row.row, row.reason) == (-1, "corrupt_parquet")

    def test_a_truncated_file(self, tmp_path):
        path = self.write(tmp_path / "a.parquet", {"text": noise(100)})
        path.write_bytes(path.read_bytes()[:-20])
        assert reasons(read(path)) == ["corrupt_parquet"]

    def test_one_corrupt_row_group_leaves_the_others(self, tmp_path):
        texts = noise(300)
        path = self.write(
            tmp_path / "a.parquet",
            {"text": texts},
            row_group_size=100,
            compression="zstd",
            use_dictionary=False,
            write_page_checksum=True,
        )
        group = pq.ParquetFile(path).metadata.row_group(1).column(0)
        data = bytearray(path.read_bytes())
        middle = group.data_page_offset + group.total_compressed_size // 2
        data[middle : middle + 50] = b"\0" * 50
        path.write_bytes(data)
        documents, (bad,) = split(read(path))
        assert [row.text for row in documents] == texts[:100] + texts[200:]
        assert [row.row for row in documents] == [*range(100), *range(200, 300)]
        assert (bad.row, bad.place) == (100, "row group 1")
        assert "100 of its 100 rows" in bad.detail
