import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench import drift
from bench.drift_corpus import Corpus, alter, columns_of, distinct, foreign_texts, held_out_scores
from bench.drift_detectors import ks_bonferroni, language_p
from bench.drift_figures import missed, picture, quarter_alarms, rows_of, table, wilson
from bench.drift_windows import Windows
from tamis.monitoring.samples import hashed_words
from tamis.monitoring.settings import MonitorSettings

KINDS = {"reference": 300, "topic": 100, "language": 60, "labelled": 50}
TEXT = (
    'Water boils at 100 degrees at the level of the sea. "Why?" It\'s the pressure of the air. ' * 8
)


@pytest.fixture(scope="module")
def corpus():
    """What the benchmark has of its documents, drawn rather than read."""
    kinds = [kind for kind, count in KINDS.items() for _ in range(count)]
    twins = [-1] * len(kinds)
    for place, kind in enumerate(("boilerplate", "noise")):
        kinds += [kind] * 150
        twins += range(place, 300, 2)
    kinds, count, rng = np.array(kinds), len(kinds), np.random.default_rng(0)
    vectors = rng.normal(size=(count, 8)).astype(np.float32)
    vectors[kinds == "topic", 0] += 3
    labelled = kinds == "labelled"
    return Corpus(
        ids=np.arange(count).astype(str),
        kinds=kinds,
        groups=np.arange(count).astype(str),
        languages=np.where(kinds == "language", "bg", "en"),
        twins=np.array(twins),
        labels=np.where(labelled, rng.integers(0, 5, count), np.nan),
        scores=rng.uniform(0, 5, count),
        columns={"characters": rng.integers(500, 900, count).astype(float)},
        vectors=vectors,
        words=hashed_words([f"word{number % 7} other" for number in range(count)]),
        folder=Path(),
    )


@pytest.mark.parametrize("shift", ["topic", "language", "boilerplate", "noise"])
def test_a_window_has_its_share_of_foreign_documents_and_none_twice(corpus, shift):
    drawing = Windows(corpus, seed=3, reference=100)
    kept = set(drawing.reference.rows.tolist())
    for number in range(20):
        window = drawing.draw(shift, 0.4, 50, number)
        rows = window.rows
        assert len(set(rows.tolist())) == 50 == len(window.sample)
        assert (corpus.kinds[rows] == shift).tolist() == window.foreign.tolist()
        assert window.foreign.sum() == 20
        assert set(corpus.kinds[rows[~window.foreign]]) == {"reference"}
        # Nor is a document beside what it was made into, or made of one of the reference.
        twins = corpus.twins[rows[window.foreign]].tolist()
        assert kept.isdisjoint(rows.tolist()) and kept.isdisjoint(twins)
        assert set(twins).isdisjoint(rows.tolist())
        assert set(window.sample.sources) == {"requests"}
        assert np.array_equal(window.sample.vectors, corpus.vectors[rows])


def test_foreign_documents_are_anywhere_in_a_window(corpus):
    drawing = Windows(corpus, seed=3, reference=100)
    places = sum(drawing.draw("topic", 0.4, 50, number).foreign.astype(int) for number in range(40))
    assert places.min() > 4 and places.max() < 30


def test_a_window_is_the_same_whatever_was_drawn_before(corpus):
    one, two = (Windows(corpus, seed=5, reference=100) for _ in range(2))
    wanted = one.draw("topic", 0.1, 50, 7)
    two.draw("noise", 0.2, 50, 0)
    assert two.draw("topic", 0.1, 50, 7).rows.tolist() == wanted.rows.tolist()
    others = [one.draw("topic", 0.1, 50, 8), Windows(corpus, 6, 100).draw("topic", 0.1, 50, 7)]
    assert all(set(other.rows) != set(wanted.rows) for other in others)
    assert set(Windows(corpus, 6, 100).reference.rows) != set(one.reference.rows)


def test_labels_change_and_inputs_do_not(corpus):
    drawing = Windows(corpus, seed=1, reference=100)
    window = drawing.draw("label", 0.4, 50, 0)
    assert not window.foreign.any() and set(corpus.kinds[window.rows]) == {"reference"}
    told, known = window.feedback, drawing.reference.feedback
    assert len(told.labels) == 15 and len(known.labels) == 20
    of = dict(zip(corpus.scores, corpus.labels, strict=True))
    before = np.array([of[score] for score in told.scores])
    assert (told.labels != before).sum() == 6 and set(told.labels + before) >= {5.0}
    assert set(told.groups).isdisjoint(known.groups)
    assert drawing.draw("topic", 0.1, 50, 0).feedback is None


