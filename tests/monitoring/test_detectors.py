from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from tamis.monitoring import detectors as module
from tamis.monitoring.detectors import (
    most_window_like,
    names,
    pooled_detectors,
    statistics,
)
from tamis.monitoring.drift import DriftReport, drift_between
from tamis.monitoring.permutation import (
    Scale,
    combine,
    come_whole,
    observed_labels,
    one_of_each,
    relabelled,
)
from tamis.monitoring.settings import MonitorSettings
from tests.monitoring.drift_samples import sample

SETTINGS = MonitorSettings(calibration={"resamples": 100, "permutations": 199})
LENIENT = MonitorSettings(
    false_alarms={"alarms": 40, "days": 91}, calibration={"resamples": 100, "permutations": 99}
)
ALL = {"domain classifier", "most window-like", "neighbours", "kernel", "words", "score", "length",
       "language"}  # fmt: skip


def values(reference, window):
    found = pooled_detectors(reference, window)
    observed = statistics(found, observed_labels(len(reference), len(window)))[0]
    return dict(zip([name for name, _ in names(found)], observed, strict=True))


def test_distance_and_chi_square_are_those_of_scipy():
    a, b = sample(80, 1), sample(50, 2)
    b.scores[:10] = a.scores[:10]  # equal values in both
    b.scores[20:25] = np.nan
    found = values(a, b)
    known = b.scores[np.isfinite(b.scores)]
    assert found["score"] == pytest.approx(ks_2samp(a.scores, known).statistic, rel=1e-4)
    assert found["length"] == pytest.approx(
        ks_2samp(a.characters, b.characters).statistic, rel=1e-4
    )
    table = [[(s.languages == code).sum() for code in ("en", "fr")] for s in (a, b)]
    expected = chi2_contingency(table, correction=False).statistic
    assert found["language"] == pytest.approx(expected, rel=1e-3)


def test_classifier_outputs_are_those_of_leaving_each_document_out():
    a, b = sample(40, 1), sample(25, 2, foreign=0.5)
    x = np.concatenate([a.vectors, b.vectors]).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.repeat([0.0, 1.0], [40, 25])
    # The ridge's mean is taken over all documents, which leaving one out moves a little.
    held = cross_val_predict(Ridge(alpha=module.RIDGE), x, y, cv=LeaveOneOut())
    gap = held[40:].mean() - held[:40].mean()
    assert values(a, b)["domain classifier"] == pytest.approx(gap, rel=0.1)


def test_most_window_like_counts_the_window_among_the_highest_outputs():
    labels = np.zeros((2, 100), np.float32)
    labels[0, :50] = labels[1, 50:] = 1
    outputs = np.tile(np.linspace(1, 0, 100, dtype=np.float32), (2, 1))
    first, last = most_window_like(outputs, labels, 50)
    # Of 10 drawn of 100, half of them of the window: mean 5, variance 10 * 1/4 * 90/99.
    assert first == pytest.approx(5 / np.sqrt(10 / 4 * 90 / 99), rel=1e-4)
    assert last < 0


def test_neighbours_see_a_cluster_of_the_window_alone():
    a, b = sample(100, 1), sample(50, 2)
    whole = sample(50, 2, foreign=0.4)
    assert values(a, whole)["neighbours"] > 2 * values(a, b)["neighbours"]


@pytest.mark.parametrize("seed", range(2))
def test_order_of_documents_does_not_matter(seed):
    a, b = sample(60, seed), sample(30, seed + 10, foreign=0.2)
    rng = np.random.default_rng(seed)
    turned = values(a.take(rng.permutation(60)), b.take(rng.permutation(30)))
    assert turned == pytest.approx(values(a, b), rel=1e-3, abs=1e-4)


def test_labellings_in_one_go_are_those_one_by_one(monkeypatch):
    a, b = sample(40, 1), sample(20, 2)
    labels = relabelled(40, 20, None, 9, np.random.default_rng(0))
    found = pooled_detectors(a, b)
    together = statistics(found, labels)
    monkeypatch.setattr(module, "LABELLINGS", 2)
    assert statistics(found, labels) == pytest.approx(together, rel=1e-4, abs=1e-5)


def test_p_values_are_uniform_where_nothing_changed():
    p = []
    rows = np.arange(90)
    for seed in range(120):
        whole = sample(90, seed)
        p.append(drift_between(whole.take(rows[:60]), whole.take(rows[60:]), LENIENT, seed).p)
    p = np.array(p)
    assert p.mean() == pytest.approx(0.5, abs=0.09)
    # Of 120, a tenth is 12; more than 23 come up once in a thousand.
    assert (p <= 0.1).sum() <= 23
    assert p.min() >= 0.01


