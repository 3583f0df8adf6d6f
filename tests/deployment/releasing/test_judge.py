import math
import random

import pytest

from deployment.releasing.judge import Evidence, judge
from deployment.releasing.plan import Phase, phases
from deployment.releasing.statistics import (
    Pairs,
    Rate,
    chance,
    distance,
    more_often,
    quantile,
    spent,
)
from deployment.releasing.target import Histogram, Observation
from tamis.config import validate
from tamis.errors import ConfigError
from tamis.serving.release_settings import ReleaseLimits, ReleaseSettings

EDGES = tuple(step / 20 for step in range(1, 21))
SECONDS = tuple(0.001 * 1.15**step for step in range(80))
PHASE = Phase("canary 5%", 5, False, True, None, 200, 60.0, 600.0)
BOTH = frozenset({"requests", "scores"})


def histogram(values, edges):
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value > edge for edge in edges)] += 1
    return Histogram(edges=edges, counts=tuple(counts))


def seen(requests=1_000, errors=0, refused=0, shift=0.0, slow=1.0, seed=0):
    chance_of = random.Random(seed)
    scores = [min(1, max(0, chance_of.gauss(0.5 + shift, 0.15))) for _ in range(requests)]
    times = [chance_of.lognormvariate(-4, 0.4) * slow for _ in range(requests)]
    return Observation(
        requests=requests, errors=errors, refused=refused, documents=requests,
        kept=sum(score >= 0.5 for score in scores), scores=histogram(scores, EDGES),
        latency=histogram(times, SECONDS),
    )  # fmt: skip


def look(challenger, champion=None, seconds=120.0, pairs=None, number=1, sees=BOTH, phase=PHASE):
    evidence = Evidence(champion or seen(5_000, seed=9), challenger, pairs, seconds, sees)
    return judge(phase, ReleaseLimits(), evidence, 0.01, number)


def states(judgement):
    return {each.check: each.state for each in judgement.findings}


def test_one_that_is_like_the_champion_goes_on():
    found = look(seen())
    assert found.verdict == "go on"
    assert found.decision.passed
    assert "1,000" in found.decision.reasons[0].detail


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ({"errors": 30}, "errors"),
        ({"refused": 80}, "refused"),
        ({"shift": 0.15}, "scores"),
        ({"slow": 3.0}, "latency"),
    ],
)
def test_what_is_clearly_worse_is_taken_back_at_once(how, check):
    found = look(seen(**how), seconds=1.0)
    assert found.verdict == "roll back"
    assert states(found)[check] == "failed"
    assert not found.decision.passed


def test_a_few_errors_early_are_no_proof_but_no_pass_either():
    found = look(seen(40, errors=1))
    assert (found.verdict, states(found)["errors"]) == ("wait", "open")
    assert look(seen(40, errors=1), seconds=600.0).verdict == "roll back"


def test_too_little_traffic_waits_and_then_goes_back():
    few = seen(150)
    assert look(few).verdict == "wait"
    late = look(few, seconds=600.0)
    assert late.verdict == "roll back"
    assert "not enough traffic" in late.findings[0].detail
    assert look(seen(), seconds=59.0).verdict == "wait"


def test_nothing_at_all_passes_nothing():
    found = look(Observation(), Observation())
    assert set(states(found).values()) == {"open"}


def test_what_a_target_does_not_see_is_not_asked_of_it():
    found = look(seen(shift=0.3), sees=frozenset({"requests"}))
    assert set(states(found)) == {"traffic", "errors", "refused", "latency"}
    assert found.verdict == "go on"


def test_pairs_of_a_shadow():
    good, bad = Pairs(), Pairs()
    for number in range(500):
        good.add(number % 50 != 0, 0.02)
        bad.add(number % 4 != 0, 0.3)
    sees = BOTH | {"answers"}
    assert look(seen(), pairs=good, sees=sees).verdict == "go on"
    found = states(look(seen(), pairs=bad, sees=sees))
    assert (found["agreement"], found["score difference"]) == ("failed", "failed")
    none = states(look(seen(), pairs=Pairs(), sees=sees))
    assert (none["agreement"], none["score difference"]) == ("open", "open")


def test_false_alarms_over_many_looks_stay_below_alpha():
    """A challenger that is the champion, looked at twenty times: 400 releases."""
    alarms = 0
    for release in range(400):
        luck = random.Random(release)
        errors, others = 0, 0
        for number in range(1, 21):
            errors += sum(luck.random() < 0.02 for _ in range(50))
            others += sum(luck.random() < 0.02 for _ in range(200))
            one, two = Rate(errors, 50 * number), Rate(others, 200 * number)
            if more_often(one, two) <= spent(0.05, number):
                alarms += 1
                break
    assert alarms / 400 <= 0.05


def test_the_parts_of_all_looks_sum_to_the_whole():
    assert math.isclose(sum(spent(0.05, look) for look in range(1, 100_000)), 0.05, rel_tol=1e-4)


def test_fishers_test_is_scipys():
    from scipy.stats import fisher_exact

    table = [[7, 93], [5, 495]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert more_often(Rate(7, 100), Rate(5, 500)) == pytest.approx(expected)


def test_wilsons_interval_is_scipys():
    from scipy.stats import binomtest

    expected = binomtest(7, 120).proportion_ci(method="wilson")
    assert Rate(7, 120).interval() == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_chance_covers_the_distance_of_two_samples_of_one_distribution():
    wider = 0
    for seed in range(100):
        one, two = seen(300, seed=seed).scores, seen(600, seed=seed + 1_000).scores
        wider += distance(one, two) > chance(300, 600, 0.05)
    assert wider <= 5


def test_the_interval_of_a_quantile_holds_the_true_one():
    true = math.exp(-4 + 0.4 * 1.6449)
    missed = 0
    for seed in range(200):
        _, low, high = quantile(seen(400, seed=seed).latency, 0.95, 0.05)
        missed += not low <= true <= high
    assert missed <= 10
    assert quantile(Histogram(), 0.95, 0.05) == (0.0, 0.0, math.inf)


def test_counters_that_begin_anew_count_from_there():
    before, after = seen(1_000), seen(40, seed=3)
    assert after.since(before) == after
    more = before.model_copy(update={"requests": 1_010, "errors": 2})
    left = more.since(before)
    assert (left.requests, left.errors, left.documents, left.scores.total) == (10, 2, 0, 0)


def test_phases_of_the_strategies():
    settings = ReleaseSettings(steps=(10, 40))
    assert [p.share for p in phases("canary", settings)] == [10, 40]
    assert [(p.share, p.shadow) for p in phases("shadow", settings)] == [(0, True)]
    blue, green = phases("blue-green", settings)
    assert (blue.judged, green.share, green.before) == (False, 100, "blue")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": [50, 5]}, "percentages that rise"),
        ({"steps": [0]}, "steps"),
        ({"steps": []}, "steps"),
        ({"max_seconds": 5}, "from min_seconds=60"),
        ({"limits": {"erors": 0.1}}, "did you mean 'errors'"),
        ({"kubernetes": {"image": "x/y:1"}}, "version"),
    ],
)
def test_settings_that_cannot_be(given, told):
    with pytest.raises(ConfigError, match=told):
        validate(ReleaseSettings, given, "task.yaml")
