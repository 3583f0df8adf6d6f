"""The target ``kubernetes``: a Deployment and a Service a version, shares by weights of a route.

A version is a copy of the Deployment that the manifests bring, under the version's own name and
labels and with its image. Figures are read from each of its pods through the API server.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from deployment.releasing.scrape import parse, together
from deployment.releasing.target import Observation, Target, Traffic
from tamis.errors import EngineError, StackError
from tamis.serving.release_settings import KubernetesSettings, ReleaseSettings

_VERSION = "tamis.dev/version"
_TASK = "tamis.dev/task"
_ROUTES = ("gateway.networking.k8s.io", "v1")
_PLURAL = "httproutes"
_POLL = 1.0


class KubernetesTarget(Target):
    """Versions of one task in a namespace.

    Args:
        task: The task.
        settings: Of the release.
        own: Of the cluster.
        client: Of the API; from the kubeconfig by default.
    """

    name: ClassVar[str] = "kubernetes"

    def __init__(
        self, task: str, settings: ReleaseSettings, own: KubernetesSettings, client: Any = None
    ) -> None:
        from kubernetes import client as api  # type: ignore[import-untyped]

        self._settings, self._own = settings, own
        self._task = task.replace("_", "-")
        connection = client or _connect(own.context)
        self._apps, self._core = api.AppsV1Api(connection), api.CoreV1Api(connection)
        self._custom = api.CustomObjectsApi(connection)
        self._route_name = own.route or self._task

    def state(self) -> Traffic:
        """Weights of the route, and versions whose pods are ready."""
        shares: dict[str, int] = {}
        route = self._route()
        for rule in (route or {}).get("spec", {}).get("rules", []):
            for backend in rule.get("backendRefs", []):
                version = self._version(backend.get("name", ""))
                if version and backend.get("weight", 1):
                    shares[version] = backend.get("weight", 1)
        ready = frozenset(
            each.metadata.labels[_VERSION] for each in self._deployments() if self._is_ready(each)
        )
        hosts = (route or {}).get("spec", {}).get("hostnames", [])
        return Traffic(shares, None, ready, f"https://{hosts[0]}/" if hosts else None)

    def running(self) -> frozenset[str]:
        """Versions that have a Deployment."""
        return frozenset(each.metadata.labels[_VERSION] for each in self._deployments())

    def start(self, version: str, folder: Path, shadow: bool) -> None:
        """Make a version's Deployment and Service, and wait for its pods; the model is inside."""
        deployment = self._find(version)
        if deployment is None:
            with _asking(f"making the Deployment of version {version}"):
                self._apps.create_namespaced_deployment(self._own.namespace, self._copy(version))
        self._ensure_service(version)
        until = time.monotonic() + self._settings.ready_seconds
        while not self._is_ready(self._find(version)):
            if time.monotonic() > until:
                raise EngineError(
                    f"version {version}: its pods are not ready within "
                    f"{self._settings.ready_seconds:g} s"
                )
            time.sleep(min(_POLL, self._settings.look_seconds))

    def route(self, shares: Mapping[str, int], shadow: str | None) -> None:
        """Set the weights of the route, which is made if it is not there."""
        backends = [
            {"name": self._named(version), "port": self._own.port, "weight": percent}
            for version, percent in sorted(shares.items())
            if percent
        ]
        found = self._route()
        if found is None:
            with _asking("making the route"):
                self._custom.create_namespaced_custom_object(
                    *_ROUTES, self._own.namespace, _PLURAL, self._new_route(backends)
                )
            return
        wanted = copy.deepcopy(found)
        for rule in wanted["spec"]["rules"]:
            rule["backendRefs"] = backends
        if wanted == found:
            return
        with _asking("changing the route"):
            # With its resourceVersion: another's change in between is refused, not undone.
            self._custom.replace_namespaced_custom_object(
                *_ROUTES, self._own.namespace, _PLURAL, self._route_name, wanted
            )

    def stop(self, version: str) -> None:
        """Delete a version's Deployment and Service; its pods end what they have begun."""
        name, space = self._named(version), self._own.namespace
        for what, delete in (
            ("Deployment", self._apps.delete_namespaced_deployment),
            ("Service", self._core.delete_namespaced_service),
        ):
            with _asking(f"deleting the {what} of version {version}"):
                _unless_gone(lambda delete=delete: delete(name, space))

    def observe(self, version: str) -> Observation:
        """The sum over the version's pods."""
        parts = []
        with _asking(f"reading the metrics of version {version}"):
            pods = self._core.list_namespaced_pod(
                self._own.namespace, label_selector=f"{_TASK}={self._task},{_VERSION}={version}"
            )
            for pod in pods.items:
                if pod.status.phase != "Running":
                    continue
                text = _unless_gone(
                    lambda pod=pod: self._core.connect_get_namespaced_pod_proxy_with_path(
                        f"{pod.metadata.name}:{self._own.port}", self._own.namespace, "metrics"
                    )
                )
                parts.append(parse(text) if text else Observation())
        return together(parts)

    def _copy(self, version: str) -> Any:
        with _asking(f"reading the Deployment {self._own.template}"):
            found = self._apps.read_namespaced_deployment(self._own.template, self._own.namespace)
        labels = self._labels(version)
        spec = found.spec
        spec.replicas = self._own.replicas
        spec.selector.match_labels = labels
        spec.selector.match_expressions = None
        # The template's stay: network policy, disruption budget and monitoring go by them.
        spec.template.metadata.labels = (spec.template.metadata.labels or {}) | labels
        spec.template.spec.containers[0].image = self._own.image.replace("{version}", version)
        from kubernetes import client as api

        return api.V1Deployment(
            metadata=api.V1ObjectMeta(name=self._named(version), labels=labels), spec=spec
        )

    def _ensure_service(self, version: str) -> None:
        from kubernetes import client as api

        name, space, port = self._named(version), self._own.namespace, self._own.port
        with _asking(f"making the Service of version {version}"):
            if _unless_gone(lambda: self._core.read_namespaced_service(name, space)) is not None:
                return
            labels = self._labels(version)
            self._core.create_namespaced_service(
                space,
                api.V1Service(
                    metadata=api.V1ObjectMeta(name=name, labels=labels),
                    spec=api.V1ServiceSpec(
                        selector=labels,
                        ports=[api.V1ServicePort(name="http", port=port, target_port=port)],
                    ),
                ),
            )

    def _new_route(self, backends: list[dict[str, Any]]) -> dict[str, Any]:
        space, _, gateway = self._own.gateway.rpartition("/")
        parent = {"name": gateway} | ({"namespace": space} if space else {})
        spec: dict[str, Any] = {"parentRefs": [parent], "rules": [{"backendRefs": backends}]}
        if self._own.hostnames:
            spec["hostnames"] = list(self._own.hostnames)
        return {
            "apiVersion": "/".join(_ROUTES),
            "kind": "HTTPRoute",
            "metadata": {"name": self._route_name, "labels": {_TASK: self._task}},
            "spec": spec,
        }

    def _route(self) -> dict[str, Any] | None:
        with _asking("reading the route"):
            found: dict[str, Any] | None = _unless_gone(
                lambda: self._custom.get_namespaced_custom_object(
                    *_ROUTES, self._own.namespace, _PLURAL, self._route_name
                )
            )
        return found

    def _deployments(self) -> list[Any]:
        with _asking("listing Deployments"):
            found = self._apps.list_namespaced_deployment(
                self._own.namespace, label_selector=f"{_TASK}={self._task}"
            )
        return [each for each in found.items if _VERSION in (each.metadata.labels or {})]

    def _find(self, version: str) -> Any | None:
        with _asking(f"reading the Deployment of version {version}"):
            return _unless_gone(
                lambda: self._apps.read_namespaced_deployment(
                    self._named(version), self._own.namespace
                )
            )

    def _is_ready(self, deployment: Any | None) -> bool:
        return (
            deployment is not None and (deployment.status.ready_replicas or 0) >= self._own.replicas
        )

    def _labels(self, version: str) -> dict[str, str]:
        return {_TASK: self._task, _VERSION: version}

    def _named(self, version: str) -> str:
        return f"{self._task}-v{version}"

    def _version(self, name: str) -> str | None:
        start = f"{self._task}-v"
        return name.removeprefix(start) if name.startswith(start) else None


def _connect(context: str | None) -> Any:
    from kubernetes import config

    try:
        return config.new_client_from_config(context=context)
    except (config.ConfigException, OSError) as error:
        raise StackError(f"--target kubernetes: no cluster in the kubeconfig ({error})") from None


def _unless_gone(call: Any) -> Any:
    from kubernetes.client import ApiException  # type: ignore[import-untyped]

    try:
        return call()
    except ApiException as error:
        if error.status == 404:
            return None
        raise


@contextmanager
def _asking(what: str) -> Iterator[None]:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status in (401, 403):
            raise StackError(f"Kubernetes, {what}: not allowed ({error.reason})") from None
        raise EngineError(f"Kubernetes, {what}: {error.status} {error.reason}") from None
    except (HTTPError, OSError, ValueError) as error:
        raise EngineError(f"Kubernetes, {what}: {type(error).__name__}") from None
