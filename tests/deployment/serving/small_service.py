"""A real service of a small linear model, as a process."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from deployment.serving.process import ROOT, command, environment
from tamis.corpus.split import split
from tamis.models.classifier import digest
from tamis.models.linear_training import train_linear
from tamis.models.settings import LinearSettings
from tamis.serving.keys import ApiKey, hash_of, write_keys
from tamis.serving.model import CLASSIFIER, FILE, Probe, ServedModel, reference_scores
from tests.tiny import ORDINAL, easy_set, tiny_task

KEY = "tamis_a-key-for-tests"
LIMITS = {"body_bytes": 64 * 1024, "documents": 32, "characters": 2_000, "body_seconds": 1.0}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Service:
    """One that runs."""

    port: int
    process: subprocess.Popen
    folder: Path
    base: dict = field(default_factory=lambda: {"Authorization": f"Bearer {KEY}"})

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path, body=None, method=None, **headers):
        """One request; a body that is no bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            given = self.base | {"Content-Type": "application/json"} | given
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(connection):
            connection.request(method or ("POST" if body is not None else "GET"), path, body, given)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def connect(self, timeout=20):
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def memory(self):
        """Bytes that its processes hold, of their own."""
        facts = {}
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                lines = status.read_text().splitlines()
                facts[int(status.parent.name)] = dict(line.split(":", 1) for line in lines)
        ours, found = [self.process.pid], 0
        for one in ours:
            found += int(facts[one].get("RssAnon", "0 kB").split()[0]) * 1024
            ours += [other for other, fact in facts.items() if int(fact["PPid"]) == one]
        return found


def save_served(folder, settings=None):
    """A folder to serve: a linear model of words."""
    data, task = easy_set(200), tiny_task("unused", ORDINAL)
    sides = split(data, task.target, task.split, task.seed)
    trained = train_linear(task, LinearSettings(family="linear"), data, sides)
    classifier = trained.classifier
    classifier.save(folder / CLASSIFIER)
    text = "proof theorem word1 lemma"
    info = classifier.info
    served = ServedModel(
        task="toy",
        version="1",
        digest=digest(folder / CLASSIFIER),
        backend="torch",
        threshold=classifier.info.threshold,
        scale=classifier.info.target.scale,
        created="2026-01-01T00:00:00+00:00",
        probes=(Probe(text=text, score=float(classifier.score([text]).values[0])),),
        reference=reference_scores(classifier.reference_scores, info.threshold, info.target.scale),
    )
    (folder / FILE).write_text(served.model_dump_json(), "utf-8")
    return folder


@contextlib.contextmanager
def serving(folder, model, wait=True, **settings):
    """Start a service, have it ready unless told not to wait, and end it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = folder / "keys.json"
    gone = ApiKey(name="gone", hash=hash_of("tamis_revoked"), revoked=True)
    write_keys(keys, [ApiKey(name="test", hash=hash_of(KEY)), gone])
    told = environment(
        model,
        log=folder / "log",
        keys_file=keys,
        settings={"processes": 1, "threads": 1} | settings,
    )
    told |= {"TAMIS_HOME": str(folder), "BENTOML_HOME": str(folder / "bentoml")}
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            command(port), cwd=ROOT, env=told, stdout=log, stderr=log, start_new_session=True
        )
    service = Service(port, process, folder)
    try:
        _wait(service, "/readyz" if wait else "/livez")
        yield service
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(service, route):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if service.ask(route).status == 200:
                return
        if service.process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError((service.folder / "service.log").read_text("utf-8", "replace")[-4_000:])
