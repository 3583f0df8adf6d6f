"""Chunks of texts are tokenized while the network runs on the ones before."""

import threading

import numpy as np
import pytest

from tamis.corpus.split import split
from tamis.models import tokens as module
from tamis.models.tokens import (
    Tokens,
    tokenized_ahead,
)
from tamis.models.train import train
from tests.tiny import easy_set, easy_texts, tiny_task

WORDS = [f"word{n}" for n in range(150)]


class TestAhead:
    TEXTS = tuple("x" * (n * 7 % 50) + str(n) for n in range(23))

    def prepare(self, texts):
        return Tokens([[len(text)] for text in texts], 0)

    def test_every_text_comes_once_with_its_tokens(self):
        seen = {}
        for rows, tokens in tokenized_ahead(self.prepare, self.TEXTS, 5):
            assert len(rows) <= 5
            seen |= dict(zip(rows.tolist(), tokens.ids, strict=True))
        assert seen == {row: [len(text)] for row, text in enumerate(self.TEXTS)}

    def test_texts_of_a_chunk_are_of_like_length(self):
        chunks = [tokens.ids for _, tokens in tokenized_ahead(self.prepare, self.TEXTS, 5)]
        flat = [ids for chunk in chunks for ids in chunk]
        assert flat == sorted(flat)

    def test_few_texts_stay_as_they_are_and_in_this_thread(self):
        threads = []

        def prepare(texts):
            threads.append(threading.current_thread())
            return self.prepare(texts)

        ((rows, tokens),) = tokenized_ahead(prepare, self.TEXTS, 23)
        assert rows.tolist() == list(range(23))
        assert tokens.same(self.prepare(self.TEXTS))
        assert threads == [threading.current_thread()]
        ((rows, tokens),) = tokenized_ahead(prepare, [], 5)
        assert len(rows) == len(tokens.ids) == 0

    def test_the_next_chunk_is_tokenized_while_this_one_is_used_and_no_further(self):
        begun = [threading.Event() for _ in range(5)]
        calls = []

        def prepare(texts):
            begun[len(calls)].set()
            calls.append(len(texts))
            return self.prepare(texts)

        for number, _ in enumerate(tokenized_ahead(prepare, self.TEXTS, 5)):
            if number < 4:
                assert begun[number + 1].wait(20)
            assert not any(event.is_set() for event in begun[number + 2 :])
        assert calls == [5, 5, 5, 5, 3]

    def test_errors_come_through_and_no_thread_stays(self):
        def prepare(texts):
            if any(len(text) > 30 for text in texts):
                raise ValueError("no")
            return self.prepare(texts)

        with pytest.raises(ValueError, match="^no$"):
            list(tokenized_ahead(prepare, self.TEXTS, 5))
        for _ in tokenized_ahead(self.prepare, self.TEXTS, 5):
            break
        assert not [t for t in threading.enumerate() if t.name.startswith("tokenize")]


def test_scores_of_many_texts_are_those_of_each(tiny_bert, tmp_path, monkeypatch):
    data = easy_set(60)
    task = tiny_task(tiny_bert)
    assignment = split(data, task.target, task.split, task.seed)
    classifier = train(task, data, assignment, tmp_path).classifier
    texts = [*easy_texts(np.linspace(0, 1, 60), seed=2), "", " ".join(WORDS), "proof"]
    at_once, told = classifier.score(texts), []
    monkeypatch.setitem(module.TEXTS_AT_ONCE, "cpu", 8)
    monkeypatch.setitem(module.TEXTS_AT_ONCE, "cuda", 8)
    chunked = classifier.score(texts, lambda *numbers: told.append(numbers))
    np.testing.assert_allclose(chunked.values, at_once.values, atol=1e-5)
    assert chunked.tokens.tolist() == at_once.tokens.tolist()
    done = [number for number, _ in told]
    assert done == sorted(set(done))
    assert len(told) >= 8
    assert told[-1] == (63, 63)
    assert {total for _, total in told} == {63}
