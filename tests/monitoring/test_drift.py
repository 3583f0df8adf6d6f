import numpy as np
import pytest

from tamis.monitoring.drift import DriftReport, auc_standard_error, measure_drift, mmd_test
from tamis.task import DriftPolicy

POLICY = DriftPolicy(permutations=100)


def vectors(n, seed, shift=0.0, d=8):
    x = np.random.default_rng(seed).normal(size=(n, d)) + shift / np.sqrt(d)
    return x.astype(np.float32)


def measure(reference, window, seed=0, policy=POLICY):
    scores = reference[:, 0].astype(float), window[:, 0].astype(float)
    return measure_drift(reference, window, *scores, {"web": len(window)}, policy, seed)


def verdicts(report):
    return {reason.check: reason.passed for reason in report.reasons}


def test_two_samples_of_one_distribution_seldom_raise_an_alarm():
    alarms, kernel, classifier = 0, 0, 0
    policy = DriftPolicy(permutations=100, alpha=0.05, auc_z=2.0)
    for seed in range(60):
        whole = vectors(160, seed)
        report = measure(whole[:100], whole[100:], seed, policy)
        alarms += report.drifted
        kernel += not verdicts(report)["kernel two-sample test"]
        classifier += not verdicts(report)["domain classifier"]
    # 5% of 60 is 3; more than 9 come up once in a thousand.
    assert kernel <= 9
    assert classifier <= 9
    assert alarms <= min(kernel, classifier)
    assert alarms <= 4


def test_p_values_of_equal_samples_are_uniform():
    p = []
    for seed in range(200):
        whole = vectors(60, seed, d=4)
        p.append(mmd_test(whole[:40], whole[40:], 99, np.random.default_rng(seed))[1])
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.07)
    assert min(p) >= 0.01


@pytest.mark.parametrize("seed", range(4))
def test_a_shifted_window_raises_the_alarm(seed):
    report = measure(vectors(150, seed), vectors(80, seed + 100, shift=1.5), seed)
    assert report.drifted
    assert verdicts(report) == {
        "window": True, "domain classifier": False, "kernel two-sample test": False,
    }  # fmt: skip
    assert report.auc > 0.75
    assert report.auc_z > 3
    assert report.mmd_p < 0.01


def test_a_small_window_never_drifts_and_says_why():
    for size in (2, 10, 49):
        report = measure(vectors(150, 0), vectors(size, 1, shift=20))
        assert not report.drifted
        assert not verdicts(report)["window"]
        assert f"{size} documents; at least 50" in report.reasons[0].detail
    assert measure(vectors(150, 0), vectors(50, 1, shift=20)).drifted


@pytest.mark.parametrize("size", [0, 1])
def test_a_window_of_one_document_or_none_does_not_drift_either(size):
    assert not measure(vectors(150, 0), vectors(size, 1)).drifted


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_documents_all_alike_are_no_drift():
    same = np.ones((100, 4), np.float32)
    report = measure(same, same[:60])
    assert np.isfinite(report.mmd)
    assert all(verdicts(report).values())


def test_one_test_alone_is_no_alarm():
    whole = vectors(230, 3)
    lenient = DriftPolicy(permutations=100, auc_z=50.0)
    report = measure(whole[:150], whole[150:] + 1, policy=lenient)
    assert verdicts(report)["domain classifier"]
    assert not verdicts(report)["kernel two-sample test"]
    assert not report.drifted


def test_the_standard_error_is_that_of_mann_and_whitney():
    assert auc_standard_error(1, 1) == pytest.approx(0.5)
    assert auc_standard_error(100, 50) == pytest.approx((151 / 60_000) ** 0.5)
    rng = np.random.default_rng(0)
    aucs = [(rng.random((30, 1)) > rng.random((1, 20))).mean() for _ in range(2_000)]
    assert np.std(aucs) == pytest.approx(auc_standard_error(30, 20), rel=0.05)


def test_the_discrepancy_is_that_of_the_kernel_sums():
    x, y = vectors(12, 0, d=3).astype(float), vectors(7, 1, d=3).astype(float)
    pooled = np.vstack([x, y])
    distance = ((pooled[:, None] - pooled[None]) ** 2).sum(-1)
    kernel = np.exp(-distance / np.median(distance[np.triu_indices(19, 1)]))
    expected = kernel[:12, :12].mean() + kernel[12:, 12:].mean() - 2 * kernel[:12, 12:].mean()
    found, p = mmd_test(x, y, 50, np.random.default_rng(0))
    assert found == pytest.approx(expected, abs=1e-10)
    assert 1 / 51 <= p <= 1


def test_the_same_seed_gives_the_same_report():
    reference, window = vectors(150, 0), vectors(80, 1, shift=0.3)
    one = measure(reference, window, seed=5)
    assert one == measure(reference, window, seed=5)
    assert one.mmd_p != measure(reference, window, seed=6).mmd_p
    assert DriftReport.model_validate_json(one.model_dump_json()) == one


def test_large_samples_are_cut_down(monkeypatch):
    monkeypatch.setattr("tamis.monitoring.drift.MOST", 60)
    reference, window = vectors(300, 0), vectors(200, 1)
    report = measure(reference, window)
    assert (report.reference, report.window) == (60, 60)
    assert report == measure(reference, window)
    assert report.sources == {"web": 200}


def test_the_page_escapes():
    reference, window = vectors(60, 0), vectors(60, 1)
    report = measure(reference, window).model_copy(update={"sources": {"<script>x": 60}})
    assert "<script" not in report.to_html()


def test_the_page_has_its_tables_as_markup():
    assert "<table>" in measure(vectors(60, 0), vectors(60, 1)).to_html()
