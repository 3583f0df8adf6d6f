"""The whole loop in real processes: traffic drifts, an alert rings, a challenger is released.

The service behind nginx, Prometheus, Alertmanager, the listener, ``run.py`` and its pipelines are
the real ones; the judge is a server that speaks its protocol. Times are shortened.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from deployment.ledger import Ledger
from deployment.monitoring.configs import Intervals, Receivers
from deployment.monitoring.run import started
from deployment.releasing.processes import free_port
from deployment.retraining.journal import Retrains
from tests.loop.world import Judge, Traffic, document, until, worth
from tests.program import PROJECT, run
from tests.tiny import save_tiny_bert

NEEDED = ("nginx", "prometheus", "prometheus-alertmanager")
MISSING = [name for name in NEEDED if shutil.which(name, path=os.defpath + ":/usr/sbin") is None]
pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

TOKEN = "a-token-of-this-test-0123456789"
TASK = """\
name: loop
target: {kind: ordinal, minimum: 0, maximum: 5, keep_at_least: 3}
sources: [{kind: files, path: FOLDER/labels.csv, columns: {id: id}}]
text: {max_tokens: 64}
split: {folds: 2}
model: {backbone: {kind: path, path: FOLDER/bert}, frozen: {layers: [2], heads: [ridge]}}
gate: {floor: 0.1, beat: [median]}
scoring: {backend: torch}
serve: {auth: none, log: {keep: text, flush_seconds: 0.1, segment_seconds: 2}}
annotate:
  {rubric: FOLDER/rubric.md, endpoint: "JUDGE", model: judge, key_variable: null, concurrency: 4}
monitor:
  window_hours: 0.05
  min_documents: 100
  max_documents: 400
  false_alarms: {alarms: 4, days: 1}
  cooldown_hours: 0
  evidently: false
  calibration: {resamples: 100, permutations: 299}
retrain:
  when: [drift]
  annotate: {documents: 160, uncertain: 0.3, drifted: 0.4, random: 0.3}
  min_hours_between: 0
  old_margin: 0.3
  release: canary
release:
  steps: [50]
  min_requests: 20
  min_seconds: 0
  max_seconds: 60
  look_seconds: 0.2
  drain_seconds: 5
  limits: {score_shift: 0.99, keep_rate: 0.99, latency_ratio: 20, latency_slack_ms: 2000}
  local: {port: PORT}
