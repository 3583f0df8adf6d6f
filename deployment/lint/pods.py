"""What is asked of every pod and container that serves, wherever it runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

PORT = 3000
USER = 10001
KEYS_FILE = "TAMIS_SERVE_KEYS_FILE"
PROBES = {"startupProbe": "/readyz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
PINNED = re.compile(
    r"^[^\s:@]+(:\d+)?[^\s:@]*(:(?!latest$)[\w.-]+|(:[\w.-]+)?@sha256:[0-9a-f]{64})$"
)


def pod_findings(where: str, spec: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a pod of Kubernetes."""
    given = spec.get("securityContext", {})
    if not given.get("runAsNonRoot"):
        yield f"{where}: runAsNonRoot is not set, so an image of root's would run"
    for key in ("runAsUser", "runAsGroup"):
        if given.get(key) != USER:
            yield f"{where}: {key} is {given.get(key)}; the image is made for {USER}"
    if given.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{where}: seccompProfile is not RuntimeDefault"
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{where}: automountServiceAccountToken is not false"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{where}: {key} is set"
    for volume in spec.get("volumes", ()):
        if "hostPath" in volume:
            yield f"{where}: volume {volume.get('name')} is a folder of the node"
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        inside = f"{where}: container {container.get('name')}"
        yield from _rights(inside, container, given)
        yield from container_findings(inside, container)
    yield from _grace(where, spec)


def container_findings(
    where: str, container: Mapping[str, Any], probes: Collection[str] = tuple(PROBES)
) -> Iterator[str]:
    """What is wrong with a container that serves: its image, its size, its probes, its keys."""
    yield from size_findings(where, container)
    ports = {port.get("name"): port.get("containerPort") for port in container.get("ports", ())}
    if PORT not in ports.values():
        yield f"{where}: port {PORT} of the service is not there"
    for name in probes:
        path, probe = PROBES[name], container.get(name, {}).get("httpGet")
        if not probe:
            yield f"{where}: no {name} over HTTP"
            continue
        if probe.get("path") != path:
            yield f"{where}: {name} asks {probe.get('path')}; it is {path}"
        port = probe.get("port", PORT)
        if ports.get(port, port) != PORT:
            yield f"{where}: {name} asks port {port}; it is {PORT}"
    yield from _keys(where, container)


def size_findings(where: str, container: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the image and the size of a container."""
    image = str(container.get("image", ""))
    if not PINNED.match(image):
        yield f"{where}: image {image!r} names neither a version nor a digest"
    resources = container.get("resources", {})
    for amount in ("cpu", "memory"):
        if amount not in resources.get("limits", {}):
            yield f"{where}: no limit of {amount}"


def _keys(where: str, container: Mapping[str, Any]) -> Iterator[str]:
    variables = {entry.get("name"): entry.get("value") for entry in container.get("env", ())}
    for name in variables:
        if name == "TAMIS_SERVE_KEYS":
            yield f"{where}: the keys are in the environment; mount them and set {KEYS_FILE}"
    file = str(variables.get(KEYS_FILE) or "")
    mounts = {str(mount.get("mountPath")) for mount in container.get("volumeMounts", ())}
    if not any(file.startswith(f"{mount}/") for mount in mounts):
        yield f"{where}: {KEYS_FILE} is {file!r}, which lies on none of the mounts"
    log = variables.get("TAMIS_SERVE_LOG")
    if log and not any(str(log).startswith(mount) for mount in mounts):
        yield f"{where}: TAMIS_SERVE_LOG is {log!r}, which lies on none of the mounts"


def _rights(where: str, container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    given = container.get("securityContext", {})
    if given.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allowPrivilegeEscalation is not false"
    if given.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: readOnlyRootFilesystem is not true"
    if given.get("privileged"):
        yield f"{where}: it is privileged"
    if given.get("capabilities", {}).get("drop") != ["ALL"] or given["capabilities"].get("add"):
        yield f"{where}: capabilities are not all dropped"
    if given.get("runAsUser", pod.get("runAsUser")) == 0 or given.get("runAsNonRoot") is False:
        yield f"{where}: it runs as root"


def _grace(where: str, spec: Mapping[str, Any]) -> Iterator[str]:
    """Enough time to end: until nobody routes here any more, and for the longest request."""
    from tamis.serving.settings import RequestLimits

    grace = spec.get("terminationGracePeriodSeconds", 30)
    for container in spec.get("containers", ()):
        wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds")
        if wait is None:
            yield f"{where}: no preStop sleep, so requests arrive after the service has ended"
        elif grace < wait + RequestLimits().seconds:
            yield (
                f"{where}: terminationGracePeriodSeconds is {grace}; the wait of {wait} s and a "
                f"request of {RequestLimits().seconds:g} s do not fit in"
            )
