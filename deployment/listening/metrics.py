"""Figures of the listener, beside those of the watcher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one listener, and the gauges that runs of the monitor leave behind.

    Args:
        home: Folder of the stack's local files.
    """

    def __init__(self, home: Path) -> None:
        from deployment.monitoring.gauges import StateCollector

        self._registry = CollectorRegistry()
        self._registry.register(StateCollector(home))
        self.alerts = Counter(
            "tamis_listen_alerts",
            "Alerts by what became of them: accepted, duplicate, resolved, other_task.",
            ("outcome",),
            registry=self._registry,
        )
        self.refused = Counter(
            "tamis_listen_refused", "Requests that were refused.", ("reason",),
            registry=self._registry,
        )  # fmt: skip
        self.runs = Counter(
            "tamis_listen_runs", "Runs by how they ended: done, failed, given_up.", ("outcome",),
            registry=self._registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "tamis_listen_waiting", "Alerts that no run has looked at.", registry=self._registry
        )
        self.working = Gauge(
            "tamis_listen_at_work", "1 while a run goes on.", registry=self._registry
        )
        for outcome in ("accepted", "duplicate", "resolved", "other_task"):
            self.alerts.labels(outcome=outcome)
        for outcome in ("done", "failed", "given_up"):
            self.runs.labels(outcome=outcome)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A run goes on."""
        self.working.set(1)
        try:
            yield
        finally:
            self.working.set(0)

    def exposition(self) -> tuple[bytes, str]:
        """As a scrape gets them, and their media type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
