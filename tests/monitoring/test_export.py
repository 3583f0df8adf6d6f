import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.retrain import with_window
from tamis.corpus.sources import ingest_window
from tamis.errors import UsageError
from tamis.monitoring.export import export, window_source
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.windows import Reader
from tamis.task import FilesSource, load_task
from tests.monitoring.test_feedback import give, label
from tests.monitoring.test_windows import EVER, at, segment
from tests.program import small_task

CUSTOM = """\
name: custom
target: {kind: binary, negative: bad, positive: good}
sources:
  - kind: files
    path: "*.tsv"
    columns: {text: body, label: stars}
    table: {delimiter: "\\t", header: [body, stars]}
    labels: {kind: cut, at: 3, below: bad, otherwise: good}
"""


def written(folder, name, everything=False):
    with Reader(folder, RequestLogSettings(keep="text")) as reader:
        return export(reader, *EVER, folder / name, everything)


def rows(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["w.parquet", "w.jsonl"])
def test_each_text_is_there_once_with_its_last_label(tmp_path, name):
    served = [
        at(0, 1, text="same text"),
        at(1, 2, text="same text "),
        at(2, 3, text="other"),
        at(2, 3, text="other", shadow=True, model_version="toy/2"),
        at(3, 4, text=None),
        at(4, 5, text="same text"),
    ]
    segment(tmp_path, served)
    give(tmp_path, label(9, 2, 4), label(9, 1, 2), label(10, 1, 3), label(10, 77, 1))
    done = written(tmp_path, name)
    found = {row["id"]: row["label"] for row in rows(tmp_path / name)}
    assert found == {"doc-1": "3", "doc-3": None}
    assert (done.documents, done.labelled, done.repeated, done.without_text) == (2, 1, 2, 1)
    assert (done.labels, done.unknown, done.replaced) == (4, 1, 1)


def test_everything_is_every_record_as_it_was_logged(tmp_path):
    segment(tmp_path, [at(0, 1), at(1, 1), at(2, 2, shadow=True), at(3, 3, text=None)])
    assert written(tmp_path, "all.parquet", everything=True).documents == 4
    found = rows(tmp_path / "all.parquet")
    assert [row["shadow"] for row in found] == [False, False, True, False]
    assert "embedding" in found[0]


@pytest.mark.parametrize("name", ["w.parquet", "w.jsonl"])
@pytest.mark.parametrize("text", [CUSTOM, None], ids=["own columns", "packages"])
def test_retraining_reads_a_window_as_it_is_whatever_the_task_reads_else(tmp_path, name, text):
    segment(tmp_path, [at(n, n, text=f"text number {n}") for n in range(4)])
    values = ["good", "bad", "nonsense"] if text else [4.0, 0.5, "nonsense"]
    give(tmp_path, *(label(9, number, value) for number, value in enumerate(values)))
    written(tmp_path, name)
    path = small_task(tmp_path, text) if text else small_task(tmp_path)
    task = with_window(load_task(str(path)), [str(tmp_path / name)])
    window = ingest_window(task)
    names = [each.rpartition("#")[2] for each in window.strings("id")]
    by_id = dict(zip(names, window.labels, strict=True))
    assert by_id["doc-0"] == (1.0 if text else 4.0)
    assert by_id["doc-1"] == (0.0 if text else 0.5)
    assert by_id["doc-3"] != by_id["doc-3"]
    assert set(window.strings("source")) == {"served"}
    assert [left.reason for left in window.info.left_out] == ["bad_label"]
    assert window.info.labels_by.startswith("feedback")


def test_other_files_are_read_as_they_always_were(tmp_path):
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"text": "one", "label": 1}\n')
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "plain.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name in ("plain.jsonl", "plain.parquet", "broken.parquet"):
        assert window_source([str(tmp_path / name)]) is None
    (tmp_path / "data.tsv").write_text("one\t4\n")
    path = small_task(tmp_path, CUSTOM)
    task = with_window(load_task(str(path)), [str(tmp_path / "data.tsv")])
    assert isinstance(task.retrain.window, FilesSource)
    assert task.retrain.window.columns.text == "body"
    assert ingest_window(task).labels.tolist() == [1.0]


def test_an_export_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    segment(tmp_path, [at(n, n, text=f"text {n}") for n in range(3)])
    (tmp_path / "w.parquet").write_text("before")

    def breaks(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tamis.monitoring.export.with_labels", breaks)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, "w.parquet")
    assert (tmp_path / "w.parquet").read_text() == "before"
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_name_or_folder_that_will_not_do_is_refused(tmp_path):
    segment(tmp_path, [at(0, 1)])
    with pytest.raises(UsageError, match=r"\.parquet or \.jsonl"):
        written(tmp_path, "w.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can be written"):
        written(tmp_path, "file/w.jsonl")


def test_nothing_served_gives_a_file_without_rows(tmp_path):
    segment(tmp_path, [])
    assert written(tmp_path, "w.parquet").documents == 0
    assert rows(tmp_path / "w.parquet") == []


def test_lines_in_a_bucket_are_known_too(tmp_path):
    import fsspec

    row = {"request_id": "r", "model_version": "toy/1", "decision": "keep", "text": "a\nb"}
    with fsspec.open("memory://windows/one.jsonl", "wb") as file:
        file.write(json.dumps(row).encode() + b"\n" + json.dumps(row).encode() + b"\n")
    found = window_source(["memory://windows/one.jsonl"])
    assert found is not None and found.columns.source == "source"
