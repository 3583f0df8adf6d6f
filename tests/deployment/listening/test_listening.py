"""The listener as a real process: hostile input, duplicates, crashes, and an end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployment.listening.inbox import Inbox
from deployment.releasing.processes import free_port
from tamis.errors import OutputBusy, UsageError
from tests.deployment.listening.listener import TOKEN

PROGRAM = Path(__file__).with_name("listener.py")
PROJECT = Path(__file__).resolve().parents[3]
INSIDE = re.compile(rb"Traceback|File \"|site-packages|pydantic|\.py\b")
AUTH = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


def until(true, seconds=30.0):
    """Wait for what another process does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def alert(name="Drift", number=1, starts="2026-03-01T12:00:00Z", status="firing", **labels):
    return {
        "status": status, "labels": {"alertname": name, **labels}, "annotations": {"x": "y"},
        "startsAt": starts, "endsAt": "0001-01-01T00:00:00Z", "fingerprint": f"{number:016x}",
        "generatorURL": "http://prometheus/graph",
    }  # fmt: skip


def notification(*alerts, **more):
    return {
        "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing",
        "receiver": "tamis", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager", "alerts": list(alerts),
    } | more  # fmt: skip


class Listener:
    """A listener of the task ``toy`` and what it leaves in a folder."""

    def __init__(self, folder):
        self.folder, self.process = folder, None

    def start(self):
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(self.folder), str(self.port)],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        until(self._ready)
        return self

    def _ready(self):
        assert self.process.poll() is None
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(self, method, path, body=None, headers=AUTH):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, *alerts):
        status, body = self.ask("POST", "/alerts", json.dumps(notification(*alerts)))
        assert status == 202, body
        return json.loads(body)

    def raw(self, data):
        """Bytes as they are; what came back until the listener closed the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as connection:
            found = b""
            try:
                connection.sendall(data)
                while part := connection.recv(65_536):
                    found += part
            except ConnectionError:
                pass
            return found

    def runs(self):
        path = self.folder / "runs"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def entries(self):
        found = sorted((self.folder / "ledger/toy/retrains/ledger").glob("*.json"))
        return [json.loads(path.read_text()) for path in found]

    def names(self, kind):
        return {path.stem for path in (self.folder / "listening/toy" / kind).glob("*.json")}

    def idle(self):
        job = self.folder / "listening/toy/job.json"
        return not job.exists() and not self.names("waiting")

    def set(self, name):
        (self.folder / name).touch()

    def clear(self, name):
        (self.folder / name).unlink()

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def listener(tmp_path):
    made = Listener(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
    for _, _, run, child in made.runs():
        until(lambda run=run, child=child: not alive(run) and not alive(child))


def head(*lines, length=0):
    return "\r\n".join(
        ["POST /alerts HTTP/1.1", "Host: x", *lines, f"Content-Length: {length}", "", ""]
    ).encode()


BEARER, JSON = f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"
GOOD = json.dumps(notification(alert())).encode()
HOSTILE = {
    "no token": (401, {"Content-Type": "application/json"}, GOOD),
    "another token": (401, AUTH | {"Authorization": "Bearer nothing-of-the-kind"}, GOOD),
    "part of the token": (401, AUTH | {"Authorization": f"Bearer {TOKEN[:-1]}"}, GOOD),
    "basic": (401, AUTH | {"Authorization": f"Basic {TOKEN}"}, GOOD),
    "letters of others": (401, AUTH | {"Authorization": "Bearer \xfc\xff"}, GOOD),
    "not said to be JSON": (415, AUTH | {"Content-Type": "text/plain"}, GOOD),
    "compressed": (415, AUTH | {"Content-Encoding": "gzip"}, GOOD),
    "too large": (413, AUTH, b" " * ((1 << 20) + 1)),
    "empty": (400, AUTH, b""),
    "no JSON": (400, AUTH, b"{"),
    "no UTF-8": (400, AUTH, b'{"version": "\xff"}'),
    "deep": (400, AUTH, b"[" * 100_000),
    "another version": (422, AUTH, json.dumps(notification(version="3")).encode()),
    "a list": (422, AUTH, b"[]"),
    "alerts that are none": (422, AUTH, json.dumps(notification(1, None)).encode()),
    "too many": (422, AUTH, json.dumps(notification(*[alert()] * 501)).encode()),
    "no time": (422, AUTH, json.dumps(notification(alert(starts="soon"))).encode()),
    "a time of nowhere": (
        422, AUTH, json.dumps(notification(alert(starts="2026-03-01T12:00:00"))).encode()),
    "a path for a fingerprint": (
        422, AUTH, json.dumps(notification(alert() | {"fingerprint": "../../x"})).encode()),
    "another status": (422, AUTH, json.dumps(notification(alert(status="maybe"))).encode()),
}  # fmt: skip


def test_hostile_requests_are_refused_and_leave_nothing(listener):
    listener.start()
    for name, (status, headers, body) in HOSTILE.items():
        found, answer = listener.ask("POST", "/alerts", body, headers)
        assert found == status, (name, answer)
        assert not INSIDE.search(answer), name
        assert json.loads(answer)["error"]["message"], name
    assert listener.ask("GET", "/alerts")[0] == 405
    assert listener.ask("POST", "/metrics")[0] == 405
    assert listener.ask("GET", "/../etc/passwd")[0] == 404
    twice = head(BEARER, BEARER, JSON, length=len(GOOD)) + GOOD
    assert b" 401 " in listener.raw(twice).split(b"\r\n")[0]
    chunked = (
        f"POST /alerts HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n{JSON}\r\nTransfer-Encoding: chunked"
    )
    parts = b"".join(b"10000\r\n" + b" " * 0x10000 + b"\r\n" for _ in range(20))
    assert b" 413 " in listener.raw(chunked.encode() + b"\r\n\r\n" + parts).split(b"\r\n")[0]
    assert b" 431 " in listener.raw(b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 18)).split(b"\r\n")[0]
    assert b" 400 " in listener.raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n").split(b"\r\n")[0]
    assert listener.raw(head(BEARER, JSON, length=10) + b"12345").startswith(b"HTTP/1.1 408")
    assert listener.names("waiting") == set() and listener.runs() == []
    metrics = listener.ask("GET", "/metrics", headers={})[1].decode()
    assert 'tamis_listen_refused_total{reason="unauthorized"} 6.0' in metrics
    assert TOKEN not in metrics
    for _ in range(200):
        if listener.ask("POST", "/alerts", b"", {})[0] == 429:
            break
    else:
        pytest.fail("whoever guesses may guess for ever")
    assert listener.post() == {"accepted": 0, "duplicate": 0, "resolved": 0, "other_task": 0}


def test_an_alert_is_taken_once(listener):
    listener.start()
    first = listener.post(alert(), alert(status="resolved", number=2), alert(task="other"))
    assert first == {"accepted": 1, "duplicate": 0, "resolved": 1, "other_task": 1}
    until(listener.idle)
    again = listener.post(alert(), alert(status="resolved"))
    assert again == {"accepted": 0, "duplicate": 1, "resolved": 1, "other_task": 0}
    moved = alert(starts="2026-03-01T13:00:00+01:00")
    assert listener.post(moved)["duplicate"] == 1, "the same time elsewhere"
    assert len(listener.runs()) == 1
    ((trigger, request, *_),) = listener.runs()
    assert trigger == request and trigger.startswith("alertmanager:")
    ignored = [e for e in listener.entries() if e["action"] == "ignored"]
    assert len(ignored) == 2 and "duplicate" in ignored[0]["reasons"][0]
    new = alert(starts="2026-03-02T12:00:00Z")
    assert listener.post(alert(), new) == {
        "accepted": 1, "duplicate": 1, "resolved": 0, "other_task": 0
    }  # fmt: skip
    until(lambda: listener.idle() and len(listener.runs()) == 2)
    logs = list((listener.folder / "listening/toy/logs").iterdir())
    assert {log.read_text() for log in logs} == {"a line of the run\n"}
    metrics = listener.ask("GET", "/metrics", headers={})[1].decode()
    assert 'tamis_listen_alerts_total{outcome="accepted"} 2.0' in metrics
    assert 'tamis_listen_runs_total{outcome="done"} 2.0' in metrics


def test_an_alert_during_a_look_is_looked_at_and_during_a_retraining_does_nothing(listener):
    listener.set("hold")
    listener.start()
    listener.post(alert(number=5))
    until(listener.runs)
    listener.post(alert(number=6))
    listener.clear("hold")
    until(lambda: listener.idle() and len(listener.runs()) == 2)
    listener.set("hold")
    listener.set("retrains")
    listener.post(alert())
    until(lambda: len(listener.runs()) == 3)
    listener.post(alert("Later", 7))
    assert len(listener.names("waiting")) == 2
    listener.clear("hold")
    until(listener.idle)
    assert len(listener.runs()) == 3
    ignored = [e for e in listener.entries() if e["action"] == "ignored"]
    assert [e["reasons"] for e in ignored] == [["Later came while run 000001 was retraining."]]


def test_killed_with_its_run_and_started_again_it_goes_on(listener):
    listener.set("hold")
    listener.start()
    listener.post(alert())
    until(listener.runs)
    listener.kill()
    ((_, request, run, child),) = listener.runs()
    until(lambda: not alive(run) and not alive(child))
    listener.clear("hold")
    listener.start()
    until(lambda: listener.idle() and len(listener.runs()) == 2)
    assert listener.runs()[1][1] == request, "the same request: it is taken once"
    assert listener.post(alert())["duplicate"] == 1
    # SIGTERM ends the listener and what it runs.
    listener.set("hold")
    listener.post(alert(number=8))
    until(lambda: len(listener.runs()) == 3)
    assert listener.kill(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert not alive(listener.runs()[2][2]) and not alive(listener.runs()[2][3])
    assert len(listener.names("waiting")) == 1, "the next one goes on with it"


def test_a_run_that_always_fails_is_given_up(listener):
    listener.set("fail")
    listener.start()
    listener.post(alert())
    until(listener.idle)
    runs = listener.runs()
    assert len(runs) == 4 and len({request for _, request, *_ in runs}) == 1
    assert any("given up" in r for e in listener.entries() for r in e["reasons"])
    listener.clear("fail")
    listener.post(alert(number=9))
    until(lambda: listener.idle() and len(listener.runs()) == 5)


def test_an_inbox_has_one_listener_and_survives_damage(tmp_path):
    inbox = Inbox(tmp_path)
    with pytest.raises(OutputBusy, match="another listener"):
        Inbox(tmp_path)
    inbox.close()
    (tmp_path / "waiting/x.json").write_text("{")
    (tmp_path / "job.json").write_text("{")
    again = Inbox(tmp_path)
    assert again.waiting == () and again.job() is None
    again.close()


def test_nothing_is_accepted_beyond_the_limit(tmp_path, monkeypatch):
    from deployment.listening import inbox as module
    from deployment.listening.payload import Notification

    monkeypatch.setattr(module, "MOST_WAITING", 2)
    monkeypatch.setattr(module, "MOST_DONE", 1)
    three = Notification.model_validate(notification(*(alert(number=n) for n in range(3)))).alerts
    inbox = Inbox(tmp_path)
    with pytest.raises(module.Full):
        inbox.accept(three)
    assert inbox.waiting == ()
    inbox.accept(three[:2])
    inbox.end(inbox.job())
    assert inbox.waiting == () and len(list((tmp_path / "done").iterdir())) == 1
    inbox.close()


@pytest.mark.parametrize("token", ["", "short", "a" * 15, "with a\x00control-sign", "clé" * 9])
def test_it_does_not_start_without_a_token(token, monkeypatch, tmp_path):
    from cli.app import app

    monkeypatch.setenv("TAMIS_HOME", str(tmp_path))
    monkeypatch.delenv("TAMIS_LISTEN_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text(token)
    if "listen" not in {command.name for command in app.registered_commands}:
        from deployment.listening.app import check_token

        with pytest.raises(UsageError, match="a token of 16"):
            check_token(token)
        return
    found = CliRunner().invoke(app, ["listen", "--token-file", str(file), "--dry-run"])
    assert isinstance(found.exception, UsageError)
    assert "a token of 16" in str(found.exception)