def test_a_small_share_of_foreign_documents_is_found_and_named():
    reference = sample(300, 1)
    report = drift_between(reference, sample(150, 2, foreign=0.15), SETTINGS, 0)
    assert report.drifted
    assert report.p <= report.level
    assert {test.name for test in report.tests} == ALL
    named = {reason.check for reason in report.reasons if not reason.passed}
    assert {"words", "all tests"} <= named
    assert not {"length", "score", "language"} & named
    words = next(test for test in report.tests if test.name == "words")
    assert words.value > words.threshold > words.expected
    assert words.deviations > 5
    assert "differs" in report.to_html()
    assert DriftReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("score", lambda s: replace(s, scores=s.scores + 1.5)),
        ("length", lambda s: replace(s, characters=s.characters // 3)),
        ("language", lambda s: replace(s, languages=np.full(len(s), "bg"))),
    ],
)
def test_each_kind_of_change_is_found_by_its_own_test(name, changes):
    report = drift_between(sample(200, 1), changes(sample(100, 2)), SETTINGS, 0)
    named = {reason.check for reason in report.reasons if not reason.passed}
    assert named == {name, "all tests"}


def test_a_seed_gives_the_same_report():
    a, b = sample(80, 1), sample(60, 2)
    assert drift_between(a, b, SETTINGS, 3) == drift_between(a, b, SETTINGS, 3)
    assert drift_between(a, b, SETTINGS, 3).tests != drift_between(a, b, SETTINGS, 4).tests


def test_a_window_too_small_is_reported_and_never_differs():
    report = drift_between(sample(200, 1), sample(30, 2, foreign=1.0), SETTINGS, 0)
    assert report.p <= report.level
    assert not report.drifted
    assert report.reasons[0].check == "window"
    assert not report.reasons[0].passed


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("side", ["reference", "window"])
def test_next_to_no_documents_is_no_drift(size, side):
    few, many = sample(size, 1), sample(60, 2)
    report = drift_between(*((few, many) if side == "reference" else (many, few)), SETTINGS, 0)
    assert report.p == 1
    assert not report.drifted
    assert report.tests == ()
    assert report.to_html()


def test_what_samples_lack_is_not_tested():
    bare = drift_between(sample(60, 1, vectors=False), sample(60, 2, words=False), SETTINGS, 0)
    assert {test.name for test in bare.tests} == {"score", "length", "language"}
    blind = replace(sample(60, 3), scores=np.full(60, np.nan))
    names_found = {test.name for test in drift_between(sample(60, 1), blind, SETTINGS, 0).tests}
    assert names_found == ALL - {"score"}


def test_documents_that_are_all_the_same_are_no_drift():
    def same(n):
        s = sample(100, 1).take(np.zeros(n, dtype=np.intp))
        return replace(s, scores=np.zeros(n))

    report = drift_between(same(100), same(60), SETTINGS, 0)
    assert not report.drifted
    assert report.tests == ()
    half = replace(sample(60, 2), vectors=np.ones((60, 8), np.float32))
    other = replace(sample(80, 3), vectors=np.ones((80, 8), np.float32))
    assert not drift_between(other, half, SETTINGS, 0).drifted


def test_vectors_that_are_not_finite_do_no_harm():
    broken = sample(100, 2)
    broken.vectors[:3] = np.nan
    broken.vectors[4, 0] = np.inf
    report = drift_between(sample(150, 1), broken, SETTINGS, 0)
    assert all(np.isfinite([test.value, test.threshold]).all() for test in report.tests)


def test_a_window_larger_than_the_reference_is_judged():
    assert not drift_between(sample(80, 1), sample(400, 2), SETTINGS, 0).drifted
    assert drift_between(sample(80, 1), sample(400, 2, foreign=0.4), SETTINGS, 0).drifted


def test_sources_are_counted_and_decide_nothing():
    window = replace(sample(80, 2), sources=np.repeat(["api", "batch"], [50, 30]))
    report = drift_between(sample(100, 1), window, SETTINGS, 0)
    assert report.sources == {"api": 50, "batch": 30}
    assert not report.drifted


