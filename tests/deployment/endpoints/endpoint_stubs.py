"""What the tests of endpoints share."""

import json
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from deployment.registry import Version
from tamis.errors import UsageError
from tamis.models.classifier import digest

STACK = """\
kind: vertex
project: demo-project
region: us-central1
bucket: gs://tamis-test
registry: us-central1-docker.pkg.dev/demo-project/tamis
image: us-central1-docker.pkg.dev/demo-project/tamis/steps:1
service_account: steps@demo-project.iam.gserviceaccount.com
zenml_server: http://127.0.0.1:1
mlflow: {{tracking_uri: "http://127.0.0.1:2", secret: tamis_mlflow}}
api_endpoint: {vertex}
labels: {{team: demo}}
machines: {{cpu: {{cpu: 1, memory: 1GiB}}}}
steps: {{default: cpu}}
{more}
"""
IMAGE = "us-central1-docker.pkg.dev/demo-project/tamis/serving:1"
SERVING = f"serving: {{image: '{IMAGE}', canary: 10, max_replicas: 3}}"


def upload(endpoints, task, *versions):
    for version in versions:
        files = f"gs://tamis-test/models/{task}/{version}"
        endpoints.upload(task, version, files, {"digest": f"{version}" * 64})


def shares(served):
    return {each.version: each.share for each in served.models}


def changes(api, since=0):
    """What was asked of Vertex AI that changes something, in short."""
    asked = httpx.get(f"{api.base_url.copy_with(path='/standin/requests')}", trust_env=False)
    found = asked.json()["requests"][since:]
    return [
        each["path"].partition("?")[0].rsplit("/", 1)[-1].rpartition(":")[2]
        for each in found
        if each["method"] != "GET"
    ]


@contextmanager
def serving(handler):
    """A server of this process on a port of its own; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Answers(BaseHTTPRequestHandler):
    """Handlers that answer in JSON and log nothing."""

    def answer(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def answering(word):
    """A serving process that answers predictions with a word of its own and the route."""

    class Handler(Answers):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.answer(200, {"predictions": [f"{word} {self.path}" for _ in body["instances"]]})

    return serving(Handler)


def refusing(status):
    """A Vertex AI that gives the same error for everything."""

    class Handler(Answers):
        def do_GET(self):
            self.answer(status, {"error": {"code": status, "message": "no\nreally"}})

    return serving(Handler)


class FakeRegistry:
    """Versions 1 to 4 of any task, all with the files of one folder; 4 was refused."""

    def __init__(self, folder):
        self.folder = folder
        self.aliases = {}

    def get(self, task, version):
        if version not in "1234":
            raise UsageError(f"{task}: given version {version!r}")
        carried = tuple(alias for alias, holder in self.aliases.items() if holder == version)
        gate = "refused" if version == "4" else "passed"
        return Version(
            task, version, carried, {"digest": digest(self.folder), "gate": gate}, "", ""
        )

    def with_alias(self, task, alias):
        return self.get(task, self.aliases[alias]) if alias in self.aliases else None

    def champion(self, task):
        return self.with_alias(task, "champion")

    def set_alias(self, task, alias, version):
        self.aliases.pop(alias, None)
        if version is not None:
            self.aliases[alias] = version

    def download(self, version, cache):
        target = cache / version.name / version.version
        shutil.copytree(self.folder, target, dirs_exist_ok=True)
        return target
