import random
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.errors import UsageError
from tamis.models.classifier import Scores
from tamis.monitoring import gathering
from tamis.monitoring.export import export
from tamis.monitoring.feedback import FeedbackLog, Label
from tamis.monitoring.gathering import Gathering
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.monitored_files import window_of_dataset, window_of_files
from tamis.monitoring.monitored_log import window_of_log
from tamis.monitoring.request_log import RequestLog
from tamis.monitoring.windows import Reader
from tests.monitoring.log_tools import record
from tests.monitoring.monitor_tools import row, task, window
from tests.scoring.inspection_outputs import begin, broken, varied, write_shard
from tests.tiny import labelled


class Toy:
    """A classifier whose scores are lengths, and whose vectors are counts of letters."""

    def __init__(self):
        self.seen = []

    def score(self, texts, progress=None):
        self.seen += texts
        values = np.array([min(len(text) / 100, 5.0) for text in texts])
        return Scores(values, np.ones(len(texts), dtype=np.int64))

    def embed(self, texts, progress=None):
        found = [[text.count("a"), text.count("e"), 1.0] for text in texts]
        return np.array(found, dtype=np.float32).reshape(len(texts), 3), np.ones(len(texts))


def logged(folder, records, **settings):
    log = RequestLog(folder, RequestLogSettings(**settings), "toy/1")
    for each in records:
        assert log.put(each)
    log.close()
    # What was logged was logged just now.
    now = records[0].at
    return now - timedelta(hours=1), now + timedelta(hours=1)


def told(number):
    return f"Document {number} tells of {number * 7} things that one can learn about."


def test_of_the_log_only_this_version_counts_and_the_rest_is_counted(tmp_path):
    records = [
        *(record(i, told(i)) for i in range(30)),
        *(record(100 + i, told(i), model_version="toy/2") for i in range(3)),
        record(200, told(1), shadow=True, model_version="toy/2"),
        record(300, told(5)),
        record(301, told(300), score=float("nan")),
    ]
    start, end = logged(tmp_path, records, keep="text")
    found = window_of_log(tmp_path, start, end, task(), "1", Toy())
    assert len(found) == 31 and found.texts is not None and told(300) in found.texts
    assert found.counts["records"] == 32
    assert (found.counts["others"], found.counts["shadows"], found.counts["repeated"]) == (3, 1, 1)
    # The missing score was computed from the text.
    assert np.isfinite(found.sample.scores).all()
    assert (found.counts["computed"], found.counts["without_score"]) == (1, 0)
    assert found.sample.vectors.shape == (31, 3) and found.sample.words.shape[0] == 31
    assert set(found.sample.languages.tolist()) == {"en"}
    other = window_of_log(tmp_path, start, end, task(), "2")
    assert len(other) == 3 and other.fingerprint != found.fingerprint


def test_without_texts_vectors_are_taken_and_without_both_lengths_remain(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 4)).astype(np.float32)
    records = [record(i, told(i), embedding=vectors[i]) for i in range(20)]
    start, end = logged(tmp_path / "a", records, keep="embedding")
    found = window_of_log(tmp_path / "a", start, end, task(), "1", Toy())
    assert found.texts is None and found.sample.words is None
    place = found.sample.ids.tolist().index("doc-7")
    unit = vectors[7] / np.linalg.norm(vectors[7])
    assert np.allclose(found.sample.vectors[place], unit, atol=2e-3)
    start, end = logged(tmp_path / "b", [record(i, told(i), score=None) for i in range(9)])
    bare = window_of_log(tmp_path / "b", start, end, task(), "1", Toy())
    assert bare.sample.vectors is None and bare.texts is None and len(bare) == 9
    assert bare.sample.characters.min() > 20
    # What cannot be computed is counted, not left out.
    assert np.isnan(bare.sample.scores).all() and bare.counts["without_score"] == 9


def test_labels_that_came_count_for_what_was_served_before_too(tmp_path):
    records = [record(i, told(i)) for i in range(10)]
    start, end = logged(tmp_path, records, keep="text")
    served = records[0].at
    feedback = FeedbackLog(tmp_path, RequestLogSettings())
    labels = [Label(f"doc-{i}", 4, served) for i in range(4)]
    feedback.append([*labels, Label("doc-5", "lots", served), Label("nobody", 1, served)])
    feedback.close()
    found = window_of_log(tmp_path, start, end, task(), "1")
    assert len(found.labelled) == 4 and (found.labelled.labels == 4).all()
    assert np.isfinite(found.labels).sum() == 4
    assert (found.counts["bad_labels"], found.counts["unknown_labels"]) == (1, 1)
    # A window that begins after they were served, and in which no label came, has none.
    later = window_of_log(tmp_path, end, end + timedelta(hours=1), task(), "1")
    assert len(later) == 0 and len(later.labelled) == 0
    # One that begins after the documents and before their labels has the labels alone.
    feedback = FeedbackLog(tmp_path, RequestLogSettings())
    feedback.append([Label("doc-8", 2, end + timedelta(minutes=1))])
    feedback.close()
    late = window_of_log(tmp_path, end, end + timedelta(hours=1), task(), "1")
    assert len(late) == 0 and late.labelled.labels.tolist() == [2.0]
    assert late.fingerprint != later.fingerprint


