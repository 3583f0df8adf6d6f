"""How the service itself does, from what it tells Prometheus."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from tamis.decision import Reason
from tamis.monitoring.quality import surely_above
from tamis.monitoring.settings import HealthLimits

ROUTES = ("/score", "/predict")
"""Routes that count."""
REJECTED = frozenset({"429", "503"})
_LARGEST = 4 * 1024**2
_PERCENTILE = 0.95


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Snapshot(_Frozen):
    """What a service had counted by some moment.

    Attributes:
        requests: Scoring requests by status.
        latency: Cumulative counts by upper edge in seconds, as text (``0.5``, ``+Inf``).
        queue: Documents that wait now.
        logged: Records of the request log.
        dropped: Records that the log had no room for.
    """

    requests: dict[str, float] = {}
    latency: dict[str, float] = {}
    queue: float = 0.0
    logged: float = 0.0
    dropped: float = 0.0

    def since(self, before: Snapshot) -> Snapshot:
        """What was counted after an earlier moment; all, where the process began anew since."""
        if any(self.requests.get(key, 0) < value for key, value in before.requests.items()):
            return self
        return Snapshot(
            requests=_less(self.requests, before.requests),
            latency=_less(self.latency, before.latency),
            queue=self.queue,
            logged=max(0.0, self.logged - before.logged),
            dropped=max(0.0, self.dropped - before.dropped),
        )


class Health(_Frozen):
    """How a service does.

    Attributes:
        requests: Scoring requests that were looked at.
        errors: Of those, answered with 500 and above, but for 503.
        rejected: Of those, answered with 429 or 503: the service was full.
        p95_seconds: Time within which 95% were answered, interpolated in Prometheus' buckets;
            None without requests.
        queue: Documents that wait.
        logged: Records of the request log.
        dropped: Records that it had no room for.
        unreachable: Processes that did not answer.
        limits: From when the service is ill.
        whole: Since the service began, and not between two looks.
    """

    requests: int
    errors: int
    rejected: int
    p95_seconds: float | None
    queue: int
    logged: int
    dropped: int
    unreachable: int
    limits: HealthLimits
    whole: bool

    @property
    def ill(self) -> bool:
        """Whether something is over its limit."""
        return not all(reason.passed for reason in self.reasons())

    def reasons(self) -> tuple[Reason, ...]:
        """Each condition with its figures."""
        span = "since it began" if self.whole else "since the last look"
        slow = self.p95_seconds is not None and self.p95_seconds > self.limits.p95_seconds
        shown = "no request" if self.p95_seconds is None else f"{self.p95_seconds:.3g} s"
        found = [
            Reason(
                check="errors",
                passed=not surely_above(self.errors, self.requests, self.limits.errors),
                detail=f"{self.errors:,} of {self.requests:,} requests {span} failed; "
                f"limit {self.limits.errors:.1%}",
            ),
            Reason(
                check="rejected",
                passed=not surely_above(self.rejected, self.requests, self.limits.rejected),
                detail=f"{self.rejected:,} of {self.requests:,} requests {span} were turned away; "
                f"limit {self.limits.rejected:.1%}",
            ),
            Reason(
                check="latency",
                passed=not slow,
                detail=f"95% answered within {shown}; limit {self.limits.p95_seconds:g} s",
            ),
        ]
        if self.unreachable:
            told = f"{self.unreachable} processes of the service did not answer"
            found.append(Reason(check="reachable", passed=False, detail=told))
        return tuple(found)


def read_metrics(text: str) -> Snapshot:
    """What a page of metrics says.

    Raises:
        ValueError: It is not in Prometheus' text format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    requests: dict[str, float] = defaultdict(float)
    latency: dict[str, float] = defaultdict(float)
    plain: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            value = float(each.value)
            if not math.isfinite(value) or value < 0:
                continue
            scoring = each.labels.get("route") in ROUTES
            if each.name == "tamis_requests_total" and scoring:
                requests[each.labels.get("status", "")] += value
            elif each.name == "tamis_request_seconds_bucket" and scoring:
                latency[each.labels.get("le", "")] += value
            elif each.name in _PLAIN:
                plain[each.name] += value
    queue, logged, dropped = (plain[name] for name in _PLAIN)
    return Snapshot(
        requests=dict(requests), latency=dict(latency), queue=queue, logged=logged, dropped=dropped
    )


