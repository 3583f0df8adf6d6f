import numpy as np
import pytest

from tamis.serving.rate import RateLimiter


class Clock:
    """Says what it is told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def passed(limiter, key, times):
    return sum(limiter.take(key) == 0 for _ in range(times))


def test_a_key_may_ask_so_often_and_others_do_not_count(clock):
    limiter = RateLimiter(5, clock)
    assert passed(limiter, "a", 9) == 5
    assert passed(limiter, "b", 5) == 5


def test_no_limit_lets_all_through(clock):
    assert passed(RateLimiter(0, clock), "a", 1_000) == 1_000


def test_the_window_slides(clock):
    limiter = RateLimiter(60, clock)
    clock.now = 59.0
    assert passed(limiter, "a", 100) == 60
    clock.now = 61.0
    assert passed(limiter, "a", 100) == 1
    clock.now = 90.0
    assert passed(limiter, "a", 100) == 29
    clock.now = 1_000.0
    assert passed(limiter, "a", 100) == 60


@pytest.mark.parametrize("most", [1, 2, 7, 100])
@pytest.mark.parametrize("start", [0.0, 12.5, 59.9])
def test_whoever_comes_back_when_told_is_let_in_and_a_moment_before_is_not(clock, most, start):
    limiter = RateLimiter(most, clock)
    clock.now = start
    assert passed(limiter, "a", most) == most
    for _ in range(5):
        wait = limiter.take("a")
        assert 0 < wait <= 120
        clock.now += wait * 0.9
        assert limiter.take("a") > 0
        clock.now += wait * 0.1 + 0.01
        assert limiter.take("a") == 0


def test_no_minute_has_more_than_twice_the_limit_and_none_of_steady_traffic_is_refused(clock):
    limiter, most = RateLimiter(50, clock), 50
    chance = np.random.default_rng(0)
    times = []
    for _ in range(5_000):
        clock.now += float(chance.exponential(0.3))
        if limiter.take("a") == 0:
            times.append(clock.now)
    counts = [np.sum((np.array(times) > t - 60) & (np.array(times) <= t)) for t in times]
    assert max(counts) <= 2 * most
    steady = RateLimiter(50, clock)
    for _ in range(500):
        clock.now += 60 / 45
        assert steady.take("b") == 0
