"""A window with the judge's labels: feedback goes first, and both are called what they are."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployment.retraining.labelled_window import source_of, with_labels
from deployment.retraining.stages import annotation_task
from tamis.corpus.document import content_hash
from tamis.corpus.sources import ingest_window
from tamis.errors import DataError
from tamis.monitoring.export import window_source
from tests.tiny import tiny_task


@pytest.fixture
def task(tmp_path):
    made = tiny_task(tmp_path / "none")
    annotate = {"documents": 20, "uncertain": 0.5, "drifted": 0.5, "random": 0.0}
    policy = made.retrain.model_validate(
        made.retrain.model_dump() | {"annotate": annotate, "min_labelled": 10}
    )
    return made.model_copy(update={"retrain": policy})


@pytest.fixture
def window(tmp_path):
    served = {"request_id": "r", "model_version": "1", "decision": "kept"}
    rows = [
        {"id": "a", "text": "by both", "label": "1", "source": "served"},
        {"id": "b", "text": "by the judge", "label": None, "source": "served"},
        {"id": "c", "text": "by nobody", "label": None, "source": "served"},
    ]
    path = tmp_path / "window.jsonl"
    path.write_text("\n".join(json.dumps(served | row) for row in rows))
    return str(path)


@pytest.fixture
def labels(tmp_path):
    rows = [{"sha256": content_hash(text), "score": score, "labelled_by": "judge-7b"}
            for text, score in (("by both", 5.0), ("by the judge", 4.0))]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")
    return str(tmp_path / "labels.parquet")


def test_feedback_goes_before_the_judge(task, window, labels, tmp_path):
    made = with_labels(source_of(task, (window,)), labels, str(tmp_path / "out"))
    rows = pq.read_table(made.path[0]).to_pylist()
    found = {row["id"]: (row["label"], row["labelled_by"]) for row in rows}
    assert found["a"] == ("1", "feedback")
    assert found["b"] == ("4", "judge-7b")
    assert found["c"] == (None, None)
    assert "feedback" in made.labels_by and "judge-7b, a language model (not people)" in (
        made.labels_by
    )
    assert window_source(made.path) is not None, "retrain --window reads it as it is"


def test_the_retraining_pipeline_reads_it(task, window, labels, tmp_path):
    source = with_labels(source_of(task, (window,)), labels, str(tmp_path / "out"))
    policy = task.retrain.model_copy(update={"window": source})
    read = ingest_window(task.model_copy(update={"retrain": policy}))
    known = dict(zip(read.texts(), read.labels.tolist(), strict=True))
    assert known["by both"] == 1.0 and known["by the judge"] == 4.0
    assert known["by nobody"] != known["by nobody"]
    assert "language model" in read.info.labels_by


def test_files_like_the_task_s_own_are_read_like_them(task, labels, tmp_path):
    (tmp_path / "new.csv").write_text("text,label\nby both,2\nby the judge,\n")
    own = source_of(task, (str(tmp_path / "new.csv"),))
    made = with_labels(own, labels, str(tmp_path / "out"))
    rows = pq.read_table(made.path[0]).to_pylist()
    assert [row["label"] for row in rows] == ["2", "4"]


def test_a_window_without_documents_is_refused(task):
    with pytest.raises(DataError, match="no documents to train on"):
        source_of(task, ())


def test_the_judge_is_asked_about_what_the_policy_says(task, window):
    source = source_of(task, (window,))
    made = annotation_task(task, source, labelled=True)
    assert made.annotate.shares() == {"uncertain": 0.5, "drifted": 0.5}
    assert made.corpus.text == "text" and made.sources[-1] == source
    assert annotation_task(task, source, labelled=False).sources == task.sources
