"""All stages together, over whole runs."""

import json
import random
from pathlib import Path

import pytest

from tamis.corpus.manifest import read_manifest, read_output
from tamis.corpus.readers import list_shards
from tamis.corpus.settings import (
    DecontaminationSettings,
    ExactSettings,
    FilterSettings,
    GopherRepetitionSettings,
    LanguageSettings,
    PiiSettings,
    RulesSettings,
)
from tamis.engine.local import LocalEngine
from tamis.scoring.filter_run import run_filter
from tests.scoring import filter_stubs as stubs

_WORDS = (
    "river mountain stone valley forest water light summer winter bread people house garden "
    "music letter number history science market window village teacher student planet engine"
)
WORDS = _WORDS.split()
GERMAN = (
    "Der Fluss fließt durch das Tal und die Menschen im Dorf leben seit vielen Jahren vom "
    "Fischfang und vom Handel mit den Städten an der Küste, die sie jeden Sommer besuchen."
)
QUESTION = "what is the name of the tallest mountain that stands in the northern part of the valley"


def prose(seed, sentences=8):
    """English-looking sentences that differ from seed to seed."""
    chance = random.Random(seed)
    made = []
    for _ in range(sentences):
        three, four = " and the ".join(chance.sample(WORDS, 3)), " ".join(chance.sample(WORDS, 4))
        number = f"{chance.choice(WORDS)} number {chance.randrange(10**6)}"
        made.append(f"The {three} have been of use to {number} that is with {four}.")
    return " ".join(made)


def run(corpus, out, workers=0, **settings):
    plan = stubs.make_plan(out, filter=FilterSettings(**settings), threshold=0.0)
    return run_filter(
        plan, list_shards([str(corpus)]), engine=LocalEngine(workers), progress=stubs.quiet
    )


def write(folder, shards):
    folder.mkdir(exist_ok=True)
    for number, texts in enumerate(shards):
        rows = [json.dumps({"text": t, "id": f"{number}-{i}"}) for i, t in enumerate(texts)]
        (folder / f"p{number}.jsonl").write_text("\n".join(rows))
    return folder


def ids(out, part):
    return [row["id"] for row in read_output(str(out), part, verify=True)]


@pytest.mark.parametrize("scope", ["corpus", "shard"])
def test_exact_duplicates_are_taken_out_before_the_score(tmp_path, scope):
    first, second = prose(1), prose(2)
    corpus = write(tmp_path / "c", [[first, second, f" {first}\n"], [prose(3), second, prose(4)]])
    out = tmp_path / "out"
    report = run(corpus, out, exact=ExactSettings(scope=scope))
    found = {row["id"]: row for row in read_output(str(out), "duplicates")}
    expected = {"0-2": "00000#0"} | ({"1-1": "00000#1"} if scope == "corpus" else {})
    assert {name: row["duplicate_of"] for name, row in found.items() if row["score"] is None} == (
        expected
    )
    assert all(row["reason"] == "exact_duplicate" for row in found.values() if not row["score"])
    assert report.counts.balanced and report.stages["score"].entered == 6 - len(expected)
    assert report.stages["exact"].removed == len(expected)
    assert len(ids(out, "kept")) == 4


def test_near_duplicates_leave_the_best_scored(tmp_path):
    base = prose(10, 30)
    variants = [base, base + " A word more.", base.replace("river", "stream", 1)]
    others = [prose(100 + i) for i in range(20)]
    corpus = write(tmp_path / "c", [[variants[0], *others[:10]], [*others[10:], *variants[1:]]])
    out = tmp_path / "out"
    report = run(corpus, out)
    best = max(variants, key=stubs.true_score)
    kept = [row["text"] for row in read_output(str(out))]
    assert [text for text in kept if text in variants] == [best]
    assert len(kept) == 21
    (one, two) = read_output(str(out), "duplicates")
    for row in (one, two):
        assert (row["reason"], row["decision"]) == ("near_duplicate", "duplicate")
        assert row["similarity"] > 0.7 and row["score"] is not None
    keeper = next(r for r in read_output(str(out)) if r["text"] == best)
    position = {record.shard: record.position for record in read_manifest(str(out)).shards}
    assert one["duplicate_of"] == f"{position[keeper['shard']]:05d}#{keeper['row']}"
    assert report.counts.duplicates == 2 and report.summary.reasons["near_duplicate"] == 2
    assert not (out / "work").exists()


