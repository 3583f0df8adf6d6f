import numpy as np
import pytest

from tamis.evaluation.gate import Period, Thresholds, compare_periods, decide
from tamis.evaluation.report import evaluate
from tamis.task import GatePolicy
from tests.evaluation.examples import BINARY, ORDINAL, documents, evaluation, noisy

FOUR = ("median", "length", "source", "tfidf")
POLICY = GatePolicy(floor=0.6, beat=FOUR, champion_margin=0.03)


@pytest.fixture(scope="module")
def good():
    return evaluation(noise=0.6)


def verdicts(decision):
    return {reason.check: reason.passed for reason in decision.reasons}


def champion(noise):
    return noisy(documents(120, seed=2).labels, noise, seed=11)


def test_first_good_model_passes_with_every_reason_stated(good):
    decision = decide(POLICY, "spearman", good, None, None, 0)
    assert decision.passed
    assert list(verdicts(decision)) == [
        "documents", "figures", "floor", "beats_median", "beats_length", "beats_source",
        "beats_tfidf", "champion",
    ]  # fmt: skip
    assert "no champion" in decision.reasons[-1].detail
    assert all("120" in reason.detail for reason in decision.reasons if reason.check != "champion")


def test_worse_model_is_refused_and_better_one_is_not(good):
    better = decide(POLICY, "spearman", good, champion(1.6), "v1", 0)
    assert verdicts(better)["champion"]
    worse = decide(POLICY, "spearman", evaluation(noise=1.6), champion(0.3), "v1", 0)
    assert not worse.passed
    assert not verdicts(worse)["champion"]
    assert "v1" in worse.reasons[-1].detail


def test_mae_is_turned_round(good):
    policy = GatePolicy(floor=0.8, champion_margin=0.05)
    assert decide(policy, "mae", good, champion(1.6), "v1", 0).passed
    bad = decide(policy, "mae", evaluation(noise=2.5), champion(0.3), "v1", 0)
    found = verdicts(bad)
    assert not found["floor"]
    assert not found["champion"]
    assert "at most 0.8" in bad.reasons[2].detail


def test_floor_and_baselines_each_refuse(good):
    below = decide(GatePolicy(floor=0.99), "spearman", good, None, None, 0)
    assert verdicts(below) | {"floor": True} == dict.fromkeys(verdicts(below), True)
    assert not below.passed
    guess = evaluation(scores=np.random.default_rng(0).uniform(0, 5, 120))
    refused = verdicts(decide(GatePolicy(beat=FOUR), "spearman", guess, None, None, 0))
    assert not refused["beats_tfidf"]
    assert not refused["beats_source"]
    assert "floor" not in refused


def test_constant_model_does_not_beat_the_constant_baseline():
    flat = evaluation(scores=np.full(120, 3.0))
    found = decide(GatePolicy(beat=("median",)), "spearman", flat, None, None, 0)
    assert not verdicts(found)["beats_median"]


def test_equal_model_needs_a_margin(good):
    same = good.scores()
    strict = GatePolicy(champion_margin=0.0)
    assert verdicts(decide(POLICY, "spearman", good, same, "v1", 0))["champion"]
    assert not verdicts(decide(strict, "spearman", good, same, "v1", 0))["champion"]


def test_champion_that_saw_the_documents_is_named(good):
    detail = decide(POLICY, "spearman", good, champion(1.0), "v1", 17).reasons[-1].detail
    assert "trained on 17" in detail


def test_champion_is_judged_at_its_own_threshold():
    found = evaluation(noise=0.4, metric="f1")
    policy = GatePolicy(beat=())
    shifted = found.scores() / 10
    own = decide(policy, "f1", found, shifted, "v1", 0, champion_threshold=0.26)
    assert "is 0.000 (0.000 to 0.000)" in own.reasons[-1].detail
    assert "(0.000) is" in decide(policy, "f1", found, shifted, "v1", 0).reasons[-1].detail


@pytest.mark.parametrize("n", [2, 8])
def test_too_few_documents_are_refused(n):
    found = decide(GatePolicy(beat=()), "spearman", evaluation(noise=0.1, n=n), None, None, 0)
    assert not found.passed
    assert not found.reasons[0].passed


def test_too_few_groups_are_refused():
    found = evaluation(noise=0.1, groups=["one page"] * 120)
    decision = decide(GatePolicy(beat=()), "spearman", found, None, None, 0)
    assert not decision.passed
    assert "1 groups" in decision.reasons[0].detail


