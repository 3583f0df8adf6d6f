"""The watcher's figures: everything of a state, and nothing of a file that is none."""

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployment.monitoring.gauges import GAUGES, MOST_TASKS, StateCollector, exposition
from tamis.monitoring.state import MonitorState, Performance, Statistic, change_state, state_file

FULL = MonitorState(
    task="edu",
    version="3",
    last_run=datetime(2026, 1, 2, tzinfo=UTC),
    window_hours=12.0,
    drift_p=0.25,
    drift_alarm=True,
    statistics={"mmd": Statistic(value=0.5, threshold=0.75), "length": Statistic(value=0.1)},
    performance={"f1": Performance(value=0.8, reference=0.9, alarm=True)},
    trained=datetime(2026, 1, 1, tzinfo=UTC),
    retrains={"promoted": 2, "refused": 1},
    retrain_budget_remaining=3.0,
    cascade_recall=0.97,
    cascade_recall_promised=0.99,
)


ORDER = ("task", "version", "test", "metric", "outcome")


def shown(collector):
    text, kind = exposition(collector)
    assert kind.startswith("text/plain")
    return {
        (
            sample.name,
            *(sample.labels[name] for name in ORDER if name in sample.labels),
        ): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_all_of_a_state_is_shown(tmp_path):
    change_state(tmp_path, "edu", lambda _: FULL)
    found = shown(StateCollector(tmp_path))
    assert found == {
        ("tamis_monitor_last_run_timestamp_seconds", "edu"): 1767312000.0,
        ("tamis_monitor_window_seconds", "edu"): 43200.0,
        ("tamis_drift_p", "edu", "3"): 0.25,
        ("tamis_drift_alarm", "edu", "3"): 1.0,
        ("tamis_drift_statistic", "edu", "3", "mmd"): 0.5,
        ("tamis_drift_statistic", "edu", "3", "length"): 0.1,
        ("tamis_drift_threshold", "edu", "3", "mmd"): 0.75,
        ("tamis_performance", "edu", "3", "f1"): 0.8,
        ("tamis_performance_reference", "edu", "3", "f1"): 0.9,
        ("tamis_performance_alarm", "edu", "3", "f1"): 1.0,
        ("tamis_model_trained_timestamp_seconds", "edu", "3"): 1767225600.0,
        ("tamis_retrain_budget_remaining", "edu"): 3.0,
        ("tamis_cascade_recall", "edu"): 0.97,
        ("tamis_cascade_recall_promised", "edu"): 0.99,
        ("tamis_retrains_total", "edu", "promoted"): 2.0,
        ("tamis_retrains_total", "edu", "refused"): 1.0,
        ("tamis_monitor_state_errors_total", "edu"): 0.0,
    }
    assert {key[0] for key in found} >= set(GAUGES), "each is covered"


def test_what_is_not_known_is_not_shown(tmp_path):
    change_state(tmp_path, "edu", lambda state: state)
    assert set(shown(StateCollector(tmp_path))) == {
        ("tamis_monitor_window_seconds", "edu"), ("tamis_monitor_state_errors_total", "edu"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff", b'{"task": "edu", "x": 1}', b'{"task": "other"}', b" " * 300_000,
     b'{"task": "edu", "drift_p": NaN}', b'{"task": "edu", "drift_p": 2}', b"[" * 100_000,
     b'{"task": "edu", "version": "a\\nb"}',
     b'{"task": "edu", "retrains": {%s}}' % b",".join(b'"r%d": 1' % n for n in range(99))],
)  # fmt: skip
def test_a_damaged_file_counts_and_shows_nothing_of_its_task(content, tmp_path):
    change_state(tmp_path, "fine", lambda _: FULL.model_copy(update={"task": "fine"}))
    file = state_file(tmp_path, "edu")
    file.parent.mkdir()
    file.write_bytes(content)
    collector = StateCollector(tmp_path)
    for times in (1, 2):
        found = shown(collector)
        assert found["tamis_monitor_state_errors_total", "edu"] == times
        assert {key[0] for key in found if key[1] == "edu"} == {"tamis_monitor_state_errors_total"}
        assert found["tamis_drift_p", "fine", "3"] == 0.25


def test_no_home_and_too_many_tasks(tmp_path):
    assert shown(StateCollector(tmp_path / "nowhere")) == {}
    for number in range(MOST_TASKS + 5):
        change_state(tmp_path, f"t{number:03}", lambda state: state)
    found = shown(StateCollector(tmp_path))
    assert len({key[1] for key in found}) == MOST_TASKS
