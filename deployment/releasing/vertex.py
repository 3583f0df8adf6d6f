"""The target ``vertex``: an endpoint of Vertex AI, whose traffic split gives the shares.

Requests, errors and latency come from Cloud Monitoring, which is minutes behind; scores are not
measured there, so they are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from deployment.releasing.target import Histogram, Observation, Seen, Target, Traffic
from deployment.vertex.endpoints import Endpoints, endpoint_id
from tamis.errors import EngineError

if TYPE_CHECKING:
    from deployment.registry import Registry
    from deployment.session import Session

MONITORING = "https://monitoring.googleapis.com"
_METRIC = "aiplatform.googleapis.com/prediction/online/"
_SPAN = timedelta(days=7)
_SECONDS = 60


class VertexTarget(Target):
    """Versions of one task on its endpoint.

    Args:
        task: The task.
        session: On a stack of Vertex AI.
        registry: With the models' files.
        endpoints: Of the stack.
        monitoring: Address of Cloud Monitoring.
        ask: Makes an authorised GET: address and parameters to the answer's JSON.
    """

    name: ClassVar[str] = "vertex"
    sees: frozenset[Seen] = frozenset({"requests"})

    def __init__(
        self,
        task: str,
        session: Session,
        registry: Registry,
        endpoints: Endpoints,
        monitoring: str = MONITORING,
        ask: Any = None,
    ) -> None:
        self._task, self._session, self._registry = task, session, registry
        self._endpoints, self._monitoring = endpoints, monitoring
        self._ask = ask or _authorised

    def state(self) -> Traffic:
        """As the endpoint tells it; what is deployed is ready."""
        served = self._endpoints.state(self._task)
        shares: dict[str, int] = {}
        for each in served.models:
            if each.version and each.share:
                shares[each.version] = shares.get(each.version, 0) + each.share
        return Traffic(shares, None, self._deployed(served), served.endpoint)

    def start(self, version: str, folder: Path, shadow: bool) -> None:
        """Upload and deploy a version, without traffic where another has it."""
        if version in self.state().ready:
            return
        from deployment.vertex.serving_models import publish_version

        chosen = self._registry.get(self._task, version)
        cache = self._session.home / "models"
        files = publish_version(self._session.vertex, self._registry, chosen, cache)
        labels = {"digest": chosen.tags["digest"]}
        self._endpoints.upload(self._task, version, files, labels)
        # Steps of ``Endpoints.deploy``, short of the one that gives traffic.
        own = self._endpoints
        model = own._uploaded(self._task, version)
        own._ensure(self._task)
        own._ensure_deployed(self._task, model)

    def route(self, shares: Mapping[str, int], shadow: str | None) -> None:
        """Set the endpoint's split."""
        wanted = {version: percent for version, percent in shares.items() if percent}
        served = self._endpoints.state(self._task)
        ids = {each.version: each.id for each in served.models if each.version}
        missing = sorted(set(wanted) - set(ids))
        if missing:
            raise EngineError(f"version {missing[0]} is not deployed, so it can have no traffic")
        # All to the largest first, so that what neither of them is has nothing.
        order = sorted(wanted, key=lambda name: -wanted[name])
        if dict(self.state().shares) == wanted:
            return
        others = {each.version for each in served.models if each.share} - set(wanted)
        if others or len(order) == 1:
            self._endpoints._give(self._task, ids[order[0]], 100)
        for version in order[1:]:
            self._endpoints._give(self._task, ids[version], wanted[version])

    def stop(self, version: str) -> None:
        """Take a version off the endpoint; Vertex AI lets requests in flight end."""
        for each in self._endpoints.state(self._task).models:
            if each.version == version:
                self._endpoints._undeploy(self._task, each)

    def observe(self, version: str) -> Observation:
        """From Cloud Monitoring: a week's requests, errors and latencies of the deployed model."""
        ids = [
            each.id for each in self._endpoints.state(self._task).models if each.version == version
        ]
        if not ids:
            return Observation()
        counts = {"requests": 0, "errors": 0, "refused": 0}
        for series in self._series("response_count", ids[0]):
            number = sum(int(point["value"].get("int64Value", 0)) for point in series["points"])
            code = series.get("metric", {}).get("labels", {}).get("response_code", "")
            counts["requests"] += number
            counts["errors"] += number if code.startswith("5") else 0
            counts["refused"] += number if code.startswith("4") else 0
        latency = Histogram()
        for series in self._series("prediction_latencies", ids[0]):
            if series.get("metric", {}).get("labels", {}).get("latency_type", "total") == "total":
                for point in series["points"]:
                    latency = latency.plus(_histogram(point["value"].get("distributionValue", {})))
        return Observation(**counts, latency=latency)

    def _series(self, metric: str, deployed: str) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        parameters = {
            "filter": f'metric.type="{_METRIC}{metric}" AND '
            f'resource.labels.endpoint_id="{endpoint_id(self._task)}" AND '
            f'metric.labels.deployed_model_id="{deployed}"',
            "interval.startTime": (now - _SPAN).isoformat(),
            "interval.endTime": now.isoformat(),
        }
        project = self._session.vertex.project
        url = f"{self._monitoring}/v3/projects/{project}/timeSeries"
        found: list[dict[str, Any]] = []
        while True:
            answer = self._ask(url, parameters)
            found += [each for each in answer.get("timeSeries", []) if each.get("points")]
            token = answer.get("nextPageToken")
            if not token:
                return found
            parameters = parameters | {"pageToken": token}

    @staticmethod
    def _deployed(served: Any) -> frozenset[str]:
        return frozenset(each.version for each in served.models if each.version)


def _histogram(distribution: Mapping[str, Any]) -> Histogram:
    """Milliseconds in growing buckets, as Cloud Monitoring gives them, to seconds."""
    buckets = distribution.get("bucketOptions", {}).get("exponentialBuckets")
    counts = [int(count) for count in distribution.get("bucketCounts", [])]
    if not buckets or not counts:
        return Histogram()
    scale, growth = float(buckets["scale"]), float(buckets["growthFactor"])
    number = int(buckets["numFiniteBuckets"])
    edges = tuple(scale * growth**power / 1_000 for power in range(number + 1))
    padded = counts + [0] * (len(edges) + 1 - len(counts))
    return Histogram(edges=edges, counts=tuple(padded[: len(edges) + 1]))


def _authorised(url: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    from deployment.vertex.google import credentials

    try:
        session: Any = AuthorizedSession
        answer = session(credentials()).get(url, params=parameters, timeout=_SECONDS)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
    except (OSError, ValueError, GoogleAuthError) as error:
        raise EngineError(f"Cloud Monitoring: {error}") from None
    return found
