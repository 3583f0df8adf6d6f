"""From a service's ``/metrics`` to an observation."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable

from deployment.releasing.target import Histogram, Observation

SCORING = ("/score", "/predict")
"""Routes whose requests are compared."""
_LARGEST = 4 * 1024**2


def scrape(url: str, seconds: float = 5.0) -> Observation | None:
    """What a process tells of itself; None where it does not answer.

    Args:
        url: Of its metrics, on this machine or behind a proxy of the cluster's.
        seconds: How long it may take.
    """
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310
            return parse(answer.read(_LARGEST).decode("utf-8", "replace"))
    except (OSError, urllib.error.URLError, ValueError):
        return None


def parse(text: str) -> Observation:
    """Counters of the service's metrics, over all labels that there are.

    Raises:
        ValueError: It is not in Prometheus' text format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    totals: dict[str, int] = defaultdict(int)
    buckets: dict[str, dict[float, int]] = {"latency": defaultdict(int), "score": defaultdict(int)}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels, value = sample.labels, sample.value
            if not math.isfinite(value) or value < 0:
                continue
            if sample.name == "tamis_requests_total" and labels.get("route") in SCORING:
                totals["requests"] += int(value)
                totals[_kind(labels.get("status", ""))] += int(value)
            elif sample.name == "tamis_documents_total":
                totals["documents"] += int(value)
                totals["kept"] += int(value) if labels.get("decision") == "keep" else 0
            elif sample.name == "tamis_score_bucket":
                buckets["score"][float(labels["le"])] += int(value)
            elif sample.name == "tamis_request_seconds_bucket" and labels.get("route") in SCORING:
                buckets["latency"][float(labels["le"])] += int(value)
    return Observation(
        requests=totals["requests"],
        errors=totals["errors"],
        refused=totals["refused"],
        documents=totals["documents"],
        kept=totals["kept"],
        latency=_histogram(buckets["latency"]),
        scores=_histogram(buckets["score"]),
    )


def together(parts: Iterable[Observation]) -> Observation:
    """The sum over several processes of one version."""
    total = Observation()
    for part in parts:
        total = Observation(
            requests=total.requests + part.requests,
            errors=total.errors + part.errors,
            refused=total.refused + part.refused,
            documents=total.documents + part.documents,
            kept=total.kept + part.kept,
            latency=total.latency.plus(part.latency),
            scores=total.scores.plus(part.scores),
        )
    return total


def _kind(status: str) -> str:
    return {"4": "refused", "5": "errors"}.get(status[:1], "answered")


def _histogram(cumulative: dict[float, int]) -> Histogram:
    """Prometheus' buckets count everything below their edge."""
    edges = sorted(edge for edge in cumulative if math.isfinite(edge))
    counts, below = [], 0
    for edge in [*edges, math.inf]:
        upto = max(below, cumulative.get(edge, below))
        counts.append(upto - below)
        below = upto
    return Histogram(edges=tuple(edges), counts=tuple(counts))