def test_whatever_the_order_window_and_fingerprint_are_the_same(tmp_path):
    rows = [row(i, told(i % 150), score=float(i % 5), label=float(i % 3)) for i in range(200)]
    shuffled = random.Random(1).sample(rows, len(rows))
    first, second = window(rows, most=100), window(shuffled, most=100)
    assert first.fingerprint == second.fingerprint
    assert first.sample.ids.tolist() == second.sample.ids.tolist() and len(first) == 100
    assert first.counts == second.counts and first.counts["repeated"] == 50
    assert (first.labels == second.labels).all()
    assert window(rows[:-1], most=100).fingerprint != first.fingerprint
    # Twice the same document is another window than once.
    assert window([*rows, rows[0]], most=100).fingerprint != first.fingerprint


def test_memory_is_bounded_and_duplicates_are_estimated(monkeypatch):
    monkeypatch.setattr(gathering, "_TRACKED", 200)
    gathered = Gathering(50, seed=3)
    for number in range(6_000):
        gathered.add(row(number, told(number % 3_000)))
    assert len(gathered._distinct._seen) <= 200 and len(gathered._sample._rows) == 50
    assert abs(gathered.repeated() - 3_000) < 300


def test_huge_and_odd_texts_are_held_in_part(monkeypatch):
    rows = [row(0, "x" * 3_000_000), row(1, "lone \ud800 surrogate"), row(2, "\x00 \n")]
    found = window([*rows, *(row(i, told(i)) for i in range(3, 9))])
    assert max(map(len, found.texts)) == 100_000
    assert found.sample.characters.max() == 3_000_000
    "".join(found.texts).encode()
    assert window([]).sample.vectors is None and len(window([])) == 0
    assert len(window([row(1)])) == 1


def write(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def test_scores_of_files_count_when_this_version_made_them(tmp_path):
    rows = [
        {"id": f"n{i}", "text": told(i), "label": 2.0 if i % 2 else None, "score": 1.5,
         "model_version": "toy/1" if i < 6 else "toy/7"}
        for i in range(10)
    ]  # fmt: skip
    path = write(tmp_path / "a.parquet", rows)
    toy = Toy()
    found = window_of_files([path], task(), "1", toy)
    scores = dict(zip(found.sample.ids.tolist(), found.sample.scores.tolist(), strict=True))
    assert [scores[f"n{i}"] for i in range(6)] == [1.5] * 6
    assert scores["n8"] == pytest.approx(len(told(8)) / 100)
    assert found.counts["scored"] == 6 and found.counts["computed"] == 4
    assert len(found.labelled) == 5 and found.counts["without_score"] == 0
    # In two files, in another order, and without the model it is the same window.
    halves = [write(tmp_path / f"{n}.parquet", part) for n, part in
              (("z", rows[:4]), ("b", rows[4:][::-1]))]  # fmt: skip
    again = window_of_files(halves, task(), "1")
    assert again.fingerprint == found.fingerprint and again.counts["without_score"] == 4


def test_a_file_that_is_broken_is_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "A sound document of words."}\n{"text": ""}\n{"te\xff\n{"no": 1}\n')
    found = window_of_files([str(path)], task(), "1", Toy())
    assert len(found) == 1
    assert (found.counts["quarantined"], found.counts["without_text"]) == (3, 2)
    with pytest.raises(UsageError):
        window_of_files([str(tmp_path / "none.jsonl")], task(), "1")
    with pytest.raises(UsageError):
        window_of_files([], task(), "1")


def test_an_exported_window_is_read_with_its_scores_labels_and_times(tmp_path):
    records = [record(i, told(i)) for i in range(8)]
    start, end = logged(tmp_path / "log", records, keep="text")
    feedback = FeedbackLog(tmp_path / "log", RequestLogSettings())
    feedback.append([Label("doc-2", 5, records[0].at)])
    feedback.close()
    for name in ("w.parquet", "w.jsonl"):
        with Reader(tmp_path / "log") as reader:
            export(reader, start, end, tmp_path / name)
    found = window_of_files([str(tmp_path / "w.parquet")], task(), "1")
    assert found.sample.scores.tolist() == [2.5] * 8 and found.labelled.labels.tolist() == [5.0]
    assert start < found.start < found.end < end
    assert window_of_files([str(tmp_path / "w.jsonl")], task(), "1").fingerprint == (
        found.fingerprint
    )


def test_a_dataset_is_a_window_too():
    texts = [told(i) for i in range(12)]
    documents = labelled(texts, [1.0 if i < 5 else None for i in range(12)])
    found = window_of_dataset(documents, task(), "1", Toy())
    assert len(found) == 12 and len(found.labelled) == 5
    assert set(found.sample.groups.tolist()) == {f"group{i}" for i in range(12)}


def test_of_a_filter_all_that_it_scored_is_the_window(tmp_path):
    folder = tmp_path / "out"
    begin(folder, shards=2)
    for position in range(2):
        write_shard(folder, position, varied(position), [broken(60, shard=f"s{position}")])
    rows = [each for position in range(2) for each in varied(position)]
    scored = [each for each in rows if each["score"] is not None]
    version = scored[0]["model_version"].split("/")[1]
    name = scored[0]["model_version"].split("/")[0]
    asked = task().model_copy(update={"name": name})
    found = window_of_files([str(folder)], asked, version)
    counts = found.counts
    assert counts["records"] == len(scored) and counts["quarantined"] == 2
    out = counts.get("taken_out", 0) + counts.get("taken_out_repeated", 0)
    assert out == len(rows) - len(scored) > 0
    assert np.isfinite(found.sample.scores).all() and counts["dropped"] == 0
