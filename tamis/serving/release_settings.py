"""Settings of a release, from the task file's section ``release``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tamis.config import Items, Strict, wrong

Strategy = Literal["shadow", "canary", "blue-green"]
_Difference = Annotated[float, Field(gt=0, lt=1)]
_Percent = Annotated[int, Field(ge=1, le=99)]


class ReleaseLimits(Strict):
    """How far a challenger may be from the champion; beyond, it is rolled back.

    A limit counts as broken when the evidence shows it, not when one figure is beyond it; a
    challenger is promoted when its figures are within all of them.
    """

    errors: _Difference = 0.005
    """By how much its share of requests that fail (5xx, no answer) may exceed the champion's."""
    refused: _Difference = 0.02
    """Likewise of requests that it refuses (4xx)."""
    latency_ratio: Annotated[float, Field(gt=1)] = 1.5
    """Its 95th percentile over the champion's."""
    latency_slack_ms: Annotated[float, Field(ge=0)] = 20.0
    """A 95th percentile that is longer by less than this is not slower."""
    score_shift: _Difference = 0.15
    """Largest distance of the two cumulative distributions of scores."""
    keep_rate: _Difference = 0.1
    """Difference of the shares of documents that are kept, up or down."""
    agreement: _Difference = 0.9
    """In the shadow: share of documents that both decide alike, at least."""
    score_difference: _Difference = 0.1
    """In the shadow: mean difference of the scores of a document, as a share of the scale."""


class CloudRunSettings(Strict):
    """A service of Cloud Run.

    Attributes:
        project: Google Cloud project.
        region: Of the service.
        service: Its name; the task's by default.
        image: Of a version, with ``{version}`` in its tag.
        cpu: Cores of an instance.
        memory: Such as ``2Gi``.
        min_instances: That always run.
        max_instances: That Cloud Run may scale to.
        keys_secret: Secret of Secret Manager with the API keys, as ``TAMIS_SERVE_KEYS``.
        service_account: That the service runs as; Cloud Run's default where none is given.
        api_endpoint: Of Cloud Run, where it is not Google's own.
    """

    project: str
    region: str
    service: str | None = None
    image: Annotated[str, Field(pattern=r"\{version\}")]
    cpu: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")] = "2"
    memory: Annotated[str, Field(pattern=r"^[0-9]+(Mi|Gi)$")] = "2Gi"
    min_instances: Annotated[int, Field(ge=0, le=1_000)] = 1
    max_instances: Annotated[int, Field(ge=1, le=1_000)] = 4
    keys_secret: str | None = None
    service_account: str | None = None
    api_endpoint: str | None = None


class KubernetesSettings(Strict):
    """A namespace of a cluster, with Gateway API.

    Attributes:
        context: Of the kubeconfig; the active one by default.
        namespace: Where the versions run.
        route: Name of the HTTPRoute; the task's by default.
        gateway: That the route hangs on, as ``NAMESPACE/NAME`` or ``NAME``.
        hostnames: That the route answers to; all by default.
        template: Name of the Deployment in the namespace that versions are copied from.
        image: Of a version, with ``{version}`` in its tag.
        port: Of the container.
        replicas: Of each version.
    """

    context: str | None = None
    namespace: str = "tamis"
    route: str | None = None
    gateway: str = "tamis"
    hostnames: Items[str] = ()
    template: str = "tamis"
    image: Annotated[str, Field(pattern=r"\{version\}")]
    port: Annotated[int, Field(ge=1, le=65_535)] = 3_000
    replicas: Annotated[int, Field(ge=1, le=1_000)] = 2


class LocalSettings(Strict):
    """Processes behind an nginx of this machine.

    Attributes:
        host: That nginx listens on.
        port: That it listens on.
        connections: Most connections of one address.
        shadow_seconds: How long a mirrored request may take before it is given up.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8_080
    connections: Annotated[int, Field(ge=1, le=65_535)] = 512
    shadow_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0


class ReleaseSettings(Strict):
    """How a version is released."""

    steps: Annotated[Items[_Percent], Field(min_length=1, max_length=20)] = (5, 25, 50)
    """Percent of the traffic that a canary gets, one after the other."""
    min_requests: Annotated[int, Field(ge=1)] = 200
    """That the challenger must have had in a phase before it may pass."""
    min_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Shortest time of a phase."""
    max_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)] = 3_600.0
    """Longest time of a phase; a challenger that has not passed by then is rolled back."""
    look_seconds: Annotated[float, Field(gt=0, le=600)] = 2.0
    """How often it is looked after."""
    alpha: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    """Probability to roll back, for what the tests find, a challenger that is within limits."""
    drain_seconds: Annotated[float, Field(ge=0, le=3_600)] = 60.0
    """How long requests in flight may take to end before a version is stopped."""
    ready_seconds: Annotated[float, Field(gt=0, le=3_600)] = 180.0
    """How long a version may take to become ready."""
    limits: ReleaseLimits = ReleaseLimits()
    local: LocalSettings = LocalSettings()
    cloud_run: CloudRunSettings | None = None
    kubernetes: KubernetesSettings | None = None

    @model_validator(mode="after")
    def _steps_rise(self) -> ReleaseSettings:
        if list(self.steps) != sorted(set(self.steps)):
            raise wrong("steps", list(self.steps), "percentages that rise, such as [5, 25, 50]")
        return self

    @model_validator(mode="after")
    def _time_to_pass(self) -> ReleaseSettings:
        if self.max_seconds < self.min_seconds:
            raise wrong("max_seconds", self.max_seconds, f"from min_seconds={self.min_seconds:g}")
        return self
