import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from tamis.models.classifier import Scores
from tamis.serving.pool import Busy, ScoringPool


class Slow:
    """Scores a text by its length, once it is let go on."""

    def __init__(self, go=None, fail=()):
        self.go, self.fail = go, fail
        self.calls = []
        self.started = threading.Event()

    def score(self, texts):
        self.calls.append(list(texts))
        self.started.set()
        if self.go is not None:
            assert self.go.wait(30)
        if set(texts) & set(self.fail):
            raise ValueError("broken")
        values = np.array([len(text) for text in texts], dtype=float)
        return Scores(values, values.astype(np.int64))

    def embed(self, texts):
        return np.array([[len(text)] for text in texts], np.float32), None


@pytest.fixture
def held():
    """A pool of one thread that is held up in its first request, and what lets it go."""
    made = []

    def make(most=10, **more):
        go = threading.Event()
        one = Slow(go)
        pool = ScoringPool(lambda: one, 1, most, **more)
        first = pool.submit(["first"], 60)
        assert one.started.wait(30)
        made.append((pool, go))
        return pool, one, go, first

    yield make
    for pool, go in made:
        go.set()
        pool.close()


def test_each_request_gets_its_own_scores():
    pool = ScoringPool(Slow, 3, 1_000)
    answers = [pool.submit(["x" * n, "y" * (n + 1)], 60) for n in range(50)]
    for n, answer in enumerate(answers):
        assert answer.result(30).scores.values.tolist() == [n, n + 1]
        assert answer.result().vectors is None
    pool.close()
    assert not pool.alive


def test_a_full_queue_turns_away_and_says_when_to_come_back(held):
    pool, _, go, first = held(most=3)
    waiting = [pool.submit(["a"], 60), pool.submit(["b", "c"], 60)]
    assert pool.waiting == 3
    with pytest.raises(Busy) as caught:
        pool.submit(["d"], 60)
    assert caught.value.seconds >= 1
    go.set()
    assert [answer.result(30).scores.values[0] for answer in (first, *waiting)] == [5, 1, 1]
    assert pool.waiting == 0
    assert pool.submit(["d"], 60).result(30).scores.values.tolist() == [1]


def test_an_empty_queue_takes_one_request_of_any_size(held):
    pool, _, go, _ = held(most=2)
    large = pool.submit(["x"] * 5, 60)
    with pytest.raises(Busy):
        pool.submit(["y"], 60)
    go.set()
    assert len(large.result(30).scores.values) == 5


def test_what_nobody_waits_for_is_not_scored(held):
    pool, one, go, _ = held()
    gone, late, kept = pool.submit(["gone"], 60), pool.submit(["late"], 0), pool.submit(["k"], 60)
    assert gone.cancel()
    go.set()
    assert kept.result(30).scores.values.tolist() == [1]
    with pytest.raises(TimeoutError):
        late.result(30)
    with pytest.raises(CancelledError):
        gone.result(0)
    assert one.calls == [["first"], ["k"]]
    assert pool.waiting == 0


def test_an_error_reaches_whoever_asked_and_nobody_else():
    pool = ScoringPool(lambda: Slow(fail=["bad"]), 1, 100)
    bad, good = pool.submit(["bad"], 60), pool.submit(["good"], 60)
    with pytest.raises(ValueError, match="broken"):
        bad.result(30)
    assert good.result(30).scores.values.tolist() == [4]
    assert pool.alive
    pool.close()


def test_a_batch_joins_texts_of_like_length_only(held):
    pool, one, go, _ = held(most=100, batch=3)
    given = ["aaaa", "b" * 400, "cccc", "ddd", "eeee", "f" * 300]
    answers = [pool.submit([text], 60) for text in given]
    go.set()
    for text, answer in zip(given, answers, strict=True):
        assert answer.result(30).scores.values.tolist() == [len(text)]
    assert one.calls[1:] == [["aaaa", "cccc", "ddd"], ["b" * 400, "f" * 300], ["eeee"]]


def test_without_batching_each_request_is_scored_alone(held):
    pool, one, go, _ = held()
    answers = [pool.submit([text], 60) for text in "ab"]
    go.set()
    for answer in answers:
        answer.result(30)
    assert one.calls[1:] == [["a"], ["b"]]


def test_vectors_come_where_they_are_asked_for():
    pool = ScoringPool(Slow, 1, 100, embed=True)
    assert pool.submit(["abc", "d"], 60).result(30).vectors.tolist() == [[3], [1]]
    pool.close()


def test_closing_answers_what_waits_and_takes_nothing_more(held):
    pool, _, go, first = held()
    waiting = pool.submit(["w"], 60)
    closing = threading.Thread(target=pool.close)
    closing.start()
    while True:
        try:
            pool.submit(["late"], 60)
        except Busy:
            break
        time.sleep(0.001)
    go.set()
    closing.join(30)
    assert first.result(0).scores.values[0] == 5
    assert waiting.result(0).scores.values[0] == 1
