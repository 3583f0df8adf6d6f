"""The configuration of Prometheus and Alertmanager for addresses of this machine.

Rules, routes and messages are those of the files here; only addresses, receivers and times differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tamis.errors import UsageError

FOLDER = Path(__file__).parent
WEBHOOK = "/alerts"
"""Route of the listener that Alertmanager calls."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(\d+)(ms|[smhdw])")
_RANGE = re.compile(r"(?<=[\[:])\d+(?:ms|[smhdw])(?=[\]:])")
_LEAST = 1.0
"""Seconds below which no window is made shorter."""


@dataclass(frozen=True)
class Intervals:
    """How often Prometheus and Alertmanager look.

    Attributes:
        scrape: Seconds between scrapes.
        evaluation: Seconds between evaluations of the rules.
        group_wait: Seconds that Alertmanager waits for more of a group; None: as its file says.
        speed: How many times shorter every window, ``for`` and repetition is than in the files: a
            test makes an hour a minute with 60.
    """

    scrape: float = 15.0
    evaluation: float = 15.0
    group_wait: float | None = None
    speed: float = 1.0


@dataclass(frozen=True)
class Email:
    """Where mail goes, and through which server."""

    to: str
    sender: str
    smarthost: str
    user: str = ""
    password_file: Path | None = None


@dataclass(frozen=True)
class Receivers:
    """Who is told of alerts; whoever is not named is not told. Secrets are files.

    Attributes:
        listener: Address of ``python run.py listen``.
        token_file: With the Bearer token that the listener asks for.
        slack_url_file: With the address of an incoming webhook.
        slack_channel: Of Slack.
        email: Of people, for what is critical.
    """

    listener: str | None = None
    token_file: Path | None = None
    slack_url_file: Path | None = None
    slack_channel: str = "#tamis"
    email: Email | None = None


def rule_files(intervals: Intervals) -> dict[str, str]:
    """Every file of rules by its name, with its times shortened."""
    found = {}
    for path in sorted((FOLDER / "prometheus" / "rules").glob("*.yml")):
        text = path.read_text("utf-8")
        if intervals.speed != 1.0:
            content = yaml.safe_load(text)
            for group in content["groups"]:
                for rule in group["rules"]:
                    rule["expr"] = _RANGE.sub(
                        lambda found: _shorter(found[0], intervals.speed), rule["expr"]
                    )
                    if "for" in rule:
                        rule["for"] = _shorter(rule["for"], intervals.speed, least=0.0)
            text = yaml.safe_dump(content, sort_keys=False, width=10_000)
        found[path.name] = text
    return found


def prometheus_config(
    services: Sequence[str], listener: str | None, own: str, alertmanager: str, times: Intervals
) -> str:
    """Prometheus' configuration.

    Args:
        services: Addresses of services.
        listener: Address of what runs the monitor.
        own: Prometheus' host and port.
        alertmanager: Alertmanager's.
        times: How often it looks.

    Raises:
        UsageError: An address is none.
    """
    config = _read("prometheus/prometheus.yml")
    scrape = _written(times.scrape)
    config["global"] |= {
        "scrape_interval": scrape,
        "scrape_timeout": _written(min(10.0, times.scrape)),
        "evaluation_interval": _written(times.evaluation),
    }
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    known = {
        "tamis": services,
        "tamis-monitor": [listener] if listener else [],
        "prometheus": [f"http://{own}"],
        "alertmanager": [f"http://{alertmanager}"],
    }
    config["scrape_configs"] = [
        _job(job["job_name"], known[job["job_name"]])
        for job in config["scrape_configs"]
        if known[job["job_name"]]
    ]
    return yaml.safe_dump(config, sort_keys=False)


def _job(name: str, addresses: Sequence[str]) -> dict[str, Any]:
    parts = [address_of(address) for address in addresses]
    scheme, prefix = parts[0][0], parts[0][2]
    if any((other[0], other[2]) != (scheme, prefix) for other in parts):
        raise UsageError(f"addresses of {name}: all have to begin alike, and end alike")
    return {
        "job_name": name,
        "scheme": scheme,
        "metrics_path": f"{prefix}/metrics",
        "static_configs": [{"targets": [host for _, host, _ in parts]}],
    }


def address_of(url: str) -> tuple[str, str, str]:
    """Scheme, host with port, and path of an address.

    Raises:
        UsageError: It is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    if port is None or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise UsageError(f"address: given {url!r}; allowed: such as http://127.0.0.1:3000")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{port}", parts.path.rstrip("/")


def alertmanager_config(receivers: Receivers, times: Intervals) -> str:
    """Alertmanager's configuration: the routes of its file, to the receivers that there are.

    Raises:
        UsageError: The listener is named without its token.
    """
    config = _read("alertmanager/alertmanager.yml")
    config["templates"] = [str(FOLDER / "alertmanager" / "templates" / "*.tmpl")]
    made = {"resolve_timeout": config["global"]["resolve_timeout"]}
    if receivers.slack_url_file is not None:
        made["slack_api_url_file"] = str(receivers.slack_url_file.absolute())
    if receivers.email is not None:
        made |= _smtp(receivers.email)
    config["global"] = made
    config["receivers"] = [_receiver(one, receivers) for one in config["receivers"]]
    _hurry(config["route"], times)
    return yaml.safe_dump(config, sort_keys=False)


def _smtp(email: Email) -> dict[str, Any]:
    found: dict[str, Any] = {"smtp_smarthost": email.smarthost, "smtp_from": email.sender}
    if email.user and email.password_file is not None:
        found["smtp_auth_username"] = email.user
        found["smtp_auth_password_file"] = str(email.password_file.absolute())
    return found


def _receiver(source: Mapping[str, Any], receivers: Receivers) -> dict[str, Any]:
    made: dict[str, Any] = {"name": source["name"]}
    if receivers.slack_url_file is not None and "slack_configs" in source:
        channel = {"channel": receivers.slack_channel}
        made["slack_configs"] = [one | channel for one in source["slack_configs"]]
    if receivers.email is not None and "email_configs" in source:
        to = {"to": receivers.email.to}
        made["email_configs"] = [one | to for one in source["email_configs"]]
    if receivers.listener is not None and "webhook_configs" in source:
        if receivers.token_file is None:
            raise UsageError("listener: it is called with a token; name the token's file, too")
        token = {"type": "Bearer", "credentials_file": str(receivers.token_file.absolute())}
        scheme, host, path = address_of(receivers.listener)
        made["webhook_configs"] = [
            one
            | {
                "url": f"{scheme}://{host}{path}{WEBHOOK}",
                "http_config": one["http_config"] | {"authorization": token},
            }
            for one in source["webhook_configs"]
        ]
    return made


def _hurry(route: dict[str, Any], times: Intervals) -> None:
    if times.group_wait is not None:
        route["group_wait"] = _written(times.group_wait)
    for key in ("group_interval", "repeat_interval"):
        if key in route and times.speed != 1.0:
            route[key] = _shorter(route[key], times.speed)
    for child in route.get("routes", ()):
        _hurry(child, times)


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text("utf-8"))
    return found


def _shorter(duration: str, speed: float, least: float = _LEAST) -> str:
    seconds = sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(duration))
    return _written(max(least, seconds / speed))


def _written(seconds: float) -> str:
    """A duration as Prometheus and Alertmanager read it."""
    return f"{round(seconds * 1000)}ms" if seconds else "0s"
