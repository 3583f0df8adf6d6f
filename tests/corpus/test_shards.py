import fsspec
import pytest

from tamis.corpus.readers import format_of, list_shards, read_shard
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


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("a.txt", ("text", "none")),
            ("a.TXT.GZ", ("text", "gzip")),
            ("CC-MAIN-20240517233122-00000.warc.gz", ("warc", "gzip")),
            ("CC-MAIN-20240517233122-00000.warc.wet.gz", ("wet", "gzip")),
            ("whirlwind.warc", ("warc", "none")),
            ("whirlwind.warc.wet", ("wet", "none")),
            ("a.wet.zst", ("wet", "zstd")),
            ("CC-MAIN-20240517233122-00000.warc.wat.gz", None),
            ("a.wat", None),
            ("a.parquet.gz", None),
            ("a.gz", None),
        ],
    )
    def test_by_suffix(self, name, kind):
        assert format_of(f"/some/folder/{name}") == kind

    def test_names_of_a_crawl_are_told_apart(self, tmp_path):
        for name in ("CC-1.warc.gz", "CC-1.warc.wet.gz", "CC-1.warc.wat.gz"):
            (tmp_path / name).write_bytes(b"x")
        assert [s.name for s in list_shards([str(tmp_path)])] == ["CC-1", "CC-1.warc"]


class TestLists:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        for name in ("a.jsonl", "b.jsonl", "sub/c.jsonl"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_one_input_a_line(self, folder):
        (folder / "list").write_text(
            f"# shards\n\nb.jsonl\r\n  {folder}/sub/* \n{folder}/b.jsonl\n"
        )
        assert [s.name for s in list_shards(["@list"])] == ["b", "c"]
        assert [s.name for s in list_shards(["a.jsonl", f"@{folder}/list"])] == ["a", "b", "c"]

    def test_from_a_url_and_with_urls(self):
        fs = fsspec.filesystem("memory")
        fs.pipe("/lists-test/a.jsonl", b"x")
        fs.pipe("/lists-test/list.txt", b"memory://lists-test/a.jsonl\n")
        (shard,) = list_shards(["@memory://lists-test/list.txt"])
        assert shard.url == "memory:///lists-test/a.jsonl"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a.jsonl\nnothing.jsonl\n", "list, line 2: .*matches no file"),
            ("@other\n", "list, line 1: a list cannot name a list"),
            ("\xff", "list 'list' cannot be read"),
            ("# nothing\n", "no input was given"),
        ],
    )
    def test_errors_name_list_and_line(self, folder, text, said):
        (folder / "list").write_bytes(text.encode("latin-1"))
        with pytest.raises(UsageError, match=said):
            list_shards(["@list"])

    def test_a_missing_list(self, folder):
        with pytest.raises(UsageError, match="list 'nowhere' cannot be read"):
            list_shards(["@nowhere"])


def test_a_listed_file_costs_one_question(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.jsonl" for i in range(5)]
    for path in paths:
        path.write_bytes(b"x")
    (tmp_path / "list").write_text("\n".join(map(str, paths)))
    asked = []
    local = type(fsspec.filesystem("file"))
    for name in ("info", "exists", "isdir", "find", "glob", "ls"):
        real = getattr(local, name)
        monkeypatch.setattr(
            local,
            name,
            lambda self, path, *a, _name=name, _real=real, **k: (
                asked.append(_name),
                _real(self, path, *a, **k),
            )[1],
        )
    assert len(list_shards([f"@{tmp_path}/list"])) == 5
    assert asked == ["info"] * 5
