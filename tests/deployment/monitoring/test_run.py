"""The real Prometheus and Alertmanager: what a service tells of itself ends at the webhook."""

import contextlib
import http.server
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from deployment.monitoring import run
from deployment.monitoring.configs import Intervals, Receivers
from tamis.errors import EngineError, UsageError

PROJECT = Path(__file__).resolve().parents[3]
TOKEN = "a-token-for-tests"
FAST = Intervals(scrape=0.25, evaluation=0.25, group_wait=0.0, speed=600.0)
EDGES = ("2.5", "5.0", "+Inf")
there = all(
    any(shutil.which(name) for name in names)
    for names in (("prometheus",), ("prometheus-alertmanager", "alertmanager"))
)
needed = pytest.mark.skipif(not there, reason="prometheus and its alertmanager are not installed")


class Stub(http.server.BaseHTTPRequestHandler):
    """A service whose scores shift at a word, and the listener that is to hear of it."""

    def do_GET(self):
        counts = self.server.counts
        lines = [
            'tamis_model_info{task="edu",version="3",digest="d",backend="torch"} 1',
            "tamis_reference_documents 1000",
            "tamis_reference_kept_ratio 0.5",
        ]
        lines += [
            f'tamis_reference_score_bucket{{le="{edge}"}} {count}'
            for edge, count in zip(EDGES, (500, 1000, 1000), strict=True)
        ]
        lines += [
            f'tamis_score_bucket{{le="{edge}"}} {count}'
            for edge, count in zip(EDGES, (counts["low"], *[sum(counts.values())] * 2), strict=True)
        ]
        lines += [
            f'tamis_documents_total{{decision="keep"}} {counts["high"]}',
            f'tamis_documents_total{{decision="drop"}} {counts["low"]}',
        ]
        # So that every scrape finds new documents, half of them low until the shift.
        counts["high"] += 200
        counts["low"] += 0 if self.server.shifted else 200
        self.send(200, "\n".join(lines).encode() + b"\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.send(401, b"")
        self.server.told.append((self.path, json.loads(body)))
        self.server.heard.set()
        return self.send(200, b"")

    def send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def stub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.counts, server.shifted = {"high": 0, "low": 0}, False
    server.told, server.heard = [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def eventually(found, seconds=30):
    """What is found at last; pauses only so as not to spin."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return value


@pytest.fixture
def token(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


def post_alert(alertmanager, *names):
    alerts = [{"labels": {"alertname": name, "task": "other"}} for name in names]
    request = urllib.request.Request(
        f"{alertmanager}/api/v2/alerts", json.dumps(alerts).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    urllib.request.urlopen(request, timeout=5).close()


def states(alertmanager):
    with urllib.request.urlopen(f"{alertmanager}/api/v2/alerts", timeout=5) as answer:
        return {
            (one["labels"]["alertname"], one["labels"]["task"]): one["status"]["state"]
            for one in json.load(answer)
        }


@needed
def test_a_shift_of_scores_rings_at_the_authenticated_webhook_and_nothing_did_before(
    tmp_path, token
):
    folder = tmp_path / "both"
    receivers = Receivers()
    with stub() as server:
        receivers = Receivers(listener=server.url, token_file=token)
        with run.started(folder, [server.url], receivers, FAST) as both:
            far = "task_version:tamis_score:documents1h > 400"
            eventually(lambda: both.value(far))
            assert both.value("task_version:tamis_score_shift:ks1h") < 0.05
            assert "TamisScoreShift" not in both.firing()
            assert server.told == []
            server.shifted = True
            assert server.heard.wait(30)
            path, message = server.told[0]
            assert path == "/alerts"
            rings = {alert["labels"]["alertname"] for alert in message["alerts"]}
            assert rings <= {"TamisScoreShift", "TamisKeptShareShift"}
            assert message["commonLabels"]["task"] == "edu"
            assert message["commonLabels"]["action"] == "monitor"
            assert "edu" in both.firing()["TamisScoreShift"]
            # What is down explains the rest of its task, and nothing of another.
            post_alert(both.alertmanager, "TamisServiceDown", "TamisLatency")
            eventually(
                lambda: states(both.alertmanager).get(("TamisLatency", "other")) == "suppressed"
            )
            known = states(both.alertmanager)
            assert known["TamisServiceDown", "other"] == "active"
            assert known["TamisScoreShift", "edu"] == "active"
        assert all(process.poll() is not None for process in both.processes)
    assert TOKEN not in "".join(file.read_text() for file in folder.glob("*.yml"))


def heed_interrupts():
    """As in a terminal, even where the tests run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@needed
def test_the_command_says_where_they_are_and_ends_both(tmp_path):
    command = [sys.executable, "-m", "deployment.monitoring.run", "--data", tmp_path / "data",
               "--port", "0", "--alertmanager-port", "0"]  # fmt: skip
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(4)]
            addresses = [line.split()[1] for line in lines[:2]]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert lines[2].endswith("http://127.0.0.1:3000\n")
    for address in addresses:
        with pytest.raises(OSError):
            urllib.request.urlopen(address, timeout=2)


@needed
def test_a_second_one_on_the_same_port_says_why_it_does_not_start(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub) as taken:
        port = taken.server_port
        with (
            pytest.raises(EngineError, match=r"alertmanager ended .*address already in use"),
            run.started(tmp_path, ["http://127.0.0.1:3000"], alertmanager_port=port),
        ):
            pass


def test_missing_packages_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run.main(["--data", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told == (
        "error: prometheus is not installed; on Debian: sudo apt-get install prometheus "
        "prometheus-alertmanager\n"
    )


@pytest.mark.parametrize(
    ("content", "told"), [(None, "cannot be read"), (b" \n", "is empty"), (b"\xff", "cannot be")]
)
def test_a_secret_that_is_not_there_is_refused(content, told, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "program", lambda name: name)
    secret = tmp_path / "token"
    if content is not None:
        secret.write_bytes(content)
    receivers = Receivers(listener="http://127.0.0.1:1", token_file=secret)
    with pytest.raises(UsageError, match=told), run.started(tmp_path, ["http://x:1"], receivers):
        pass
