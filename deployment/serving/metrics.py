"""Figures for Prometheus.

prometheus_client reads where to keep them when it is imported, and BentoML says where when a
process starts; so they are made with the service, not with this module.
"""

from __future__ import annotations

from typing import Any

from tamis.serving.model import ReferenceScores, ServedModel, score_edges

_SECONDS = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0,
    30.0,
)  # fmt: skip
_CHARACTERS = (30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000)


def exposition() -> tuple[bytes, str]:
    """The figures of all processes of the service, and their media type."""
    from prometheus_client import CollectorRegistry, generate_latest, multiprocess
    from prometheus_client.exposition import CONTENT_TYPE_LATEST

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


class Metrics:
    """The figures of one process, by the names that alerts and releases know.

    Args:
        served: What is served.
        queue: Documents that may wait in this process.
    """

    def __init__(self, served: ServedModel, queue: int) -> None:
        import prometheus_client as prometheus

        self.requests = prometheus.Counter(
            "tamis_requests", "Requests by route and status.", ["route", "status"]
        )
        self.seconds = prometheus.Histogram(
            "tamis_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS
        )
        self.documents = prometheus.Counter(
            "tamis_documents", "Scored documents by decision.", ["decision"]
        )
        self.score = prometheus.Histogram(
            "tamis_score", "Scores of documents.", buckets=score_edges(served.scale)
        )
        self.characters = prometheus.Histogram(
            "tamis_text_characters", "Length of documents.", buckets=_CHARACTERS
        )
        self.queue = prometheus.Gauge(
            "tamis_queue_documents", "Documents that wait.", multiprocess_mode="livesum"
        )
        self.room = prometheus.Gauge(
            "tamis_queue_limit_documents", "Documents that may wait.", multiprocess_mode="livesum"
        )
        self.room.set(queue)
        self.rejected = prometheus.Counter(
            "tamis_rejected", "Requests that were refused, by reason.", ["reason"]
        )
        self.logged = prometheus.Counter("tamis_log_records", "Records of the request log.")
        self.dropped = prometheus.Counter(
            "tamis_log_dropped", "Records that the request log had no room for."
        )
        facts = {name: getattr(served, name) for name in ("task", "version", "digest", "backend")}
        model = prometheus.Gauge(
            "tamis_model_info", "Which model is served.", [*facts], multiprocess_mode="livemax"
        )
        model.labels(**facts).set(1)
        if served.reference is not None:
            self._refer(served.reference, score_edges(served.scale))
        self._kept = self.documents.labels(decision="keep")
        self._dropped = self.documents.labels(decision="drop")
        self._known: dict[tuple[str, int], Any] = {}
        self._times: dict[str, Any] = {}

    def _refer(self, reference: ReferenceScores, edges: tuple[float, ...]) -> None:
        """Show what the served model's own scores were, in the buckets of ``tamis_score``."""
        import prometheus_client as prometheus
        from prometheus_client.utils import floatToGoString

        documents = prometheus.Gauge(
            "tamis_reference_documents",
            "Documents of the served model's reference.",
            multiprocess_mode="livemax",
        )
        documents.set(reference.documents)
        kept = prometheus.Gauge(
            "tamis_reference_kept_ratio",
            "Share of the reference's documents that the served model keeps.",
            multiprocess_mode="livemax",
        )
        kept.set(reference.kept / reference.documents)
        scores = prometheus.Gauge(
            "tamis_reference_score_bucket",
            "Documents of the reference with at most this score.",
            ["le"],
            multiprocess_mode="livemax",
        )
        counts = (*reference.at_most, reference.documents)
        for edge, count in zip((*edges, float("inf")), counts, strict=True):
            scores.labels(le=floatToGoString(edge)).set(count)  # type: ignore[no-untyped-call]

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        counter = self._known.get((route, status))
        if counter is None:
            counter = self.requests.labels(route=route, status=str(status))
            self._known[route, status] = counter
            self._times.setdefault(route, self.seconds.labels(route=route))
        counter.inc()
        self._times[route].observe(seconds)

    def scored(self, score: float, kept: bool, characters: int) -> None:
        """Count a document."""
        (self._kept if kept else self._dropped).inc()
        self.score.observe(score)
        self.characters.observe(characters)
