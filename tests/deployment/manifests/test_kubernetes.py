"""The overlays as kustomize renders them, and that each mistake in them is found."""

import shutil
from pathlib import Path

import pytest
import yaml

from deployment.lint.kubernetes import (
    cloud_run_findings,
    kubernetes_findings,
    manifest_findings,
    overlays,
    render,
)
from deployment.lint.tools import NotInstalled
from deployment.serving import environment
from tamis.serving.settings import RequestLimits

PROJECT = Path(__file__).resolve().parents[3]
DEPLOYMENT = "deployment/k8s/base/deployment.yaml"
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


def rendered(root=PROJECT):
    try:
        return {folder.name: list(yaml.safe_load_all(render(folder))) for folder in overlays(root)}
    except NotInstalled as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def manifests():
    return rendered()


def of(found, kind):
    return next(manifest for manifest in found if manifest["kind"] == kind)


def container(found):
    return of(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def test_nothing_is_wrong_with_them(manifests):
    assert set(manifests) == {"staging", "production", "gpu"}
    for name, found in manifests.items():
        assert list(manifest_findings(name, found)) == []


def test_environments_lie_in_namespaces_that_allow_no_rights(manifests):
    for found in manifests.values():
        namespace = of(found, "Namespace")["metadata"]
        assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        inside = {m["metadata"].get("namespace") for m in found if m["kind"] != "Namespace"}
        assert inside == {namespace["name"]}
    names = {key: of(found, "Namespace")["metadata"]["name"] for key, found in manifests.items()}
    assert names["staging"] != names["production"] == names["gpu"]


def test_variables_are_those_that_the_service_reads(manifests):
    known = {environment.KEYS_FILE, environment.LOG, "POD_NAME"}
    for found in manifests.values():
        assert {entry["name"] for entry in container(found)["env"]} == known


def test_two_pods_never_write_to_one_log(manifests):
    for found in manifests.values():
        names = [entry["name"] for entry in container(found)["env"]]
        log = next(e["value"] for e in container(found)["env"] if e["name"] == environment.LOG)
        assert "$(POD_NAME)" in log
        assert names.index("POD_NAME") < names.index(environment.LOG), "expanded in order"


def test_the_image_is_told_by_the_overlay(manifests):
    for found in manifests.values():
        assert "/tamis/serving:" in container(found)["image"]


def test_a_gpu_is_asked_for_in_one_overlay_alone(manifests):
    for name, found in manifests.items():
        limits = container(found)["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == (name == "gpu")


def test_production_survives_the_loss_of_a_zone_and_of_a_pod(manifests):
    found = manifests["production"]
    pod = of(found, "Deployment")["spec"]["template"]["spec"]
    zone = pod["topologySpreadConstraints"][0]
    assert (zone["topologyKey"], zone["whenUnsatisfiable"]) == (
        "topology.kubernetes.io/zone", "DoNotSchedule",
    )  # fmt: skip
    scaler = of(found, "HorizontalPodAutoscaler")["spec"]
    budget = of(found, "PodDisruptionBudget")["spec"]
    assert scaler["minReplicas"] > budget["maxUnavailable"]


def test_clients_are_let_in_by_their_own_label(manifests):
    for found in manifests.values():
        sources = of(found, "NetworkPolicy")["spec"]["ingress"][0]["from"]
        assert {"podSelector": {"matchLabels": {"tamis/client": "true"}}} in sources
        assert of(found, "NetworkPolicy")["spec"]["egress"] == []


SPOILT = {
    "a key that is unknown": (
        DEPLOYMENT, "enableServiceLinks:", "enableServiceLink:", "enableServiceLink"),
    "a type that is wrong": (
        "deployment/k8s/base/service.yaml", "port: 80", 'port: "eighty"', "eighty"),
    "a key of kustomize": (
        "deployment/k8s/overlays/gpu/kustomization.yaml", "resources:", "resource:", "resource"),
    "an unknown key of the monitor": (
        "deployment/k8s/base/servicemonitor.yaml", "interval:", "intervall:", "intervall"),
    "no readiness probe": (DEPLOYMENT, "readinessProbe:", "x-readinessProbe:", "readinessProbe"),
    "a probe of another path": (
        DEPLOYMENT, "path: /livez", "path: /readyz", "livenessProbe asks /readyz"),
    "another port": (DEPLOYMENT, "containerPort: 3000", "containerPort: 8080", "port 3000"),
    "root": (DEPLOYMENT, "runAsUser: 10001", "runAsUser: 0", "runAsUser is 0"),
    "root allowed": (DEPLOYMENT, "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
    "a root filesystem that can be written": (
        DEPLOYMENT, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false",
        "readOnlyRootFilesystem"),
    "a capability": (DEPLOYMENT, "drop: [ALL]", "drop: [NET_RAW]", "capabilities"),
    "no seccomp": (DEPLOYMENT, "type: RuntimeDefault", "type: Unconfined", "seccompProfile"),
    "a token": (
        DEPLOYMENT, "automountServiceAccountToken: false", "automountServiceAccountToken: true",
        "automountServiceAccountToken"),
    "no limit of memory": (DEPLOYMENT, "memory: 2Gi\n              ephemeral-storage: 1Gi\n"
        "          securityContext", "ephemeral-storage: 1Gi\n          securityContext",
        "no limit of memory"),
    "an image without a version": (
        "deployment/k8s/overlays/staging/kustomization.yaml", "newTag: 0.1.0", "newTag: latest",
        "names neither a version nor a digest"),
    "keys elsewhere": (
        DEPLOYMENT, "value: /etc/tamis/keys/", "value: /etc/", "none of the mounts"),
    "too little time to end": (
        DEPLOYMENT, "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 30",
        "do not fit in"),
    "a service of other pods": (
        "deployment/k8s/base/service.yaml", "component: serving", "component: web",
        "Service: its selector"),
    "a budget of no pods": (
        "deployment/k8s/base/pdb.yaml", "  selector:\n    matchLabels:\n"
        "      app.kubernetes.io/name: tamis\n      app.kubernetes.io/component: serving\n", "",
        "PodDisruptionBudget: its selector"),
    "a policy that lets everything out": (
        "deployment/k8s/base/networkpolicy.yaml", "[Ingress, Egress]", "[Ingress]",
        "both directions"),
    "an autoscaler of something else": (
        "deployment/k8s/base/hpa.yaml", "kind: Deployment\n    name: tamis",
        "kind: Deployment\n    name: other", "no Deployment other"),
    "a manifest that is left out": (
        "deployment/k8s/base/kustomization.yaml", "  - pdb.yaml\n", "", "no PodDisruptionBudget"),
}  # fmt: skip


@needs_kubectl
@pytest.mark.parametrize("mistake", SPOILT)
def test_a_mistake_is_found(mistake, copy, spoil):
    file, old, new, told = SPOILT[mistake]
    spoil(file, old, new)
    for overlay in overlays(copy):
        if overlay.name not in (file.split("/")[3], "production"):
            shutil.rmtree(overlay)
    try:
        found = list(kubernetes_findings(copy))
    except NotInstalled as reason:
        pytest.skip(str(reason))
    assert any(told in finding for finding in found), found


CLOUD_RUN = "deployment/cloud_run/service.yaml"
SPOILT_CLOUD_RUN = {
    "an unknown annotation": ("startup-cpu-boost", "startup-cpu-bost", "startup-cpu-bost"),
    "an unknown key": ("volumeMounts:", "volumeMount:", "volumeMount"),
    "the first generation": ("environment: gen2", "environment: gen1", "'gen2' was expected"),
    "a number where a text is asked": ('maxScale: "10"', "maxScale: 10", "10 is not of type"),
    "no account of its own": (
        "serviceAccountName: tamis-serving@", "serviceAccountName: x #", "does not match"),
    "no probe": ("livenessProbe:", "x-livenessProbe:", "no livenessProbe"),
    "another port": ("containerPort: 3000", "containerPort: 8080", "port 3000"),
    "keys elsewhere": ("value: /etc/tamis/keys/", "value: /keys/", "none of the mounts"),
}  # fmt: skip


def test_nothing_is_wrong_with_cloud_run():
    assert list(cloud_run_findings(PROJECT)) == []


@pytest.mark.parametrize("mistake", SPOILT_CLOUD_RUN)
def test_a_mistake_for_cloud_run_is_found(mistake, copy, spoil):
    old, new, told = SPOILT_CLOUD_RUN[mistake]
    spoil(CLOUD_RUN, old, new)
    found = list(cloud_run_findings(copy))
    assert any(told in finding for finding in found), found


def test_cloud_run_waits_longer_than_the_service_itself():
    service = yaml.safe_load((PROJECT / CLOUD_RUN).read_text())
    spec = service["spec"]["template"]["spec"]
    assert spec["timeoutSeconds"] > RequestLimits().seconds
    probe = spec["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= 240, "what Cloud Run allows"