def test_every_stage_says_what_it_took_out(tmp_path):
    (tmp_path / "exam.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "K2"}))
    good = [prose(i) for i in range(6)]
    texts = {
        "good": good[0],
        "german": GERMAN,
        "short": "The river and the valley have been of use to people.",
        "exam": f"{good[1]} {QUESTION}? {good[2]}",
        "mail": f"{good[3]} Write to jane.doe@example.org or call. {good[4]}",
    }
    corpus = tmp_path / "c"
    corpus.mkdir()
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    (corpus / "a.jsonl").write_text("\n".join([*lines, "{broken"]))
    out = tmp_path / "out"
    report = run(
        corpus,
        out,
        language=LanguageSettings(enabled=True),
        # The sentences above are all of one make.
        rules=RulesSettings(
            enabled=True, gopher_repetition=GopherRepetitionSettings(enabled=False)
        ),
        decontamination=DecontaminationSettings(files=(str(tmp_path / "exam.jsonl"),)),
        pii=PiiSettings(action="mask"),
    )
    dropped = {row["id"]: row for row in read_output(str(out), "dropped")}
    assert dropped["german"]["reason"] == "language" and dropped["german"]["score"] is None
    assert dropped["german"]["language"] == "de"
    assert dropped["short"]["reason"] == "c4_too_few_sentences"
    assert dropped["short"]["score"] is not None
    assert dropped["exam"]["reason"] == "contaminated:exam.jsonl"
    kept = {row["id"]: row for row in read_output(str(out), "kept")}
    assert set(kept) == {"good", "mail"}
    assert "<EMAIL>" in kept["mail"]["text"] and kept["mail"]["pii_found"] == 1
    assert "jane.doe" not in kept["mail"]["text"]
    assert report.summary.pii == {"email": 1}
    assert str(report.counts) == ("in 6 = kept 2 + dropped 3 + duplicates 0 + quarantined 1")
    assert list(report.stages) == [
        "hash", "read", "exact", "language", "score", "rules", "decontamination", "pii", "sign",
        "write", "near_duplicates",
    ]  # fmt: skip
    assert report.stages["language"].removed == 1 and report.stages["score"].entered == 4


def test_personal_data_may_drop_a_document(tmp_path):
    corpus = write(tmp_path / "c", [[prose(1), prose(2) + " mail a.b@example.com now"]])
    run(corpus, tmp_path / "out", pii=PiiSettings(action="drop"))
    (row,) = read_output(str(tmp_path / "out"), "dropped")
    assert (row["reason"], row["pii_found"]) == ("pii_email", 1)
    assert "a.b@example.com" in row["text"]


def test_workers_and_blocks_change_nothing(tmp_path):
    chance = random.Random(7)
    texts = [prose(chance.randrange(60)) for _ in range(120)]
    corpus = write(tmp_path / "c", [texts[:50], texts[50:55], [], texts[55:]])
    shas = set()
    for number, workers in enumerate((0, 2)):
        out = tmp_path / f"out{number}"
        run(corpus, out, workers=workers)
        files = {f.path: f.sha256 for r in read_manifest(str(out)).shards for f in r.files}
        shas.add(tuple(sorted(files.items())))
        assert len(ids(out, "kept")) + len(ids(out, "duplicates")) == 120
        assert len(ids(out, "kept")) == len(set(texts))
    assert len(shas) == 1


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    corpus = write(tmp_path / "c", [[prose(1), prose(1)], [prose(2)]])
    out = tmp_path / "out"
    first = run(corpus, out)
    times = {f: f.stat().st_mtime_ns for f in Path(out).rglob("*.parquet")}
    again = run(corpus, out)
    assert again.counts == first.counts and again.stages == first.stages
    assert times == {f: f.stat().st_mtime_ns for f in Path(out).rglob("*.parquet")}