def test_more_documents_than_there_are_is_said(corpus):
    with pytest.raises(ValueError, match="80 language documents are wanted, there are 60"):
        Windows(corpus, 0, 100).draw("language", 0.8, 100, 0)


def test_altered_texts_are_the_text_with_something_done_to_it():
    framed = alter("boilerplate", TEXT, 1)
    assert TEXT in framed and re.search("cookie", framed, re.IGNORECASE)
    typos, misread, mojibake, random = (alter("noise", TEXT, number) for number in range(4))
    assert len({TEXT, typos, misread, mojibake, random}) == 5
    assert mojibake.count("\u00e2\u0080\u0099s") == 8 and 10 < mojibake.count("\u00c2\u00a0") < 60
    words = TEXT.split()
    same = sum(a == b for a, b in zip(words, random.split(), strict=True)) / len(words)
    assert 0.35 < same < 0.65
    assert alter("noise", TEXT, 0) == typos


def test_foreign_texts_are_foreign_and_in_no_order():
    found = foreign_texts(np.random.default_rng(0))
    languages = [document.id.split("#")[0] for document in found]
    assert len(found) >= 800 and languages.count("bg") > 150 and len(set(languages)) == 14
    assert all(500 <= len(document.text) <= 1_800 for document in found)
    assert len({document.text for document in found}) == len(found)
    assert len(set(languages[:30])) > 5
    markup = [d for d in found if re.search(r"\[\[|\{\{|<\w+|User:", d.text)]
    assert len(markup) < 0.05 * len(found)


def test_of_near_duplicates_the_first_stays():
    one, other = (" ".join(f"{name}{at}" for at in range(200)) for name in ("iron", "copper"))
    assert distinct([one, other, one.replace("iron99 ", "steel "), other]) == [0, 1]


def test_labelled_documents_are_scored_by_heads_that_have_not_seen_them():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 40)).astype(np.float32)
    labels = np.where(np.arange(60) < 40, rng.integers(0, 5, 60), np.nan)
    scores = held_out_scores(vectors, labels, np.arange(60).astype(str))
    assert np.isfinite(scores).all()
    # As many directions as documents: whoever has seen the label knows it.
    assert np.corrcoef(scores[:40], labels[:40])[0, 1] < 0.5


def test_columns_are_of_the_text():
    found = columns_of(["One two. Three!", "abc"])
    assert {name: values.tolist() for name, values in found.items()} == {
        "characters": [15, 3],
        "words": [3, 1],
        "sentences": [2, 1],
        "non_letters": [pytest.approx(4 / 15), 0],
    }


def test_the_peer_finds_what_differs_and_counts_its_tests(corpus):
    p = {"topic": [], "none": [], "label": [], "wrong": []}
    for seed in range(12):
        drawing = Windows(corpus, seed, reference=150)
        judge = ks_bonferroni(drawing.reference, MonitorSettings())
        for shift, found in p.items():
            share = {"topic": 0.4, "wrong": 1.0}.get(shift, 0.0)
            window = drawing.draw("label" if shift == "wrong" else shift, share, 100, 0)
            verdicts = judge(window, 0)
            found.append(verdicts["ks-bonferroni"].p)
            assert verdicts["ks-bonferroni-budget"].p == found[-1]
            assert verdicts["ks-bonferroni"].alarm is (found[-1] <= 0.05)
            assert verdicts["ks-bonferroni-budget"].alarm is (found[-1] <= 1 / 91)
    assert max(p["topic"]) < 0.01
    assert sum(value <= 0.05 for value in p["none"] + p["label"]) <= 4
    assert p["wrong"] != p["label"]  # the labels are looked at


def test_rare_languages_count_as_one():
    before = np.array(["en"] * 95 + list("abcde"))
    assert language_p(before, np.array(["en"] * 95 + list("fghij"))) > 0.5
    assert language_p(before, np.array(["en"] * 80 + ["bg"] * 20)) < 0.001
    assert language_p(before[:3], before[:3]) == 1


def made(alarms, shift="topic", share=0.1, window=500, detector="tamis", seed=0):
    return {
        "window": window, "shift": shift, "share": share, "seed": seed,
        "alarms": {detector: alarms}, "p": {"tamis": [0.001 if one else 0.5 for one in alarms]},
        "cpu_s": {detector: [0.5] * len(alarms)},
    }  # fmt: skip


