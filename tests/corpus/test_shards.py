import pytest

from tamis.corpus.readers import list_shards, read_shard
from tamis.errors import UsageError
from tamis.task import Columns


class TestListShards:
    def test_folder_glob_and_file_name_the_same_files(self, tmp_path):
        (tmp_path / "sub").mkdir()
        for name in ("b.jsonl", "a.csv.gz", "sub/c.parquet", "d.ndjson.zst", "readme.md", ".x.csv"):
            (tmp_path / name).write_bytes(b"x")
        folder = list_shards([str(tmp_path)])
        assert [s.name for s in folder] == ["a", "b", "d", "sub-c"]
        assert [(s.format, s.compression) for s in folder] == [
            ("csv", "gzip"),
            ("jsonl", "none"),
            ("jsonl", "zstd"),
            ("parquet", "none"),
        ]
        assert [s.url for s in list_shards([f"{tmp_path}/**/*"])] == [s.url for s in folder]
        one = list_shards([str(tmp_path / "b.jsonl"), str(tmp_path), str(tmp_path / "b.jsonl")])
        assert [s.url for s in one] == [s.url for s in folder]
        assert [s.size for s in folder] == [1, 1, 1, 1]

    def test_names_are_unique_where_stems_are_not(self, tmp_path):
        for name in ("a.jsonl", "a.csv", "A.parquet"):
            (tmp_path / name).write_bytes(b"x")
        names = [shard.name for shard in list_shards([str(tmp_path)])]
        assert len({name.lower() for name in names}) == 3
        assert names == [shard.name for shard in list_shards([str(tmp_path)])]

    def test_stamp_changes_with_the_file(self, tmp_path):
        import os

        path = tmp_path / "a.jsonl"
        path.write_bytes(b"{}")
        (before,) = list_shards([str(path)])
        os.utime(path, (1, 1))
        (after,) = list_shards([str(path)])
        assert before.stamp != after.stamp

    def test_reads_urls(self):
        import fsspec

        fs = fsspec.filesystem("memory")
        fs.pipe("/readers-test/a.jsonl", b'{"text": "one"}\n')
        (shard,) = list_shards(["memory://readers-test"])
        assert shard.stamp is not None
        assert [row.text for row in read_shard(shard, Columns())] == ["one"]

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("nothing-here", "matches no file"),
            ("*.jsonl", "matches no file"),
            ("notes.md", "no known format"),
            ("", "no known format"),
        ],
    )
    def test_refuses_in_one_sentence(self, tmp_path, name, said):
        (tmp_path / "notes.md").write_text("x")
        with pytest.raises(UsageError, match=said) as caught:
            list_shards([str(tmp_path / name)])
        assert "\n" not in str(caught.value)

    def test_refuses_an_unknown_protocol_and_no_input(self):
        with pytest.raises(UsageError, match="cannot be listed"):
            list_shards(["nosuch://bucket/a.jsonl"])
        with pytest.raises(UsageError, match="no input"):
            list_shards([])
