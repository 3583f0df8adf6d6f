import numpy as np
import pytest

from tamis.monitoring.monitored import Labelled
from tamis.monitoring.performance import measure_performance
from tamis.monitoring.settings import MonitorSettings, PerformanceLimits
from tamis.target import BinaryTarget
from tests.monitoring.monitor_tools import TARGET, profile, scored, window_of

RATE = MonitorSettings().label_rate
PROFILE = profile(600)


def measured(found, metric="spearman", limits=None, seed=0):
    return measure_performance(
        TARGET, metric, PROFILE, found.labelled, found.sample, limits or PerformanceLimits(), RATE,
        seed,
    )  # fmt: skip


def drawn(size, seed, turn=0.0, shift=0.0):
    """Labelled documents of the reference's population, some with labels turned round."""
    rng = np.random.default_rng(seed)
    truth = np.clip(np.round(2.5 + 1.3 * rng.normal(size=size)), 0, 5)
    scores = scored(truth, seed)
    labels = np.where(rng.random(size) < turn, 5 - truth, truth)
    labels = np.clip(labels + shift, 0, 5)
    return Labelled(scores, labels, np.array([f"{i}" for i in range(size)]))


def judged(labelled, metric="spearman", **limits):
    return measure_performance(
        TARGET, metric, PROFILE, labelled, PROFILE.sample, PerformanceLimits(**limits), RATE, 0
    )


def test_labels_that_changed_are_found_though_the_documents_did_not():
    found = measured(window_of(["school", "sea"] * 150, labelled=300, flipped=0.35))
    assert found.worse and found.alarming
    assert found.measured.high < found.reference.low
    assert found.drop.value == pytest.approx(found.reference.value - found.measured.value)
    assert found.drop.low > found.loss
    failed = [reason.check for reason in found.reasons() if not reason.passed]
    assert "performance" in failed
    # Without labels nobody can see it.
    blind = measured(window_of(["school", "sea"] * 150, flipped=0.35))
    assert not blind.alarming and blind.measured is None and blind.estimated


def test_a_scale_that_moved_is_found_though_the_order_stayed():
    found = judged(drawn(300, 1, shift=-1.0))
    assert found.shifted and not found.worse
    assert found.shift.value == pytest.approx(-1, abs=0.25)
    assert [r.check for r in found.reasons() if not r.passed] == ["label shift"]


def test_unchanged_windows_ring_no_more_often_than_their_part_of_the_budget():
    rang = sum(judged(drawn(60, seed)).alarming for seed in range(5))
    assert RATE < 0.0012 and rang == 0


def test_few_labels_decide_nothing():
    found = judged(drawn(49, 1, turn=1.0))
    assert not found.alarming and found.measured.value < 0
    assert [r.passed for r in found.reasons()] == [True]
    assert judged(drawn(50, 1, turn=1.0)).worse
    none = judged(drawn(0, 1))
    assert none.labels == 0 and none.measured is None and none.reasons()[0].passed


def test_labels_that_are_all_alike_or_of_one_group_are_no_figure():
    some = drawn(100, 2)
    alike = Labelled(some.scores, np.full(100, 3.0), some.groups)
    assert judged(alike).measured is None and not judged(alike).worse
    together = Labelled(some.scores, 5 - some.labels, np.full(100, "one"))
    assert judged(together).measured is None and not judged(together).alarming


def test_lower_is_better_for_an_error():
    assert not judged(drawn(150, 3), "mae").worse
    found = judged(drawn(150, 3, turn=0.6), "mae")
    assert found.worse and found.drop.value > 0 and found.measured.value > found.reference.value


def test_what_is_estimated_without_labels_holds_when_only_the_mix_changes():
    # Most of what came is worth little: fewer are kept, and precision falls with them.
    base = drawn(4_000, 5)
    keep = (base.scores <= 2.2) | (np.random.default_rng(0).random(4_000) < 0.3 * (base.scores < 4))
    scores, labels = base.scores[keep], base.labels[keep]
    sample = PROFILE.sample.take(np.arange(len(scores)) % len(PROFILE.sample))
    object.__setattr__(sample, "scores", scores)
    found = measure_performance(
        TARGET, "spearman", PROFILE, drawn(0, 0), sample, PerformanceLimits(), RATE, 0
    )
    kept = scores >= PROFILE.threshold
    truth = TARGET.kept(labels)
    assert found.estimated["kept"].value == pytest.approx(kept.mean(), abs=0.03)
    assert found.estimated["kept"].value < found.expected["kept"] - 0.1
    precision = found.estimated["precision"]
    assert precision.low - 0.05 <= truth[kept].mean() <= precision.high + 0.05


def test_labels_of_chosen_documents_are_told_from_random_ones():
    some = drawn(300, 8)
    low = some.scores < 2
    chosen = Labelled(some.scores[low], some.labels[low], some.groups[low])
    assert judged(chosen).selected_p < 1e-6 < 0.01 < judged(some).selected_p


def test_a_profile_without_labels_says_only_what_it_can():
    bare = profile(200)
    object.__setattr__(bare, "labels", np.full(200, np.nan))
    found = measure_performance(
        TARGET, "spearman", bare, drawn(200, 1, turn=1.0), bare.sample, PerformanceLimits(), RATE, 0
    )
    # The stated figure of the test documents stands in.
    assert found.reference.value == 0.85 and found.worse and not found.estimated
    object.__setattr__(bare, "facts", bare.facts.model_copy(update={"performance": {}}))
    lost = measure_performance(
        TARGET, "spearman", bare, drawn(200, 1, turn=1.0), bare.sample, PerformanceLimits(), RATE, 0
    )
    assert lost.measured is not None and lost.reference is None and not lost.alarming
    assert lost.reasons()[0].passed


def test_a_binary_target_is_judged_by_what_is_to_be_kept():
    target = BinaryTarget(kind="binary", negative="no", positive="yes")
    bare = profile(300)
    object.__setattr__(bare, "labels", (bare.labels >= 3).astype(float))
    object.__setattr__(bare.sample, "scores", bare.sample.scores / 5)
    object.__setattr__(
        bare, "facts", bare.facts.model_copy(update={"threshold": 0.55, "scale": (0.0, 1.0)})
    )
    some = drawn(200, 4)
    good = Labelled(some.scores / 5, (some.labels >= 3).astype(float), some.groups)
    bad = Labelled(good.scores, 1 - good.labels, good.groups)
    args = (bare.sample, PerformanceLimits(), RATE, 0)
    sound = measure_performance(target, "average_precision", bare, good, *args)
    turned = measure_performance(target, "average_precision", bare, bad, *args)
    assert not sound.alarming and turned.worse
    assert "mean label" not in sound.estimated