def test_nan_fails_with_a_reason(good):
    broken = good.figure.model_copy(update={"value": float("nan")})
    figures = good.model.figures | {"spearman": broken}
    spoilt = good.model_copy(update={"model": good.model.model_copy(update={"figures": figures})})
    decision = decide(GatePolicy(), "spearman", spoilt, None, None, 0)
    assert not decision.passed
    assert "not a finite number" in decision.reasons[-1].detail
    scores = good.scores()
    scores[0] = np.nan
    assert not verdicts(decide(GatePolicy(), "spearman", good, scores, "v1", 0))["champion"]


def test_champion_scores_of_other_documents_fail(good):
    assert not decide(GatePolicy(), "spearman", good, np.ones(5), "v1", 0).passed


def test_missing_baseline_or_metric_fails():
    bare = evaluation(baseline_scores={}, baseline_thresholds={})
    decision = decide(GatePolicy(beat=("tfidf",)), "spearman", bare, None, None, 0)
    assert not verdicts(decision)["beats_tfidf"]
    d = documents(40)
    binary = evaluate(
        task="t", target=BINARY, metric="f1", threshold=0.5, ids=d.texts, texts=d.texts,
        labels=d.labels % 2, second_labels=None, sources=d.sources, groups=d.groups,
        scores=d.labels % 2, baseline_scores={}, baseline_thresholds={}, seed=0,
    )  # fmt: skip
    assert not decide(GatePolicy(beat=()), "spearman", binary, None, None, 0).passed


def period(n, champion_noise, challenger_noise, seed=0):
    labels = np.random.default_rng(seed).integers(0, 6, n).astype(float)
    return Period(
        labels,
        noisy(labels, champion_noise, seed + 1),
        noisy(labels, challenger_noise, seed + 2),
        [f"g{i // 2}" for i in range(n)],
    )


def periods(old, new, metric="spearman", margin=0.05):
    return compare_periods(metric, margin, old, new, ORDINAL, Thresholds(2.5, 2.5), 0)


@pytest.mark.parametrize("metric", ["spearman", "mae"])
def test_challenger_must_hold_the_old_and_gain_on_the_new(metric):
    margin = 0.05 if metric == "spearman" else 0.2
    kept, gained = period(200, 0.5, 0.5), period(100, 2.0, 0.5, seed=5)
    forgot, lost = period(200, 0.4, 2.0), period(100, 0.5, 2.0, seed=5)
    decision, comparison = periods(kept, gained, metric, margin)
    assert decision.passed, decision.reasons
    assert comparison.new.gain.low > 0
    assert comparison.old.gain.n == 200
    assert "200 test documents" in decision.reasons[1].detail
    for old, new, failing in ((forgot, gained, "old_period"), (kept, lost, "new_period")):
        decision, _ = periods(old, new, metric, margin)
        assert [r.check for r in decision.reasons if not r.passed] == [failing]


def test_no_gain_on_the_new_period_is_refused():
    same = period(120, 0.5, 0.5)
    same = same._replace(challenger=same.champion)
    decision, comparison = periods(same, same)
    assert verdicts(decision) == {
        "old_documents": True, "old_period": True, "new_documents": True, "new_period": False,
    }  # fmt: skip
    assert comparison.new.gain.value == 0


def test_periods_that_cannot_be_judged_are_refused():
    usable = period(100, 1.5, 0.4)
    decision, comparison = periods(usable, period(6, 1.5, 0.1))
    assert not decision.passed
    assert comparison.new is None
    broken = usable._replace(challenger=np.full(100, np.nan))
    decision, _ = periods(usable, broken)
    assert "not finite" in decision.reasons[-1].detail
    empty = Period(np.array([]), np.array([]), np.array([]), [])
    assert not periods(empty, usable)[0].passed


def test_same_seed_same_decision():
    old, new = period(100, 0.5, 0.6), period(60, 1.0, 0.8, seed=5)
    assert periods(old, new) == periods(old, new)


def test_of_two_models_that_cannot_be_told_apart_neither_passes_as_better():
    one, other = champion(0.6), noisy(documents(120, seed=2).labels, 0.6, seed=12)
    policy = GatePolicy(beat=("tfidf",), champion_margin=0.0)
    for mine, theirs in ((one, other), (other, one)):
        beside = {"baseline_scores": {"tfidf": theirs}, "baseline_thresholds": {"tfidf": 2.6}}
        found = verdicts(
            decide(policy, "spearman", evaluation(scores=mine, **beside), theirs, "v1", 0)
        )
        assert not found["champion"]
        assert not found["beats_tfidf"]
