"""The sample that teaches a student: what is drawn, by whom, and what becomes of it."""

import json

import numpy as np
import pytest

from tamis.corpus.manifest import read_manifest, read_output
from tamis.corpus.readers import list_shards
from tamis.corpus.settings import (
    ExactSettings,
    FilterSettings,
    LanguageSettings,
    NearDuplicateSettings,
    PiiSettings,
    RulesSettings,
)
from tamis.engine.local import LocalEngine
from tamis.errors import EngineError, UsageError
from tamis.scoring.distill import read_taught, teach
from tamis.scoring.passes import sift_shard
from tests.scoring import filter_stubs as stubs
from tests.scoring import whole_runs
from tests.scoring.test_stages import GERMAN, prose

SHARDS, ROWS = 4, 150


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for shard in range(SHARDS):
        lines = [json.dumps({"text": f"text {shard} {row}"}) for row in range(ROWS)]
        (folder / f"p{shard}.jsonl").write_text("\n".join(lines))
    return folder


def teach_here(corpus, out, documents=200, seed=0, engine=None, **changes):
    plan = stubs.make_plan(
        "nowhere", **{"filter": FilterSettings(), "format": "jsonl.zst", **changes}
    )
    shards = list_shards([str(corpus)])
    return teach(plan, shards, documents, str(out), seed, engine or LocalEngine(0), stubs.quiet)


def rows_of(out):
    return [(row["shard"], row["row"], row["text"], row["score"]) for row in read_output(str(out))]


@pytest.fixture(scope="module")
def sample(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("sample") / "out"
    return out, teach_here(corpus, out)


def test_a_sample_is_drawn_from_all_of_every_shard(sample):
    out, share = sample
    rows = rows_of(out)
    assert share == 0.33 and 150 < len(rows) < 250
    for shard in range(SHARDS):
        drawn = [row for name, row, *_ in rows if name == f"p{shard}"]
        assert 25 < len(drawn) < 80
        assert sum(row >= ROWS / 2 for row in drawn) > 0.3 * len(drawn)
        assert max(drawn) > 0.8 * ROWS
    patterns = {frozenset(r for s, r, *_ in rows if s == f"p{n}") for n in range(SHARDS)}
    assert len(patterns) == SHARDS
    assert all(score == stubs.true_score(text) for *_, text, score in rows)
    assert not list(read_output(str(out), "dropped"))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_draws_the_same(corpus, sample, tmp_path, workers):
    teach_here(corpus, tmp_path / "out", engine=LocalEngine(workers))
    assert whole_runs.parts(tmp_path / "out") == whole_runs.parts(sample[0])
    assert read_taught(str(tmp_path / "out")).texts == read_taught(str(sample[0])).texts


def test_what_was_taught_is_in_the_order_of_the_corpus(corpus, sample, tmp_path):
    class Backwards(LocalEngine):
        def run(self, items, *arguments, **more):
            super().run(items[::-1], *arguments, **more)

    teach_here(corpus, tmp_path / "out", engine=Backwards(0))
    shards = [record.shard for record in read_manifest(str(tmp_path / "out")).shards]
    assert shards == [f"p{shard}" for shard in range(SHARDS)]
    backwards, forwards = read_taught(str(tmp_path / "out")), read_taught(str(sample[0]))
    assert backwards.texts == forwards.texts == [text for *_, text, _ in sorted(rows_of(sample[0]))]
    assert backwards.scores.tolist() == forwards.scores.tolist()


def test_another_seed_draws_others_and_all_may_be_drawn(corpus, sample, tmp_path):
    teach_here(corpus, tmp_path / "other", seed=1)
    assert {row[:2] for row in rows_of(tmp_path / "other")} != {r[:2] for r in rows_of(sample[0])}
    assert teach_here(corpus, tmp_path / "all", documents=10_000) == 1
    assert len(rows_of(tmp_path / "all")) == SHARDS * ROWS


def _never(model_dir):
    raise AssertionError("nothing is left to score")


def test_a_sample_goes_on_where_it_was_stopped(corpus, sample, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(EngineError, match="on purpose"):
        teach_here(corpus, out, engine=whole_runs.Interrupted(whole_runs.stop, sift_shard))
    done = [record.shard for record in read_manifest(str(out)).shards]
    times = {file: file.stat().st_mtime_ns for file in (out / "kept").iterdir()}
    assert len(done) == 2
    assert teach_here(corpus, out) == sample[1]
    assert whole_runs.parts(out) == whole_runs.parts(sample[0])
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    teach_here(corpus, out, load=_never)


def test_a_sample_passes_the_stages_before_the_score_and_no_others(tmp_path):
    texts = [
        prose(1), prose(2), prose(1), GERMAN, "The river and the valley.",
        f"{prose(3)} Write to jane.doe@example.org. {prose(4)}", f"{prose(2)} Once more.",
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    chosen = FilterSettings(
        exact=ExactSettings(),
        language=LanguageSettings(enabled=True),
        rules=RulesSettings(enabled=True),
        pii=PiiSettings(action="mask"),
        near_duplicates=NearDuplicateSettings(),
    )
    out = tmp_path / "out"
    teach_here(tmp_path / "a.jsonl", out, filter=chosen, threshold=4.9)
    assert {row["text"] for row in read_output(str(out))} == {
        text for text in texts if text != GERMAN
    }
    (dropped,) = read_output(str(out), "dropped")
    assert dropped["reason"] == "language"
    (duplicate,) = read_output(str(out), "duplicates")
    assert duplicate["reason"] == "exact_duplicate"


def test_an_empty_corpus_is_told_in_a_sentence(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UsageError, match="hold no row"):
        teach_here(tmp_path / "a.jsonl", tmp_path / "out")


def test_what_was_taught_has_no_text_twice(tmp_path):
    texts = ["one", "two two", "one", "NAN three", "two two", "four"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    teach_here(tmp_path / "a.jsonl", tmp_path / "out", filter=stubs.PLAIN)
    taught = read_taught(str(tmp_path / "out"))
    assert taught.texts == ["one", "two two", "four"]
    assert taught.scores.tolist() == [stubs.true_score(text) for text in taught.texts]
    assert taught.tokens.tolist() == [1, 2, 1]
    ids = {row["text"]: row["id"] for row in read_output(str(tmp_path / "out"))}
    assert read_taught(str(tmp_path / "out"), {ids["one"]}).texts == ["two two", "four"]
    some = taught.take(np.array([2, 0]))
    assert (some.texts, some.tokens.tolist()) == (["four", "one"], [1, 1])
