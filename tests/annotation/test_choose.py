"""Which documents are chosen, and which are left out."""

import json

import numpy as np
import pytest

from tamis.annotation import candidates as module
from tamis.annotation.candidates import candidates
from tamis.annotation.run import choose
from tamis.annotation.strategies import Advisers, pick, rank, strangeness, words_scorer
from tamis.corpus.document import content_hash, normalise
from tamis.corpus.readers import list_shards
from tamis.errors import DataError
from tamis.models.classifier import Scores
from tamis.task import Columns
from tests.annotation.rounds import ORDINAL, selection, settings
from tests.tiny import easy_set


class Champion:
    """Scores what stands at the end of a text; its vectors are that number, twice."""

    class info:
        threshold = 3.0

    reference = np.random.default_rng(0).normal(0, 1, (60, 2)).astype(np.float32)

    def numbers(self, texts):
        return np.array([float(text.split()[-1]) for text in texts])

    def score(self, texts, progress=None):
        return Scores(self.numbers(texts), np.ones(len(texts), dtype=np.int64))

    def embed(self, texts, progress=None):
        values = self.numbers(texts)[:, None].astype(np.float32)
        return np.hstack([values, values]), np.ones(len(texts), dtype=np.int64)


def nobody():
    raise AssertionError("nobody was to be asked")


ADVISERS = Advisers(champion=Champion, rival=lambda: lambda texts: -Champion().numbers(texts))
ALONE = Advisers(champion=nobody, rival=nobody)


def corpus(folder, texts, name="part"):
    folder.mkdir(exist_ok=True)
    lines = [text if isinstance(text, bytes) else json.dumps({"text": text}) for text in texts]
    data = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    (folder / f"{name}.jsonl").write_bytes(data + b"\n")
    return list_shards([str(folder)])


def draw(shards, labelled=frozenset(), most=1_000, seed=0):
    return candidates(shards, Columns(), labelled, most, seed)


def test_each_content_once_and_none_that_has_a_label(tmp_path):
    texts = ["one", "two", "one", "one  \r\n", "known \nx", b"{broken", "", '"\\ud800 half"', "two"]
    rows = [*texts[:7], b'{"text": "\\ud800 half"}', "two"]
    shards = corpus(tmp_path / "c", rows)
    found, considered = draw(shards, frozenset([content_hash(normalise("known\nx"))]))
    assert sorted(document.text for _, document in found) == ["one", "two"]
    assert considered.read == 9 and considered.labelled == 1 and considered.duplicates == 3
    assert considered.unreadable == 3 and considered.considered == 2


def test_a_sample_is_random_repeatable_and_blind_to_copies(tmp_path):
    shards = corpus(tmp_path / "a", [f"text {i}" for i in range(200)])
    more = corpus(tmp_path / "b", [f"text {i % 200}" for i in range(999, -1, -1)])
    first = [name for name, _ in draw(shards, most=30)[0]]
    assert first == [name for name, _ in draw(more, most=30)[0]]
    assert first == [name for name, _ in draw(shards, most=200)[0]][:30]
    other = [name for name, _ in draw(shards, most=30, seed=1)[0]]
    assert len(set(first) & set(other)) < 15
    positions = [int(d.text.split()[1]) for _, d in draw(shards, most=100)[0]]
    assert 70 < np.mean(positions) < 130


def test_a_sample_is_bounded_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 5_000)
    shards = corpus(tmp_path / "c", [f"{i} ".ljust(400, "x") for i in range(100)])
    found, _ = draw(shards)
    assert len(found) == 12


@pytest.mark.parametrize(
    ("strategy", "best"),
    [
        ("uncertain", {"2.9", "3.1", "3.0"}),
        ("drifted", {"9", "8.5", "8"}),
        ("disagreeing", {"9", "-9"}),
    ],
)
def test_a_strategy_puts_first_what_it_is_for(strategy, best):
    rng = np.random.default_rng(1)
    usual = [f"a text {value:.3f}" for value in rng.normal(0, 0.8, 60)]
    special = ["a text 9", "a text 2.9", "a text 8.5", "a text -9", "a text 3.1", "a text 3.0",
               "a text 8"]  # fmt: skip
    texts = usual + special
    order, scores = rank(strategy, texts, ADVISERS, 0)
    assert sorted(order) == list(range(len(texts)))
    assert {texts[i].split()[-1] for i in order[: len(best)]} == best
    assert (scores is None) == (strategy == "drifted")


def test_random_asks_no_model():
    order, scores = rank("random", ["a", "b"], ALONE, 0)
    assert order.tolist() == [0, 1] and scores is None


def test_strangeness_of_few_documents_is_a_distance():
    reference = np.zeros((50, 2), dtype=np.float32)
    vectors = np.array([[1, 0], [5, 0], [0, 2]], dtype=np.float32)
    assert np.argsort(-strangeness(reference, vectors, 0)).tolist() == [1, 2, 0]


def test_a_mix_follows_its_shares_and_a_larger_budget_begins_like_a_smaller():
    orders = {
        "random": (np.arange(100), None),
        "uncertain": (np.arange(99, -1, -1), None),
    }
    shares = {"random": 0.75, "uncertain": 0.25}
    small, large = pick(orders, shares, 20), pick(orders, shares, 60)
    assert large[:20] == small
    assert [name for _, name in large].count("uncertain") == 15
    every = pick(orders, shares, 1_000)
    assert sorted(at for at, _ in every) == list(range(100))


def test_words_tell_documents_apart():
    scorer = words_scorer(ORDINAL, easy_set(60), 0)
    good, bad = scorer(["proof theorem lemma axiom", "sale cheap click offer"])
    assert good > bad + 1


def test_a_round_is_chosen_as_settings_say(tmp_path):
    shards = corpus(tmp_path / "c", [f"text {i} {i / 10}" for i in range(60)])
    limits = settings("http://localhost/v1", strategy="mix", double_share=0.25, candidates=50)
    terms = selection(["x"]).terms

    def chosen(budget):
        return choose(terms, limits, shards, Columns(), frozenset(), ADVISERS, budget, 0)

    found = chosen(40)
    assert len(found.items) == 40 and len(found.doubled()) == 10
    by = found.summary().by_strategy
    assert by == {"disagreeing": 6, "drifted": 6, "random": 16, "uncertain": 12}
    near = [abs(i.model_score - 3) for i in found.items if i.strategy == "uncertain"]
    assert max(near) < 1.5
    assert found.items[:20] == chosen(20).items
    short = chosen(500)
    assert len(short.items) == 60 and "not 500" in short.notes[0]


def test_nothing_left_to_annotate_is_an_error(tmp_path):
    shards = corpus(tmp_path / "c", ["one", b"{broken"])
    known = frozenset([content_hash("one")])
    terms, limits = selection(["x"]).terms, settings("http://localhost/v1")
    with pytest.raises(DataError, match="none is left: 1 have a label, 1 cannot be read"):
        choose(terms, limits, shards, Columns(), known, ALONE, 5, 0)
