"""The other targets, with the real clients against a stub of their API."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from deployment.releasing.kubernetes import KubernetesTarget
from deployment.releasing.vertex import VertexTarget
from deployment.vertex.endpoints import Deployed, Served, split
from tamis.errors import EngineError, StackError
from tamis.serving.release_settings import KubernetesSettings, ReleaseSettings

METRICS = """\
# TYPE tamis_requests counter
tamis_requests_total{route="/score",status="200"} 90
tamis_requests_total{route="/score",status="503"} 10
tamis_requests_total{route="/page",status="500"} 7
# TYPE tamis_documents counter
tamis_documents_total{decision="keep"} 30
tamis_documents_total{decision="drop"} 60
# TYPE tamis_score histogram
tamis_score_bucket{le="0.5"} 60
tamis_score_bucket{le="1.0"} 90
tamis_score_bucket{le="+Inf"} 90
"""
SETTINGS = ReleaseSettings(ready_seconds=1.0, look_seconds=0.01)
LABELS = {"app.kubernetes.io/name": "tamis"}


class Cluster:
    """Objects by path, as the API server keeps them; deployments are ready at once."""

    def __init__(self):
        self.objects, self.changes, self.forbidden, self.ready = {}, [], False, True
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, found = cluster.handle(self.command, self.path, json.loads(body or "null"))
                raw = found.encode() if isinstance(found, str) else json.dumps(found).encode()
                self.send_response(status)
                kind = "text/plain" if isinstance(found, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_DELETE = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def handle(self, method, target, body):
        url = urlsplit(target)
        path = url.path
        if self.forbidden:
            return 403, {"kind": "Status", "reason": "Forbidden"}
        if path.endswith("/proxy/metrics"):
            return 200, METRICS
        if method != "GET":
            self.changes.append((method, path.rsplit("/", 1)[-1]))
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            self.objects[path] = self.filled(body)
            return 201, self.objects[path]
        if method == "PUT":
            there = self.objects[path]["metadata"]["resourceVersion"]
            if body["metadata"].get("resourceVersion") != there:
                return 409, {"kind": "Status", "reason": "Conflict"}
            self.objects[path] = self.filled(body, int(there) + 1)
            return 200, self.objects[path]
        if method == "DELETE":
            found = self.objects.pop(path, None)
            return (200, {"kind": "Status"}) if found else (404, {"kind": "Status"})
        if path in self.objects:
            return 200, self.objects[path]
        if path.endswith("/pods"):
            query = parse_qs(url.query)["labelSelector"][0]
            version = re.search(r"version=(\w+)", query)[1]
            pods = [{"metadata": {"name": f"pod-{version}-{n}"}, "status": {"phase": phase}}
                    for n, phase in enumerate(["Running", "Running", "Pending"])]  # fmt: skip
            return 200, {"kind": "PodList", "items": pods}
        if path.endswith("/deployments"):
            items = [o for key, o in self.objects.items() if key.startswith(path)]
            items = [o for o in items if "tamis.dev/task" in o["metadata"].get("labels", {})]
            return 200, {"kind": "DeploymentList", "items": items}
        return 404, {"kind": "Status", "reason": "NotFound"}

    def filled(self, body, number=1):
        body["metadata"]["resourceVersion"] = str(number)
        if body.get("kind") == "Deployment" or "replicas" in body.get("spec", {}):
            body["status"] = {"readyReplicas": body["spec"].get("replicas", 1) if self.ready else 0}
        return body


@pytest.fixture
def cluster():
    made = Cluster()
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": LABELS},
        "template": {
            "metadata": {"labels": LABELS},
            "spec": {"containers": [{"name": "serving", "image": "tamis:base"}]},
        },
    }
    path = "/apis/apps/v1/namespaces/tamis/deployments/tamis"
    made.objects[path] = made.filled({"metadata": {"name": "tamis"}, "spec": spec})
    yield made
    made.end()


@pytest.fixture
def target(cluster):
    from kubernetes import client

    configuration = client.Configuration(host=f"http://127.0.0.1:{cluster.server.server_port}")
    configuration.proxy = None
    configuration.retries = False
    own = KubernetesSettings(image="registry/toy:{version}", hostnames=("score.example.org",))
    connection = client.ApiClient(configuration)
    yield KubernetesTarget("toy_task", SETTINGS, own, connection)
    connection.close()


class TestKubernetes:
    def test_from_nothing_to_a_canary_and_back(self, cluster, target):
        assert target.state().shares == {}
        for version in ("1", "2"):
            target.start(version, None, False)
        target.route({"1": 95, "2": 5}, None)
        now = target.state()
        assert (now.shares, now.ready) == ({"1": 95, "2": 5}, {"1", "2"})
        assert now.address == "https://score.example.org/"
        before = len(cluster.changes)
        target.start("2", None, False)
        target.route({"1": 95, "2": 5}, None)
        assert len(cluster.changes) == before  # it was so already
        target.route({"1": 100}, None)
        target.stop("2")
        target.stop("2")
        assert (target.state().shares, target.running()) == ({"1": 100}, {"1"})

    def test_a_version_is_a_copy_that_policies_still_find(self, cluster, target):
        target.start("2", None, False)
        made = cluster.objects["/apis/apps/v1/namespaces/tamis/deployments/toy-task-v2"]
        own = {"tamis.dev/task": "toy-task", "tamis.dev/version": "2"}
        assert made["spec"]["selector"]["matchLabels"] == own
        assert made["spec"]["template"]["metadata"]["labels"] == LABELS | own
        assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/toy:2"
        service = cluster.objects["/api/v1/namespaces/tamis/services/toy-task-v2"]
        assert service["spec"]["selector"] == own

    def test_figures_are_the_sum_over_the_pods_that_run(self, cluster, target):
        found = target.observe("2")
        assert (found.requests, found.errors, found.documents, found.kept) == (200, 20, 180, 60)
        assert found.scores.counts == (120, 60, 0)

    def test_pods_that_do_not_become_ready(self, cluster, target):
        cluster.ready = False
        with pytest.raises(EngineError, match="version 2: its pods are not ready within 1 s"):
            target.start("2", None, False)

    def test_what_is_not_allowed(self, cluster, target):
        cluster.forbidden = True
        with pytest.raises(StackError, match="reading the route: not allowed"):
            target.state()


class FakeEndpoints:
    """An endpoint in memory, with the methods of the real one."""

    def __init__(self):
        self.models = {}

    def state(self, task):
        found = tuple(Deployed(f"id{v}", v, "", s, v, task) for v, s in self.models.items())
        return Served(task, "projects/p/endpoints/toy", found)

    def upload(self, task, version, files, labels):
        self.uploaded = (version, labels)

    def _uploaded(self, task, version):
        return version

    def _ensure(self, task):
        pass

    def _ensure_deployed(self, task, model):
        self.models.setdefault(model, 0 if any(self.models.values()) else 100)

    def _give(self, task, deployed, share):
        self.models = split(self.models, deployed.removeprefix("id"), share)

    def _undeploy(self, task, each):
        del self.models[each.version]


def test_vertex_splits_and_reads_cloud_monitoring(monkeypatch, tmp_path):
    asked = []

    def ask(url, parameters):
        asked.append((url, parameters))
        series = [
            {"metric": {"labels": {"response_code": code}},
             "points": [{"value": {"int64Value": number}}]}
            for code, number in (("200", "90"), ("500", "6"), ("429", "4"))
        ]  # fmt: skip
        if "response_count" in parameters["filter"]:
            if "pageToken" not in parameters:
                return {"timeSeries": series[:1], "nextPageToken": "more"}
            return {"timeSeries": series[1:]}
        buckets = {"exponentialBuckets": {"numFiniteBuckets": 3, "growthFactor": 2, "scale": 10}}
        value = {"distributionValue": {"bucketOptions": buckets, "bucketCounts": ["0", "90", "10"]}}
        return {"timeSeries": [{"points": [{"value": value}]}]}

    name = "deployment.vertex.serving_models.publish_version"
    monkeypatch.setattr(name, lambda *_: "gs://b/files")
    version = SimpleNamespace(tags={"digest": "d"})
    registry = SimpleNamespace(get=lambda task, name: version)
    session = SimpleNamespace(home=tmp_path, vertex=SimpleNamespace(project="p"))
    endpoints = FakeEndpoints()
    target = VertexTarget("toy", session, registry, endpoints, "http://m", ask)
    target.start("1", tmp_path, False)
    target.start("2", tmp_path, False)
    assert target.state().shares == {"1": 100}
    target.route({"1": 80, "2": 20}, None)
    assert target.state().shares == {"1": 80, "2": 20}
    with pytest.raises(EngineError, match="version 3 is not deployed"):
        target.route({"3": 100}, None)
    found = target.observe("2")
    assert (found.requests, found.errors, found.refused) == (100, 6, 4)
    assert found.latency.edges == (0.01, 0.02, 0.04, 0.08)
    assert found.latency.counts == (0, 90, 10, 0, 0)
    assert 'deployed_model_id="id2"' in asked[0][1]["filter"]
    target.route({"2": 100}, None)
    target.stop("1")
    assert (target.state().shares, target.running()) == ({"2": 100}, {"2"})