def test_a_small_budget_gets_more_relabellings_where_they_matter():
    tight = MonitorSettings(
        false_alarms={"alarms": 1, "days": 600},
        calibration={"resamples": 100, "permutations": 199},
    )
    a = sample(60, 1, vectors=False)
    far = drift_between(a, sample(60, 2, foreign=0.6, vectors=False), tight, 0)
    assert far.permutations >= 3 / far.level
    assert far.drifted
    assert drift_between(a, sample(60, 3, vectors=False), tight, 0).permutations == 199


def clustered(groups, seed, size=8):
    """Documents of a group are near each other."""
    rng = np.random.default_rng(seed)
    s = sample(groups * size, seed, words=False)
    centre = np.repeat(rng.normal(size=(groups, 8)) * 3, size, axis=0)
    vectors = (centre + rng.normal(size=centre.shape) * 0.3).astype(np.float32)
    return replace(
        s, vectors=vectors, groups=np.repeat([f"{seed}-{g}" for g in range(groups)], size)
    )


def test_of_groups_that_come_whole_one_document_each_is_compared_and_gives_no_false_alarms():
    grouped, alone = 0, 0
    for seed in range(12):
        a, b = clustered(30, seed), clustered(12, seed + 100)
        report = drift_between(a, b, LENIENT, seed)
        assert report.grouped
        assert report.compared == (30, 12)
        assert (report.reference, report.window) == (240, 96)
        grouped += report.p <= 0.05
        unnamed = replace(b, groups=b.ids)
        alone += drift_between(a, unnamed, LENIENT, seed).p <= 0.05
    assert alone == 12
    assert grouped <= 4


def test_groups_on_both_sides_are_not_kept_whole():
    whole = clustered(40, 1)
    rows = np.random.default_rng(0).permutation(len(whole))
    a, b = whole.take(rows[:220]), whole.take(rows[220:])
    assert not come_whole(a.groups, b.groups)
    assert not drift_between(a, b, SETTINGS, 0).grouped
    assert come_whole(clustered(20, 1).groups, clustered(10, 2).groups)
    assert not come_whole(clustered(20, 1).groups, clustered(9, 2).groups)  # too few to tell
    none = np.full(50, "")
    assert not come_whole(none, none)
    assert not come_whole(np.array(["a"]), np.array([], dtype=str))


def test_foreign_groups_among_whole_ones_are_found():
    a, b = clustered(60, 1), clustered(40, 2)
    foreign = np.arange(len(b)) < len(b) * 0.4
    b.vectors[foreign] = np.abs(b.vectors[foreign]) * np.array([9, 0, 0, 0, 0, 0, 0, 0])
    report = drift_between(a, b, SETTINGS, 0)
    assert report.grouped
    assert report.drifted


def test_one_of_each_group_is_any_of_it_and_documents_without_a_group_all_stay():
    groups = np.array(["a", "a", "", "b", "", "a"])
    found = [one_of_each(groups, np.random.default_rng(seed)).tolist() for seed in range(20)]
    assert all({2, 3, 4} < set(rows) for rows in found)
    assert {len(rows) for rows in found} == {4}
    assert {row for rows in found for row in rows} == set(range(6))


def test_every_relabelling_has_the_size_of_the_window_and_cuts_one_group_at_most():
    groups = np.repeat(np.arange(20), 5)
    labels = relabelled(67, 33, groups, 50, np.random.default_rng(0))
    assert (labels.sum(1) == 33).all()
    for row in labels:
        inside = np.bincount(groups, weights=row)
        assert (~np.isin(inside, [0, 5])).sum() <= 1
    assert len(np.unique(labels, axis=0)) > 40


def test_the_scale_goes_on_beyond_all_values_and_back():
    scale = Scale.of(np.random.default_rng(0).exponential(size=2_000))
    values = np.array([0.1, 2.0, 5.0, 50.0])
    found = scale.scores(values)
    assert found == pytest.approx([0.1, 2.0, 5.0, 50.0], rel=0.15, abs=0.05)
    assert [scale.value(one) for one in found] == pytest.approx(values, rel=0.02)
    flat = Scale.of(np.ones(100))
    assert flat.scores(np.array([1.0, 1.0])).tolist() == [0, 0]


def test_the_same_test_many_times_over_costs_the_budget_once():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1_000, 1))
    one[0] = np.sort(one[1:, 0])[-8]  # p = 0.009
    alike = combine(np.repeat(one, 10, axis=1), 0.01)
    assert alike.p == pytest.approx(combine(one, 0.01).p)
    assert alike.p <= 0.01
    apart = combine(np.column_stack([one, rng.normal(size=(1_000, 9))]), 0.01)
    assert apart.p > 0.03
    assert apart.alone[0] == pytest.approx(alike.p)
