"""The ways to people. None of them ever stops what is told of: a failure is an answer, too.

Addresses come from the task file or the environment, redirects are not followed, and what is
told of a failure names the kind of error only, since addresses of incoming webhooks are secrets.
"""

from __future__ import annotations

import base64
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from deployment.alerting.message import Message
from tamis.monitoring.settings import Channel, SlackChannel, WebhookChannel

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("tamis.alerting")

SECONDS = 10.0
ATTEMPTS = 3
PAUSE = 1.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_LARGEST_ANSWER = 64 * 1024


class Delivery(NamedTuple):
    """What came of telling one channel.

    Attributes:
        channel: Which.
        worked: Whether it took the message.
        why: In a few words.
    """

    channel: str
    worked: bool
    why: str


class _Refused(Exception):
    """A receiver that answers, and not with yes."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answered {status}")
        self.again = status in _RETRIED


def tell(
    message: Message,
    channels: Sequence[Channel],
    alerter: Callable[[], Any] = lambda: None,
    pause: float = PAUSE,
) -> tuple[Delivery, ...]:
    """Tell every channel; raises nothing.

    Args:
        message: What.
        channels: Whom.
        alerter: Makes ZenML's alerter of the active stack; None where it has none.
        pause: Seconds before the second attempt; twice as long before each further one.
    """
    return tuple(_tell(message, channel, alerter, pause) for channel in channels)


def active_alerter() -> Any:
    """ZenML's alerter of the stack that is active in this session; None where it has none."""
    from zenml.client import Client

    return Client().active_stack.alerter


def _tell(message: Message, channel: Channel, alerter: Callable[[], Any], pause: float) -> Delivery:
    name: str = channel.kind
    try:
        if isinstance(channel, SlackChannel):
            return _slack(message, channel, alerter, pause)
        name = f"webhook {urlsplit(channel.url).hostname}"
        _webhook(message, channel, pause)
        return Delivery(name, True, "told")
    except _Refused as error:
        why = str(error)
    except Exception as error:
        why = f"failed with {type(error).__name__}"
    logger.warning("%s was not told: %s", name, why)
    return Delivery(name, False, why)


def _slack(
    message: Message, channel: SlackChannel, alerter: Callable[[], Any], pause: float
) -> Delivery:
    found = alerter()
    if found is not None:
        worked = bool(_again(lambda: _post(found, message, channel), pause))
        return Delivery("slack by ZenML", worked, "told" if worked else "ZenML's alerter said no")
    url = os.environ.get(channel.url_variable, "").strip()
    if not url:
        return Delivery("slack", False, f"no alerter in the stack, no {channel.url_variable}")
    body: dict[str, Any] = {"text": message.text()[:3_000], "blocks": message.blocks()}
    if channel.channel:
        body["channel"] = channel.channel
    _send(url, body, {}, pause)
    return Delivery("slack", True, "told")


def _post(alerter: Any, message: Message, channel: SlackChannel) -> bool:
    """Through ZenML: with blocks where the alerter is Slack's, else as text."""
    if getattr(alerter, "flavor", "") != "slack":
        return bool(alerter.post(message.text()))
    from zenml.integrations.slack.alerters.slack_alerter import SlackAlerterParameters

    given = {"slack_channel_id": channel.channel} if channel.channel else {}
    params = SlackAlerterParameters(blocks=message.blocks(), **given)
    return bool(alerter.post(message.title, params))


def _webhook(message: Message, channel: WebhookChannel, pause: float) -> None:
    headers = {}
    if channel.token_variable is not None:
        token = os.environ.get(channel.token_variable, "").strip()
        if not token:
            raise LookupError
        headers["Authorization"] = f"Bearer {token}"
    picture = message.picture
    body = {
        "title": message.title,
        "task": message.task,
        "severity": message.severity,
        "lines": list(message.shown()),
        "command": message.command,
        "report": message.report,
        "picture_png": None if picture is None else base64.b64encode(picture).decode(),
        "text": message.text(),
    }
    _send(channel.url, body, headers, pause)


def _send(url: str, body: dict[str, Any], headers: dict[str, str], pause: float) -> None:
    """Post a JSON object.

    Raises:
        _Refused: The answer is not a 2xx.
        Exception: There is no answer.
    """
    import httpx

    def once() -> None:
        with (
            httpx.Client(timeout=SECONDS, follow_redirects=False) as client,
            client.stream("POST", url, json=body, headers=headers) as answer,
        ):
            _drain(answer)
            if not answer.is_success:
                raise _Refused(answer.status_code)

    _again(once, pause)


def _drain(answer: httpx.Response) -> None:
    """Read an answer, but not without end."""
    read, until = 0, time.monotonic() + SECONDS
    for chunk in answer.iter_raw():
        read += len(chunk)
        if read > _LARGEST_ANSWER or time.monotonic() > until:
            return


def _again(once: Callable[[], Any], pause: float) -> Any:
    """Try a few times; what will not get better is not tried again."""
    import httpx
    import tenacity

    def better(error: BaseException) -> bool:
        if isinstance(error, _Refused):
            return error.again
        return isinstance(error, httpx.TransportError | OSError)

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(multiplier=pause, min=pause),
        retry=tenacity.retry_if_exception(better),
        reraise=True,
    )(once)