"""
RUBRIC = """\
---
name: worth of a document
version: "1.0"
---
Rate from 0 to 5 how much a document is worth.
"""


class World:
    """A home with a champion that serves, and what watches it."""

    def __init__(self, home, task, port):
        self.home, self.task, self.port = home, task, port
        self.books = Retrains(str(home / "ledger"), "loop")
        self.promotions = Ledger(str(home / "ledger"), "loop")

    def run(self, *arguments):
        return run(self.home, arguments[0], "--task", self.task, *arguments[1:])

    def champion(self):
        return self.run("status").result["model_version"]

    def ended(self):
        return [entry for entry in self.books.ledger.entries() if entry.action == "ended"]

    def step(self, name):
        """Whether the newest run has begun a step."""
        latest = self.books.latest()
        return latest is not None and latest.attempts(name) > 0


@pytest.fixture(scope="module")
def judge():
    with Judge() as running:
        yield running


@pytest.fixture(scope="module")
def world(tmp_path_factory, judge):
    import random

    home, port = tmp_path_factory.mktemp("loop"), free_port()
    save_tiny_bert(home / "bert")
    chance = random.Random(1_000)
    texts = [document("usual", chance) for _ in range(240)]
    with (home / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "label"])
        rows.writerows((f"d{row}", text, worth(text)) for row, text in enumerate(texts))
    (home / "rubric.md").write_text(RUBRIC, encoding="utf-8")
    task = home / "loop.yaml"
    text = TASK.replace("FOLDER", str(home)).replace("JUDGE", judge.url)
    task.write_text(text.replace("PORT", str(port)), encoding="utf-8")
    made = World(home, task, port)
    trained = made.run("train")
    assert trained.code == 0, trained.out + trained.err
    released = made.run("release", "--strategy", "blue-green", "--target", "local")
    assert released.code == 0, released.out + released.err
    yield made
    made.run("release", "--end")


@contextmanager
def listening(world, port):
    """The listener, ended with the block; what it started is ended with it."""
    environment = {**os.environ, "TAMIS_HOME": str(world.home), "TAMIS_LISTEN_TOKEN": TOKEN}
    command = [sys.executable, str(PROJECT / "run.py"), "listen", "--task", str(world.task),
               "--port", str(port)]  # fmt: skip
    with (world.home / "listen.log").open("a") as log:
        process = subprocess.Popen(command, env=environment, cwd=world.home, stdout=log,
                                   stderr=subprocess.STDOUT)  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            kill(process)


def kill(process):
    """As a machine that fails: all of it at once."""
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        each.send_signal(signal.SIGKILL)
    process.wait()


def test_drift_ends_in_one_retraining_each(world):
    port, token = free_port(), world.home / "token"
    token.write_text(TOKEN)
    receivers = Receivers(listener=f"http://127.0.0.1:{port}", token_file=token)
    times = Intervals(scrape=1.0, evaluation=1.0, group_wait=0.0, speed=200.0)
    service = f"http://127.0.0.1:{service_port(world)}"
    with ExitStack() as stack:
        traffic = stack.enter_context(Traffic(world.port))
        first = stack.enter_context(ExitStack())
        listener = first.enter_context(listening(world, port))
        watched = stack.enter_context(
            started(world.home / "prometheus", [service], receivers, times)
        )
        until(lambda: traffic.answers[200] > 400, what="traffic")
        assert "TamisScoreShift" not in watched.firing()
        assert world.ended() == []

        # Other documents, whose worth the champion tells as well as before.
        traffic.kind = "style"
        until(lambda: len(world.ended()) == 1, 300, "the end of a retraining")
        (refused,) = world.ended()
        assert refused.end == "refused", refused
        assert world.champion() == "1"
        assert world.promotions.entries()[-1].action == "refused"

        # What was seen is over; then good and bad are told by words that nobody knew.
        traffic.kind = "usual"
        until(lambda: "TamisScoreShift" not in watched.firing(), what="the end of the alert")
        before = len(world.books.numbers())
        traffic.kind = "moved"
        until(lambda: len(world.books.numbers()) > before and world.step("retrain"), 300,
              "the beginning of a retraining")  # fmt: skip
        kill(listener)
        again = stack.enter_context(listening(world, port))
        until(lambda: len(world.ended()) == 2, 300, "the end after the crash")
        assert again.poll() is None
        assert not traffic.lost
        assert set(traffic.answers) == {200}
        settled(world, traffic)


def settled(world, traffic):
    """Exactly one retraining each; registry, ledgers and traffic agree."""
    entries = world.books.ledger.entries()
    decided = [entry for entry in entries if entry.action == "decided" and entry.passed]
    assert [entry.end for entry in world.ended()] == ["refused", "promoted"]
    assert len(decided) == 2
    assert len({entry.fingerprint for entry in decided}) == 2
    promoted = [entry for entry in world.promotions.entries() if entry.action == "promoted"]
    assert [entry.version for entry in promoted] == ["1", world.champion()]
    assert promoted[-1].release is not None
    version = promoted[-1].version
    seen = traffic.versions[version]
    until(lambda: traffic.versions[version] > seen + 10, what="traffic on the new champion")
    status = world.run("release", "--status")
    assert status.result["counts"] == {f"traffic {version}": 100}, status.out


def service_port(world):
    """Of the process behind nginx, whose metrics nginx does not pass on."""
    folder = world.home / "serving" / "local" / "loop" / "versions"
    return json.loads((folder / "1" / "identity.json").read_text())["port"]
