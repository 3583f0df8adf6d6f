import pytest

from deployment.paths import is_url, require_shared_sources, require_urls
from tamis.errors import UsageError
from tests.tiny import tiny_task

TOLD = "which lies on this machine; allowed with a stack on Vertex AI: URLs such as gs://"


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("gs://bucket/folder/*.jsonl", True),
        ("s3://bucket/a", True),
        ("https://example.org/a.jsonl.gz", True),
        ("hf://datasets/a/b", True),
        ("@gs://bucket/list.txt", True),
        ("file:///data/a.jsonl", False),
        ("local://data/a.jsonl", False),
        ("memory://a", False),
        ("@file:///data/list.txt", False),
        ("/data/a.jsonl", False),
        ("data/*.jsonl", False),
        ("@list.txt", False),
        ("packages", False),
        ("", False),
        ("gs:/bucket/a", False),
        ("C:\\data\\a.jsonl", False),
    ],
)
def test_which_paths_other_machines_see(path, shared):
    assert is_url(path) is shared


def test_the_first_path_of_this_machine_is_named():
    require_urls("--input", [])
    require_urls("--input", ["gs://bucket/a", "https://example.org/b"])
    with pytest.raises(UsageError) as caught:
        require_urls("--input", ["gs://bucket/a", "data/b.jsonl", "c.jsonl"])
    told = str(caught.value)
    assert told.startswith(f"--input: given 'data/b.jsonl', {TOLD}") and "\n" not in told
    assert caught.value.exit_code == 2


def files(path):
    return {"kind": "files", "path": path}


@pytest.mark.parametrize(
    "sources",
    [
        [{"kind": "packages"}],
        [files("gs://bucket/a.csv")],
        [files(("gs://bucket/a.csv", "hf://datasets/a/b.parquet")), {"kind": "packages"}],
    ],
)
def test_documents_that_other_machines_read(sources, tmp_path):
    require_shared_sources(tiny_task(tmp_path, sources=sources))


def test_a_dataset_that_lies_here_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    source = {"kind": "hub", "dataset": str(tmp_path / "set"),
              "columns": {"text": "text", "label": "label"}}  # fmt: skip
    with pytest.raises(UsageError, match=r"toy: sources\.0\.dataset: given "):
        require_shared_sources(tiny_task(tmp_path, sources=[source]))
    require_shared_sources(tiny_task(tmp_path, sources=[source | {"dataset": "name/of-one"}]))


@pytest.mark.parametrize(
    ("more", "where", "given"),
    [
        ({"sources": [files("a.csv")]}, "sources.0.path", "a.csv"),
        (
            {"sources": [{"kind": "packages"}, files(("gs://bucket/a.csv", "/data/b.csv"))]},
            "sources.1.path", "/data/b.csv",
        ),
        ({"retrain": {"window": files("new.csv")}}, "retrain.window.path", "new.csv"),
        ({"retrain": {"window": files("file:///new.csv")}}, "retrain.window.path", "file:///new"),
    ],
)  # fmt: skip
def test_documents_on_this_machine_are_refused_with_their_place(more, where, given, tmp_path):
    with pytest.raises(UsageError) as caught:
        require_shared_sources(tiny_task(tmp_path, **more))
    assert str(caught.value).startswith(f"toy: {where}: given '{given}")
    assert TOLD in str(caught.value)
