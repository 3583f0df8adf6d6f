"""The watcher's figures for Prometheus, made of the state that runs of the monitor leave behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tamis.errors import DataError
from tamis.monitoring.state import FILE, FOLDER, MonitorState, read_state

MOST_TASKS = 64
"""Tasks that are shown, the first by name: labels stay few whatever lies in the folder."""
_TASK, _VERSION = ("task",), ("task", "version")
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "tamis_monitor_last_run_timestamp_seconds": ("When a window was last looked at.", _TASK),
    "tamis_monitor_window_seconds": ("How much of the log a window is.", _TASK),
    "tamis_drift_p": ("Calibrated p-value of the newest window.", _VERSION),
    "tamis_drift_alarm": ("1 where the newest window rang.", _VERSION),
    "tamis_drift_statistic": ("Statistic of a test of drift.", (*_VERSION, "test")),
    "tamis_drift_threshold": ("From where a test of drift rings.", (*_VERSION, "test")),
    "tamis_performance": ("A figure on labels that came.", (*_VERSION, "metric")),
    "tamis_performance_reference": ("The same at registration.", (*_VERSION, "metric")),
    "tamis_performance_alarm": (
        "1 where a figure is worse than allowed, with its whole interval.",
        (*_VERSION, "metric"),
    ),
    "tamis_model_trained_timestamp_seconds": ("When the watched model was trained.", _VERSION),
    "tamis_retrain_budget_remaining": ("What the retrain policy still allows.", _TASK),
    "tamis_cascade_recall": (
        "Recall of the cascade: the upper end of what the last audit measured.",
        _TASK,
    ),
    "tamis_cascade_recall_promised": ("The least that the task asks for.", _TASK),
}
RETRAINS = "tamis_retrains"
ERRORS = "tamis_monitor_state_errors"
Row = tuple[str, tuple[str, ...], float]


class StateCollector(Collector):
    """The states of all tasks below a home, read again for every scrape.

    A file that cannot be read gives no gauges of its task, and counts in ``ERRORS``.

    Args:
        home: Folder of the stack's local files.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER
        self._errors: Counter[str] = Counter()

    def collect(self) -> Iterator[Metric]:
        """The metrics, by the names that rules and dashboards know."""
        gauges = {
            name: GaugeMetricFamily(name, text, labels=labels)
            for name, (text, labels) in GAUGES.items()
        }
        retrains = CounterMetricFamily(
            RETRAINS, "Retrainings by what came of them.", labels=("task", "outcome")
        )
        for state in self._states():
            for name, labels, value in rows(state):
                gauges[name].add_metric(labels, value)
            for outcome, count in sorted(state.retrains.items()):
                retrains.add_metric((state.task, outcome), count)
        errors = CounterMetricFamily(ERRORS, "States that could not be read.", labels=_TASK)
        for task, count in sorted(self._errors.items()):
            errors.add_metric((task,), count)
        yield from gauges.values()
        yield retrains
        yield errors

    def _states(self) -> Iterable[MonitorState]:
        for path in sorted(self._folder.glob(f"*/{FILE}"))[:MOST_TASKS]:
            # So that the first error is seen as a rise.
            self._errors[path.parent.name] += 0
            try:
                yield read_state(path)
            except FileNotFoundError:
                continue
            except DataError:
                self._errors[path.parent.name] += 1


def rows(state: MonitorState) -> Iterator[Row]:
    """Name, labels and value of each gauge of a state; what is not known has none."""
    task = (state.task,)
    if state.last_run is not None:
        yield "tamis_monitor_last_run_timestamp_seconds", task, state.last_run.timestamp()
    yield "tamis_monitor_window_seconds", task, state.window_hours * 3600
    known = {
        "tamis_retrain_budget_remaining": state.retrain_budget_remaining,
        "tamis_cascade_recall": state.cascade_recall,
        "tamis_cascade_recall_promised": state.cascade_recall_promised,
    }
    for name, value in known.items():
        if value is not None:
            yield name, task, value
    if state.version is not None:
        yield from _of_version(state, (state.task, state.version))


def _of_version(state: MonitorState, labels: tuple[str, str]) -> Iterator[Row]:
    if state.trained is not None:
        yield "tamis_model_trained_timestamp_seconds", labels, state.trained.timestamp()
    if state.last_run is not None:
        yield "tamis_drift_alarm", labels, float(state.drift_alarm)
    if state.drift_p is not None:
        yield "tamis_drift_p", labels, state.drift_p
    for test, statistic in sorted(state.statistics.items()):
        yield "tamis_drift_statistic", (*labels, test), statistic.value
        if statistic.threshold is not None:
            yield "tamis_drift_threshold", (*labels, test), statistic.threshold
    for metric, figure in sorted(state.performance.items()):
        yield "tamis_performance", (*labels, metric), figure.value
        yield "tamis_performance_alarm", (*labels, metric), float(figure.alarm)
        if figure.reference is not None:
            yield "tamis_performance_reference", (*labels, metric), figure.reference


def exposition(collector: StateCollector) -> tuple[bytes, str]:
    """The figures as a scrape gets them, and their media type."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry), CONTENT_TYPE_LATEST
