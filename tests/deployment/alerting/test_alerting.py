"""People are told: Slack by ZenML or by its webhook, any receiver; and no failure goes further."""

import base64
import json
import logging
import sys
import threading
import types
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployment.alerting import channels
from deployment.alerting.channels import tell
from deployment.alerting.message import Message
from tamis.monitoring.settings import SlackChannel, WebhookChannel

PNG = b"\x89PNG fake"
MESSAGE = Message(
    title="toy: the data have drifted", task="toy", severity="alarm",
    lines=("p 0.001 <!channel>", "x" * 900), command="python run.py status --task toy",
    report="https://reports.example/1", picture=PNG,
)  # fmt: skip
SECRET = "T0/B0/s3cr3t"
SLACK = SlackChannel(kind="slack", channel="C1")


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), json.loads(body)))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/inside")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def receiving(*statuses):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.statuses, server.got = list(statuses), []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def webhook(url, **more):
    return WebhookChannel(kind="webhook", url=url, **more)


def test_a_webhook_gets_summary_picture_and_command(monkeypatch):
    monkeypatch.setenv("TOKEN_OF_TESTS", "abc")
    with receiving() as server:
        (told,) = tell(MESSAGE, [webhook(server.url, token_variable="TOKEN_OF_TESTS")])
    assert told == ("webhook 127.0.0.1", True, "told")
    ((_, headers, body),) = server.got
    assert headers["Authorization"] == "Bearer abc"
    assert base64.b64decode(body["picture_png"]) == PNG
    assert body["command"] == MESSAGE.command and body["severity"] == "alarm"
    assert body["report"] == MESSAGE.report and len(body["lines"][1]) == 400


def test_slack_by_its_webhook_takes_nothing_for_markup(monkeypatch):
    with receiving() as server:
        monkeypatch.setenv(SLACK.url_variable, server.url)
        (told,) = tell(MESSAGE, [SLACK])
    assert told == ("slack", True, "told")
    ((_, _, body),) = server.got
    section = body["blocks"][1]["text"]["text"]
    assert "&lt;!channel&gt;" in section and "<!channel>" not in section
    assert "<https://reports.example/1>" in section and MESSAGE.command in section
    assert body["channel"] == "C1"


class Alerter:
    flavor = "discord"

    def __init__(self, answers):
        self.answers, self.posted = list(answers), []

    def post(self, message, params=None):
        self.posted.append(message)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answers", "worked", "posts"),
    [([True], True, 1), ([False], False, 1), ([OSError(), True], True, 2),
     ([OSError()] * 3, False, 3), ([ValueError("no channel")], False, 1)],
)  # fmt: skip
def test_an_alerter_of_the_stack_comes_first(answers, worked, posts, monkeypatch):
    monkeypatch.setenv(SLACK.url_variable, "http://127.0.0.1:1/")
    alerter = Alerter(answers)
    (told,) = tell(MESSAGE, [SLACK], lambda: alerter, 0.001)
    assert (told.worked, len(alerter.posted)) == (worked, posts)
    assert MESSAGE.command in alerter.posted[0]


def test_zenml_s_slack_alerter_gets_blocks(monkeypatch):
    """ZenML's module needs a package that is not asked for here: one like it stands in."""
    name = "zenml.integrations.slack.alerters.slack_alerter"
    module, posted = types.ModuleType(name), []
    module.SlackAlerterParameters = types.SimpleNamespace
    monkeypatch.setitem(sys.modules, name, module)

    class Slack:
        flavor = "slack"

        def post(self, message, params=None):
            posted.append(params)
            return True

    assert tell(MESSAGE, [SLACK], Slack)[0].worked
    assert posted[0].slack_channel_id == "C1" and posted[0].blocks == MESSAGE.blocks()


@pytest.mark.parametrize(
    ("statuses", "worked", "requests"),
    [((503, 200), True, 2), ((500, 502, 429), False, 3), ((404,), False, 1), ((302,), False, 1)],
)
def test_it_is_tried_again_where_that_helps(statuses, worked, requests):
    with receiving(*statuses) as server:
        (told,) = tell(MESSAGE, [webhook(server.url)], pause=0.001)
    assert (told.worked, len(server.got)) == (worked, requests)
    assert worked or str(statuses[-1]) in told.why


def test_a_failure_tells_no_secret_and_the_others_are_told(monkeypatch, caplog):
    monkeypatch.setenv(SLACK.url_variable, f"http://127.0.0.1:1/{SECRET}")
    monkeypatch.delenv("NOT_SET", raising=False)
    given = [SLACK, webhook("http://127.0.0.1:1/", token_variable="NOT_SET")]
    with caplog.at_level(logging.DEBUG), receiving() as server:
        told = tell(MESSAGE, [*given, webhook(server.url)], pause=0.001)
    assert [each.worked for each in told] == [False, False, True]
    assert SECRET not in "".join(f"{each}" for each in told)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("tamis")]
    assert len(ours) == 2 and not any(SECRET in line for line in ours)


def test_nobody_named_nothing_set(monkeypatch):
    monkeypatch.delenv(SLACK.url_variable, raising=False)
    assert tell(MESSAGE, []) == ()
    (told,) = tell(MESSAGE, [SLACK])
    assert (told.worked, SLACK.url_variable in told.why) == (False, True)


def test_a_receiver_that_never_answers_is_given_up(monkeypatch):
    import socket

    monkeypatch.setattr(channels, "SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        (told,) = tell(MESSAGE, [webhook(url)], pause=0.001)
    assert (told.worked, told.why) == (False, "failed with ReadTimeout")


def test_a_long_message_is_cut():
    long = Message(title="t" * 500, task="toy", severity="ok", lines=("line",) * 500)
    assert len(long.shown()) == 21 and long.shown()[-1] == "and 480 more"
    assert len(long.blocks()[0]["text"]["text"]) == 150
