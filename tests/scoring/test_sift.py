import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.corpus.document import content_hash
from tamis.corpus.manifest import read_output
from tamis.corpus.output import open_output
from tamis.corpus.readers import list_shards
from tamis.errors import EngineError
from tamis.scoring.passes import ShardItem, sift_shard
from tamis.scoring.sift import Sifter
from tamis.scoring.summary import EXAMPLES, OTHER, Summariser, Summary
from tamis.task import Columns
from tests.scoring import filter_stubs as stubs


def write(path, rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    (shard,) = list_shards([str(path)])
    return shard


def texts(count):
    return [{"text": f"document number {i}", "source": f"s{i % 3}", "n": i} for i in range(count)]


def sift(tmp_path, shard, name="out", **changes):
    out = str(tmp_path / name)
    with open_output(out, {}) as output:
        record = Sifter(stubs.make_plan(out, **changes)).sift(0, shard)
        output.commit(record)
    return out, record


@pytest.mark.parametrize("form", ["parquet", "jsonl.zst"])
def test_every_row_lands_on_its_side(tmp_path, form):
    shard = write(tmp_path / "a.jsonl", [*texts(100), b"{broken", {"text": ""}])
    out, record = sift(tmp_path, shard, format=form)
    kept, dropped = list(read_output(out, "kept", True)), list(read_output(out, "dropped", True))
    assert [f.path for f in record.files] == [
        f"kept/00000-a.{form}",
        f"dropped/00000-a.{form}",
        "quarantine/00000-a.jsonl.zst",
    ]
    assert sorted(row["row"] for row in kept + dropped) == list(range(100))
    assert [row["row"] for row in kept] == sorted(row["row"] for row in kept)
    for row in kept + dropped:
        keep = stubs.true_score(row["text"]) >= 3.0
        assert row["score"] == row["encoder_score"] == stubs.true_score(row["text"])
        assert row["student_score"] is None
        assert row["decision"] == ("keep" if keep else "drop")
        assert row["reason"] == ("score>=threshold" if keep else "score<threshold")
        assert row["text"] == f"document number {row['row']}"
        assert row["id"] == content_hash(row["text"])
        assert row["source"] == f"s{row['row'] % 3}"
        assert json.loads(row["metadata"]) == {"n": row["row"]}
        assert (row["model_version"], row["tokens"], row["shard"]) == ("stub-1", 3, "a")
    assert all(row["decision"] == "keep" for row in kept)
    counts = record.counts
    assert (counts.read, counts.kept, counts.dropped, counts.quarantined) == (
        102,
        len(kept),
        len(dropped),
        2,
    )
    assert record.tokens_in == 300 and record.tokens_kept == 3 * len(kept)
    assert record.characters_kept == sum(len(row["text"]) for row in kept)
    assert record.characters_in == sum(len(row["text"]) for row in kept + dropped)


def test_quarantined_rows_say_what_and_where(tmp_path):
    shard = write(tmp_path / "a.jsonl", [*texts(20), b"\xff\x00broken", *texts(20)])
    out, _ = sift(tmp_path, shard)
    (row,) = read_output(out, "quarantine")
    assert (row["shard"], row["row"], row["place"]) == ("a", 20, "line 21")
    assert row["reason"] in ("invalid_json", "invalid_utf8")
    assert base64.b64decode(row["raw"]) == b"\xff\x00broken"


def test_a_score_at_the_threshold_is_kept(tmp_path):
    at = stubs.true_score("document number 5")
    out, _ = sift(tmp_path, write(tmp_path / "a.jsonl", texts(50)), threshold=at)
    assert 5 in [row["row"] for row in read_output(out)]
    out, _ = sift(tmp_path, write(tmp_path / "a.jsonl", texts(50)), "above", threshold=at + 1e-6)
    assert 5 not in [row["row"] for row in read_output(out)]


def test_a_score_that_is_no_number_is_quarantined(tmp_path):
    rows = [*texts(5), {"text": "NAN"}, b"{", *texts(5)]
    out, record = sift(tmp_path, write(tmp_path / "a.jsonl", rows))
    found = [(row["row"], row["reason"]) for row in read_output(out, "quarantine")]
    assert found == [(5, "no_score"), (6, "invalid_json")]
    assert record.counts.read == 12
    assert sum(record.summary["histogram"]) == 10


def test_the_same_input_gives_the_same_bytes(tmp_path):
    shard = write(tmp_path / "a.jsonl", [*texts(200), b"{"])
    _, first = sift(tmp_path, shard, "one")
    _, second = sift(tmp_path, shard, "two")
    assert [f.sha256 for f in first.files] == [f.sha256 for f in second.files]
    assert first.summary == second.summary


def test_an_empty_shard_has_readable_empty_files(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"")
    (shard,) = list_shards([str(path)])
    out, record = sift(tmp_path, shard)
    assert record.counts.read == 0
    assert list(read_output(out, "kept", True)) == []
    assert pq.read_table(Path(out, "kept", "00000-a.parquet")).num_rows == 0


def test_metadata_of_any_type_becomes_json(tmp_path):
    path = tmp_path / "a.parquet"
    table = {
        "text": ["t"],
        "when": [datetime(2020, 1, 2, tzinfo=UTC)],
        "raw": [b"\xff"],
        "deep": [{"a": [1, None]}],
        "number": [float("nan")],
    }
    pq.write_table(pa.table(table), path)
    (shard,) = list_shards([str(path)])
    out, _ = sift(tmp_path, shard, threshold=0.0)
    (row,) = read_output(out)
    metadata = json.loads(row["metadata"])
    assert metadata["when"].startswith("2020-01-02")
    assert metadata["deep"] == {"a": [1, None]}


def test_columns_of_the_plan_are_used(tmp_path):
    shard = write(tmp_path / "a.jsonl", [{"body": "hello", "url": "u1"}])
    out, _ = sift(tmp_path, shard, threshold=0.0, columns=Columns(text="body", id="url"))
    (row,) = read_output(out)
    assert (row["id"], row["text"]) == ("u1", "hello")


def test_a_scorer_that_loses_rows_is_an_error(tmp_path):
    class Short(stubs.Stub):
        def score(self, texts):
            return super().score(texts[1:])

    shard = write(tmp_path / "a.jsonl", texts(3))
    with pytest.raises(EngineError, match="scores for 3 documents"):
        sift(tmp_path, shard, load=Short)
    assert not [
        f
        for f in (tmp_path / "out").rglob("*")
        if f.is_file() and "run" not in f.name and f.name != ".lock"
    ]


def test_sift_shard_needs_a_started_worker(tmp_path, monkeypatch):
    monkeypatch.setattr("tamis.scoring.passes._worker", None)  # another test may have started one
    with pytest.raises(EngineError, match="start_worker"):
        sift_shard(ShardItem(0, write(tmp_path / "a.jsonl", texts(1))))


class TestSummary:
    def rows(self, scores, threshold, shard="a", source="s"):
        return [
            {
                "id": f"{shard}{i}",
                "text": "x" * 1000,
                "source": source,
                "score": float(score),
                "decision": "keep" if score >= threshold else "drop",
                "reason": "score>=threshold" if score >= threshold else "score<threshold",
                "shard": shard,
                "row": i,
            }
            for i, score in enumerate(scores)
        ]

    def test_examples_and_histogram(self):
        summariser = Summariser(0, 5, 3.0)
        summariser.add(self.rows(np.linspace(0, 5, 101), 3.0))
        result = summariser.result()
        assert [e.row for e in result.best] == list(range(100, 100 - EXAMPLES, -1))
        assert [e.row for e in result.worst] == list(range(EXAMPLES))
        assert result.nearest[0].row == 60
        assert {e.row for e in result.nearest[1:3]} == {59, 61}
        assert all(len(e.text) == 300 for e in result.best)
        assert sum(result.histogram) == 101
        assert result.sources["s"].kept == 41 and result.sources["s"].dropped == 60

    def test_merging_is_adding(self):
        rng = np.random.default_rng(0)
        parts = [self.rows(rng.uniform(-1, 6, 40), 2.0, name, name) for name in "abc"]
        whole, merged = Summariser(0, 5, 2.0), Summariser(0, 5, 2.0)
        for rows in parts:
            whole.add(rows)
            whole.quarantined("why")
        for rows in reversed(parts):
            part = Summariser(0, 5, 2.0)
            part.add(rows)
            part.quarantined("why")
            merged.merge(Summary.model_validate(part.result().model_dump(mode="json")))
        assert merged.result() == whole.result()
        assert sum(whole.result().histogram) == 120

    def test_sources_are_bounded_and_none_is_lost(self):
        summariser = Summariser(0, 5, 2.0)
        for number in range(200):
            scores = np.full(1 + (number < 10), 4.0)
            summariser.add(self.rows(scores, 2.0, source=f"site{number}"))
        sources = summariser.result().sources
        assert len(sources) == 51
        assert sum(counts.kept for counts in sources.values()) == 210
        assert {f"site{n}" for n in range(10)} <= set(sources)
        again = Summariser(0, 5, 2.0)
        again.merge(summariser.result())
        assert again.result().sources[OTHER] == sources[OTHER]