def test_rows_have_rates_with_intervals():
    turns = [
        made([1, 1, 0, 1]),
        made([1, 0]),
        made([0] * 6, "none", 0.0),
        made([1], detector="ks-bonferroni"),
    ]
    unchanged, peer, topic = rows_of(turns, MonitorSettings())
    assert (topic["detector"], topic["rate"], topic["repeats"]) == ("tamis", 0.6667, 6)
    assert (topic["low"], topic["high"]) == pytest.approx((0.3000, 0.9032), abs=1e-4)
    assert topic["cpu_s"] == 0.5 and topic["budget"] == 0.01099
    assert unchanged["shift"] == "none" and unchanged["alarms_a_quarter_1"] == 0
    assert unchanged["level_2"] > unchanged["level_1"] > 0
    assert peer["repeats"] == 1 and "level_1" not in peer
    assert wilson(0, 200)[1] == pytest.approx(0.0188, abs=1e-4)
    assert "| topic | 10% | 67% (30%-90%) | 100% (21%-100%) |" in table(
        [topic, unchanged, peer], 500
    )


def test_a_quarter_has_the_alarms_of_the_policy():
    settings = MonitorSettings()
    assert quarter_alarms([True] * 7, settings) == 3  # three days of cool-down between them
    twice = settings.model_copy(update={"consecutive": 2})
    assert quarter_alarms([True, False] * 5, twice) == 0
    assert quarter_alarms([False, True, True, False], twice) == 1


def test_what_was_not_reached_is_told():
    told = rows_of(
        [made([1] * 5 + [0] * 5), made([1] * 98 + [0] * 2, share=0.2)], MonitorSettings()
    )
    assert missed(told) == ["topic, 500 documents, 10% foreign: detected in 50%, 60% wanted"]
    many = rows_of([made([1] * 10 + [0] * 90, "none", 0.0)], MonitorSettings())
    assert missed(many) == ["none, 500 documents, 0% foreign: false alarms 10.0%, budget 1.1%"]
    # Two of a hundred are no proof that one of a hundred is not kept.
    assert missed(rows_of([made([1] * 2 + [0] * 98, "none", 0.0)], MonitorSettings())) == []


def test_the_picture_is_drawn(tmp_path):
    turns = [made([0, 0], "none", 0.0), made([1, 0]), made([1, 1], "label", 0.2)]
    picture(rows_of(turns, MonitorSettings()), tmp_path / "images" / "drift.png")
    assert (tmp_path / "images" / "drift.png").read_bytes()[:4] == b"\x89PNG"


def test_every_window_is_wanted_once():
    wanted = drift.cells((200, 500), ("topic", "label"), 20, 8, 3)
    windows = [
        (cell.window, cell.shift, cell.share, number) for cell in wanted for number in cell.numbers
    ]
    # Those that a target is set for are as many as those that did not change.
    assert len(windows) == len(set(windows)) == 2 * (20 + 4 * 8 + 5 * 8) + 2 * (20 - 8)
    assert len(drift.cells((2_000,), ("topic",), 20, 8, 1)) == 4 + 4 * 1
    assert {number % 3 == cell.seed for cell in wanted for number in cell.numbers} == {True}
    # The first turns are of every kind and reference.
    first = wanted[: 2 * 10 * 3]
    assert len({(cell.window, cell.shift, cell.share, cell.seed) for cell in first}) == 60


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    wanted = drift.cells((200,), ("topic",), 8, 4, 2)
    asked, rest = [], []

    def judged(cell):
        return {**asdict(cell), "alarms": {"tamis": [0]}, "p": {}, "cpu_s": {"tamis": [0.1]}}

    def turn(cell, folder, seed):
        asked.append(cell)
        if len(asked) > 3:
            raise KeyboardInterrupt
        return judged(cell)

    monkeypatch.setattr(drift, "turn", turn)
    monkeypatch.setattr(drift, "_pool", lambda: ThreadPoolExecutor(1))
    journal = tmp_path / "verdicts.jsonl"
    with pytest.raises(KeyboardInterrupt):
        drift.measure(wanted, journal, tmp_path, 0)
    done = len(journal.read_text().splitlines())
    assert done == 3
    with journal.open("a") as file:
        file.write('{"seed": 0, "wind\n')
    monkeypatch.setattr(drift, "turn", lambda cell, *_: rest.append(cell) or judged(cell))
    found = drift.measure(wanted, journal, tmp_path, 0)
    assert len(rest) == len(wanted) - done
    keys = {json.dumps([each[k] for k in ("seed", "share", "shift", "numbers")]) for each in found}
    assert len(found) == len(keys) == len(wanted)
