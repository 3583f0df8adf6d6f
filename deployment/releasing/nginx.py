"""The configuration of an nginx that splits requests between versions, as text.

Which version answers is decided by the request's id, so that a repeated request meets the same
one. A version that fails to answer loses no request: the stable one is asked instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from deployment.releasing.measured import FORMAT

SCORING = ("/score", "/predict")
"""Paths that are shared out and mirrored; everything else goes to the version in front."""
STATE = "/state"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_PROBLEMS = {
    400: ("bad_request", "the request cannot be read"),
    408: ("too_slow", "the request took too long to arrive"),
    413: ("body_too_large", "the body is larger than this service takes"),
    414: ("uri_too_long", "the address is longer than this service takes"),
    429: ("too_many_requests", "too many requests at a time"),
    494: ("headers_too_large", "the headers are larger than this service takes"),
    502: ("unavailable", "the service does not answer; try again"),
    503: ("busy", "the service is busy; try again"),
    504: ("too_slow", "the service did not answer in time"),
}


@dataclass(frozen=True)
class Front:
    """What does not change from one configuration to the next.

    Attributes:
        host: To listen on.
        port: To listen on.
        control: Port of this machine that tells which configuration is in force.
        user: That the workers run as; None where nginx was not started by root.
        connections: Most connections of one address.
        body_bytes: Largest body.
        seconds: How long a version may take to answer.
        body_seconds: How long a client may pause while it sends.
        shadow_seconds: How long a copy may take.
        drain_seconds: How long requests in flight may go on after a change.
    """

    host: str
    port: int
    control: int
    user: str | None = None
    connections: int = 512
    body_bytes: int = 4 * 1024**2
    seconds: float = 30.0
    body_seconds: float = 10.0
    shadow_seconds: float = 5.0
    drain_seconds: float = 60.0


@dataclass(frozen=True)
class Split:
    """Who gets what.

    Attributes:
        shares: Percent of each version.
        shadow: Version that gets copies.
        ports: Of each version.
        stable: Version that is asked where another fails.
        measured: Whether requests are noted.
    """

    shares: Mapping[str, int]
    shadow: str | None
    ports: Mapping[str, int]
    stable: str | None = None
    measured: bool = False

    @property
    def front(self) -> str:
        """The version with the largest share."""
        return max(self.shares, key=lambda name: (self.shares[name], name == self.stable, name))


def configuration(front: Front, split: Split, generation: int) -> str:
    """The whole of nginx.conf; paths in it are relative to nginx's prefix.

    Args:
        front: What does not change.
        split: Who gets what.
        generation: Number that tells this configuration from others.
    """
    state = json.dumps(
        {"generation": generation, "shares": dict(split.shares), "shadow": split.shadow}
    )
    log = "access_log requests.log tamis;" if split.measured else "access_log off;"
    lines = [
        f"user {front.user};" if front.user else "",
        "worker_processes auto;",
        "pid nginx.pid;",
        "error_log error.log warn;",
        f"worker_shutdown_timeout {max(1, round(front.drain_seconds))}s;",
        "events { worker_connections 4096; }",
        "http {",
        "server_tokens off;",
        "default_type application/octet-stream;",
        "access_log off;",
        *(f"{kind}_temp_path temp/{kind};"
          for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
        f"log_format tamis '{FORMAT}';",
        "map $http_x_request_id $tamis_id {",
        "default $request_id;",
        '"~^[A-Za-z0-9_-]{8,64}$" $http_x_request_id;',
        "}",
        *_arms(split),
        *_upstreams(split),
        "limit_conn_zone $binary_remote_addr zone=address:4m;",
        "limit_conn_status 429;",
        "server {",
        f"listen 127.0.0.1:{front.control};",
        f"location = {STATE} {{ default_type application/json; return 200 '{state}'; }}",
        "location / { return 404; }",
        "}",
        "server {",
        f"listen {front.host}:{front.port} backlog=1024;",
        *_limits(front),
        *_proxy(front),
        "location = /metrics { return 404; }",
        *(line for path in SCORING for line in _scoring(path, split, log)),
        "location = /score_stream {",
        # As it comes, so it cannot be sent twice: to the version in front only.
        "client_max_body_size 0;",
        "proxy_request_buffering off;",
        "proxy_buffering off;",
        "proxy_read_timeout 660s;",
        f"proxy_pass http://{_arm(split.front)};",
        "}",
        f"location / {{ proxy_pass http://{_arm(split.front)}; }}",
        *(_shadow(front, split.shadow, log) if split.shadow else []),
        *(line for status in _PROBLEMS for line in _problem(status)),
        "}",
        "}",
    ]  # fmt: skip
    return "\n".join(line for line in lines if line) + "\n"


def _arm(version: str) -> str:
    return f"arm_{version}"


def _arms(split: Split) -> list[str]:
    """The version of a request: the smaller share first, so that one that grows keeps its ids."""
    names = sorted(split.shares, key=lambda name: (split.shares[name], name))
    *others, last = names
    return [
        'split_clients "$tamis_id" $tamis_arm {',
        *(f"{split.shares[name]}% {_arm(name)};" for name in others),
        f"* {_arm(last)};",
        "}",
    ]


def _upstreams(split: Split) -> list[str]:
    lines: list[str] = []
    for name in split.shares:
        lines += [f"upstream {_arm(name)} {{"]
        backup = split.stable if split.stable not in (None, name) else None
        lines += [f"server 127.0.0.1:{split.ports[name]} max_fails=20 fail_timeout=2s;"]
        if backup in split.ports:
            lines += [f"server 127.0.0.1:{split.ports[str(backup)]} backup;"]
        # Below the time after which the service closes an idle connection by itself.
        lines += ["keepalive 32;", "keepalive_timeout 4s;", "}"]
    if split.shadow:
        port = split.ports[split.shadow]
        lines += ["upstream shadow {", f"server 127.0.0.1:{port};", "keepalive 16;",
                  "keepalive_timeout 4s;", "}"]  # fmt: skip
    return lines


def _limits(front: Front) -> list[str]:
    return [
        f"client_max_body_size {front.body_bytes};",
        # A body that fits into memory is never written to a file.
        f"client_body_buffer_size {front.body_bytes};",
        "client_header_timeout 10s;",
        f"client_body_timeout {_seconds(front.body_seconds)};",
        "send_timeout 30s;",
        "keepalive_timeout 75s;",
        "keepalive_requests 100000;",
        "large_client_header_buffers 4 8k;",
        "reset_timedout_connection on;",
        f"limit_conn address {front.connections};",
        "ignore_invalid_headers on;",
    ]


def _proxy(front: Front) -> list[str]:
    return [
        "proxy_http_version 1.1;",
        'proxy_set_header Connection "";',
        "proxy_set_header Host $host;",
        "proxy_set_header X-Request-ID $tamis_id;",
        'proxy_set_header X-Tamis-Shadow "";',
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Forwarded-Proto $scheme;",
        "proxy_connect_timeout 2s;",
        f"proxy_read_timeout {_seconds(front.seconds)};",
        "proxy_send_timeout 30s;",
        "proxy_max_temp_file_size 0;",
        "proxy_buffer_size 16k;",
        "proxy_buffers 16 64k;",
        "proxy_busy_buffers_size 128k;",
        # Scoring changes nothing, so asking the other version for it is safe.
        "proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504 "
        "non_idempotent;",
        "proxy_next_upstream_tries 2;",
        *(f"proxy_hide_header {name};" for name in _HEADERS),
        *(f"add_header {name} {value} always;" for name, value in _HEADERS.items()),
    ]


def _scoring(path: str, split: Split, log: str) -> list[str]:
    return [
        f"location = {path} {{",
        log,
        "mirror /tamis-shadow;" if split.shadow else "",
        "proxy_pass http://$tamis_arm;",
        "}",
    ]


def _shadow(front: Front, version: str, log: str) -> list[str]:
    """Where copies go; nobody waits for what comes back."""
    return [
        "location = /tamis-shadow {",
        "internal;",
        log,
        "log_subrequest on;",
        "proxy_http_version 1.1;",
        'proxy_set_header Connection "";',
        "proxy_set_header Host $host;",
        "proxy_set_header X-Request-ID $tamis_id;",
        "proxy_set_header X-Tamis-Shadow 1;",
        f"proxy_read_timeout {_seconds(front.shadow_seconds)};",
        f"proxy_send_timeout {_seconds(front.shadow_seconds)};",
        "proxy_next_upstream off;",
        "proxy_pass http://shadow$request_uri;",
        "}",
    ]


def _problem(status: int) -> list[str]:
    """Errors of nginx itself, in the words and the form of the service."""
    code, message = _PROBLEMS[status]
    body = json.dumps({"error": {"code": code, "message": message}, "request_id": "ID"})
    again = "add_header Retry-After 1 always;" if status in (429, 502, 503) else ""
    sent = 431 if status == 494 else status
    return [
        f"error_page {status} @problem_{status};",
        f"location @problem_{status} {{",
        "default_type application/json;",
        "add_header X-Request-ID $tamis_id always;",
        *(f"add_header {name} {value} always;" for name, value in _HEADERS.items()),
        again,
        f"return {sent} '{body.replace('ID', '$tamis_id')}';",
        "}",
    ]


def _seconds(value: float) -> str:
    return f"{max(1, round(value * 1_000))}ms"