_PLAIN = ("tamis_queue_documents", "tamis_log_records_total", "tamis_log_dropped_total")


def scrape(url: str, seconds: float = 5.0) -> Snapshot | None:
    """What a service tells; None where it does not answer, or with something else.

    Args:
        url: Of its metrics, such as ``http://127.0.0.1:3000/metrics``.
        seconds: How long it may take.
    """
    if not url.startswith(("http://", "https://")):
        return None
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310
            return read_metrics(answer.read(_LARGEST).decode("utf-8", "replace"))
    except (OSError, urllib.error.URLError, ValueError, KeyError, IndexError):
        return None


def together(parts: Iterable[Snapshot]) -> Snapshot:
    """The sum over several processes."""
    requests: dict[str, float] = defaultdict(float)
    latency: dict[str, float] = defaultdict(float)
    queue = logged = dropped = 0.0
    for part in parts:
        for key, value in part.requests.items():
            requests[key] += value
        for key, value in part.latency.items():
            latency[key] += value
        queue, logged, dropped = (
            queue + part.queue, logged + part.logged, dropped + part.dropped
        )  # fmt: skip
    return Snapshot(
        requests=dict(requests), latency=dict(latency), queue=queue, logged=logged, dropped=dropped
    )


def health_of(
    now: Sequence[Snapshot | None],
    limits: HealthLimits,
    before: Sequence[Snapshot | None] = (),
) -> Health:
    """Judge a service by what its processes tell.

    Args:
        now: Of each process; None for one that did not answer.
        limits: From when it is ill.
        before: An earlier look at the same processes; without it all since they began counts.
    """
    found = [each for each in now if each is not None]
    earlier = [*before, *[None] * (len(now) - len(before))]
    pairs = [(each, other) for each, other in zip(now, earlier, strict=False) if each is not None]
    total = together(each.since(other) if other else each for each, other in pairs)
    statuses = total.requests
    rejected = sum(value for status, value in statuses.items() if status in REJECTED)
    errors = sum(
        value
        for status, value in statuses.items()
        if status.startswith("5") and status not in REJECTED
    )
    return Health(
        requests=int(sum(statuses.values())),
        errors=int(errors),
        rejected=int(rejected),
        p95_seconds=_percentile(total.latency),
        queue=int(total.queue),
        logged=int(total.logged),
        dropped=int(total.dropped),
        unreachable=len(now) - len(found),
        limits=limits,
        whole=not any(other for _, other in pairs),
    )


def _percentile(cumulative: dict[str, float]) -> float | None:
    """As ``histogram_quantile`` of Prometheus: linear within a bucket, at most the last edge."""
    edges = sorted((edge, count) for edge, count in _numbers(cumulative) if not math.isnan(edge))
    total = max((count for _, count in edges), default=0.0)
    if total <= 0:
        return None
    wanted, below, start = _PERCENTILE * total, 0.0, 0.0
    for edge, count in edges:
        if count >= wanted:
            if math.isinf(edge):
                return start
            inside = max(count - below, 1e-9)
            return start + (edge - start) * (wanted - below) / inside
        below, start = max(below, count), edge
    return start


def _numbers(cumulative: dict[str, float]) -> list[tuple[float, float]]:
    found = []
    for edge, count in cumulative.items():
        try:
            found.append((float(edge), count))
        except ValueError:
            continue
    return found


def _less(now: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {key: max(0.0, value - before.get(key, 0.0)) for key, value in now.items()}
