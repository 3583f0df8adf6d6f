"""The target ``cloud-run``, with Google's client against a stub of its REST API."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployment.releasing.cloud_run import CloudRunTarget
from tamis.errors import EngineError, StackError
from tamis.serving.release_settings import CloudRunSettings, ReleaseSettings
from tests.deployment.releasing.test_clusters import METRICS

PARENT = "projects/p/locations/r"
NAME = f"{PARENT}/services/toy-task"


class Run:
    """A service and its revisions; operations are done at once."""

    def __init__(self):
        self.service, self.revisions, self.changes, self.ready = None, {}, [], True
        self.forbidden = False
        run = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                status, found = run.handle(self.command, path, json.loads(body or "{}"))
                raw = found.encode() if isinstance(found, str) else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def handle(self, method, path, body):
        if self.forbidden:
            return 403, {"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}
        if path.startswith("/tag-v"):
            return 200, METRICS
        path = path.removeprefix("/v2/")
        if method != "GET":
            self.changes.append(method)
        if method in ("POST", "PATCH"):
            return 200, self.keep(body)
        if method == "DELETE":
            self.revisions.pop(path.rsplit("/", 1)[-1])
            return 200, self.done("Revision", {})
        if path == f"{NAME}/revisions":
            return 200, {"revisions": list(self.revisions.values())}
        name = path.rsplit("/", 1)[-1]
        if "/revisions/" in path and name in self.revisions:
            return 200, self.revisions[name]
        if path == NAME and self.service is not None:
            return 200, self.service
        return 404, {"error": {"code": 404, "message": "none", "status": "NOT_FOUND"}}

    def keep(self, body):
        number = int((self.service or {}).get("etag", "0"))
        assert int(body.get("etag") or "0") == number, "a change in between was overwritten"
        revision = body["template"]["revision"]
        conditions = [{"type": "Ready", "state": "CONDITION_SUCCEEDED"}] if self.ready else []
        self.revisions.setdefault(
            revision,
            {"name": f"{NAME}/revisions/{revision}", "conditions": conditions,
             "containers": body["template"]["containers"]},
        )  # fmt: skip
        assert sum(each.get("percent", 0) for each in body["traffic"]) == 100
        statuses = [each | {"uri": f"{self.url}/tag-{each['tag']}"} for each in body["traffic"]]
        self.service = body | {
            "name": NAME, "etag": str(number + 1), "trafficStatuses": statuses,
            "uri": "https://toy.example.org",
        }  # fmt: skip
        return self.done("Service", self.service)

    def done(self, kind, value):
        kinds = f"type.googleapis.com/google.cloud.run.v2.{kind}"
        return {
            "name": f"{PARENT}/operations/1",
            "done": True,
            "response": {"@type": kinds} | value,
        }


@pytest.fixture
def run():
    made = Run()
    yield made
    made.end()


@pytest.fixture
def target(run, monkeypatch):
    from google.auth.credentials import AnonymousCredentials

    monkeypatch.setattr("deployment.vertex.google.credentials", AnonymousCredentials)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    own = CloudRunSettings(
        project="p", region="r", image="registry/toy:{version}", api_endpoint=run.url,
        keys_secret="keys",
    )  # fmt: skip
    return CloudRunTarget("toy_task", ReleaseSettings(ready_seconds=5.0), own)


def test_from_nothing_to_a_canary_and_back(run, target):
    assert target.state().shares == {}
    target.start("1", None, False)
    target.start("2", None, False)
    assert target.state().shares == {"1": 100}  # a new revision has nothing
    assert target.state().ready == {"1", "2"}
    target.route({"1": 95, "2": 5}, None)
    assert target.state().shares == {"1": 95, "2": 5}
    before = len(run.changes)
    target.start("2", None, False)
    target.route({"1": 95, "2": 5}, None)
    assert len(run.changes) == before  # it was so already
    found = target.observe("2")
    assert (found.requests, found.errors, found.kept) == (100, 10, 30)
    target.route({"1": 100}, None)
    target.stop("2")
    target.stop("2")
    assert (target.state().shares, target.running()) == ({"1": 100}, {"1"})
    assert target.state().address == "https://toy.example.org"


def test_what_a_revision_is_made_of(run, target):
    target.start("7", None, False)
    container = run.revisions["toy-task-v7"]["containers"][0]
    assert container["image"] == "registry/toy:7"
    assert container["env"][0]["name"] == "TAMIS_SERVE_KEYS"
    assert container["env"][0]["valueSource"]["secretKeyRef"]["secret"] == "keys"
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"


def test_a_revision_that_is_not_ready(run, target):
    run.ready = False
    with pytest.raises(EngineError, match="version 1: its revision on Cloud Run is not ready"):
        target.start("1", None, False)


def test_what_is_not_allowed(run, target):
    run.forbidden = True
    with pytest.raises(StackError, match=r"not allowed .*roles/run.developer"):
        target.state()
