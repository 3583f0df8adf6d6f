"""Containers: the compose file, nginx as it really runs, and that each mistake is found."""

import http.client
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from deployment.lint.containers import (
    compose_findings,
    compose_schema_findings,
    configuration_findings,
    dockerfile_findings,
    dockerfiles,
)
from deployment.lint.tools import NotInstalled
from deployment.serving import environment
from tamis.serving.settings import RequestLimits

PROJECT = Path(__file__).resolve().parents[3]
COMPOSE = "deployment/docker-compose.yml"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((PROJECT / COMPOSE).read_text())


def test_nothing_is_wrong_with_it():
    assert list(compose_findings(PROJECT)) == []
    assert list(configuration_findings(PROJECT)) == []


def test_it_is_a_compose_file():
    try:
        assert list(compose_schema_findings(PROJECT)) == []
    except NotInstalled as reason:
        pytest.skip(str(reason))


def test_services_are_all_there(compose):
    assert set(compose["services"]) == {
        "serving", "nginx", "mlflow", "prometheus", "alertmanager", "grafana",
    }  # fmt: skip


def test_the_service_reaches_nothing_and_only_nginx_is_before_it(compose):
    assert compose["services"]["serving"]["networks"] == ["serving"]
    assert compose["networks"]["serving"]["internal"] is True
    assert "ports" not in compose["services"]["serving"]


def test_the_service_is_told_what_it_reads(compose):
    given = compose["services"]["serving"]["environment"]
    assert set(given) == {environment.KEYS_FILE, environment.LOG}
    assert given[environment.KEYS_FILE] == "/run/secrets/keys"
    mounts = [volume["target"] for volume in compose["services"]["serving"]["volumes"]]
    assert any(given[environment.LOG].startswith(f"{mount}/") for mount in mounts)


def test_prometheus_asks_the_service_and_alertmanager(compose):
    config = yaml.safe_load(
        (PROJECT / "deployment/monitoring/prometheus/prometheus.yml").read_text()
    )
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    asked = jobs["tamis"]["dns_sd_configs"][0]
    assert (asked["names"], asked["port"]) == (["serving"], 3000)
    assert jobs["tamis"]["metrics_path"] == "/metrics"
    told = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert told == ["alertmanager:9093"]
    reached = set(compose["services"]["prometheus"]["networks"])
    for other in ("serving", "alertmanager", "grafana"):
        assert reached & set(compose["services"][other]["networks"])


SPOILT = {
    "an image by its name alone": ("prom/prometheus:v3.5.0@sha256:", "prom/prometheus:v3.5.0 #",
                                   "prometheus: image"),
    "a port for everybody": ('["127.0.0.1:9090:9090"]', '["9090:9090"]', "open to every machine"),
    "root": ('user: "10001:10001"', 'user: "0:0"', "serving: it runs as root"),
    "a file that can be written": ("  read_only: true\n", "", "read_only is not true"),
    "rights": ('security_opt: ["no-new-privileges:true"]', "x-s: 1", "no-new-privileges"),
    "capabilities": ("cap_drop: [ALL]", "cap_drop: [CHOWN]", "capabilities"),
    "no check of its health": ("    healthcheck:\n      test: [CMD, wget, -q, -O, /dev/null, "
                               '"http://127.0.0.1:9093', "    x-healthcheck:\n      test: [CMD, "
                               'wget, "http://127.0.0.1:9093', "alertmanager: no healthcheck"),
    "a mount that is not there": ("./monitoring/grafana", "./monitoring/graphana", "is not there"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", SPOILT)
def test_a_mistake_is_found(mistake, copy, spoil):
    old, new, told = SPOILT[mistake]
    spoil(COMPOSE, old, new)
    found = list(compose_findings(copy))
    assert any(told in finding for finding in found), found


def test_an_unknown_key_is_found(copy, spoil):
    spoil(COMPOSE, "stop_grace_period:", "stop_grace_periode:")
    try:
        found = list(compose_schema_findings(copy))
    except NotInstalled as reason:
        pytest.skip(str(reason))
    assert any("stop_grace_periode" in finding for finding in found)


def test_every_dockerfile_is_linted(copy):
    named = {file.name for file in dockerfiles(copy)}
    assert {"Dockerfile", "serving.Dockerfile"} <= named
    (copy / "deployment/images/other.Dockerfile").write_text("FROM debian\nRUN cd /x && ls\n")
    try:
        found = list(dockerfile_findings(copy))
    except NotInstalled as reason:
        pytest.skip(str(reason))
    assert any("other.Dockerfile:1: DL3006" in finding for finding in found)


def test_images_agree(compose):
    """User, writable places and model of the image are those that the manifests count on."""
    image = (PROJECT / "deployment/images/serving.Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", image, re.MULTILINE)
    assert re.search(r"^EXPOSE 3000$", image, re.MULTILINE)
    assert compose["services"]["serving"]["user"] == "10001:10001"
    written = re.findall(r"(?:HOME|BENTOML_HOME)=(\S+)", image)
    assert written
    assert all(path == "/tmp" or path.startswith("/tmp/") for path in written)
    assert f"/app/{environment.BAKED.name}" == re.search(r"TAMIS_SERVE_MODEL=(\S+)", image).group(1)


class Upstream(http.server.BaseHTTPRequestHandler):
    """Says what reached it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer({"path": self.path, "bytes": len(body), "headers": dict(self.headers)})

    def do_GET(self):
        self.answer({"path": self.path, "headers": dict(self.headers)})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-ID", self.headers.get("X-Request-ID", "made-up-one"))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def eventually(found, seconds=30):
    """What is found at last; pauses only so as not to spin."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)
    return value


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(config, port):
    folder = config.parent
    command = [NGINX, "-p", folder, "-c", config, "-e", folder / "error.log", "-g", "daemon off;"]
    server = subprocess.Popen(command)
    try:
        eventually(lambda: server.poll() is not None or listens(port))
        assert server.poll() is None, (folder / "error.log").read_text()
        yield
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """Our nginx.conf under a real nginx, with the addresses of this machine."""
    if not NGINX:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    port = free_port()
    text = (PROJECT / "deployment/compose/nginx/nginx.conf").read_text()
    for old, new in {
        "serving:3000 resolve;": f"127.0.0.1:{upstream.server_port};",
        "    resolver 127.0.0.11 valid=5s;\n": "",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "/tmp/": f"{folder}/",
        "/dev/stdout": f"{folder}/access.log",
        "/dev/stderr": f"{folder}/error.log",
        "worker_processes auto": "worker_processes 1",
    }.items():
        assert old in text
        text = text.replace(old, new)
    config = folder / "nginx.conf"
    # Started by root, its workers would be nobody and could not write to this folder.
    config.write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
    try:
        with running(config, port):
            yield port, folder, upstream
    finally:
        upstream.shutdown()
        upstream.server_close()


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_nginx_passes_keys_and_request_ids_on(gateway):
    port, folder, _ = gateway
    given = {"Authorization": "Bearer tamis_abc", "X-Request-ID": "abcdefgh-1"}
    status, headers, body = ask(port, "POST", "/score", b'{"documents":[]}', **given)
    reached = json.loads(body)
    assert (status, reached["path"], reached["bytes"]) == (200, "/score", 16)
    assert reached["headers"]["Authorization"] == "Bearer tamis_abc"
    assert headers["X-Request-ID"] == "abcdefgh-1"
    log = folder / "access.log"
    assert eventually(lambda: "abcdefgh-1" in log.read_text())
    assert "tamis_abc" not in log.read_text()


def test_a_client_cannot_claim_another_address(gateway):
    port, _, _ = gateway
    _, _, body = ask(port, "GET", "/livez", **{"X-Forwarded-For": "6.6.6.6"})
    assert json.loads(body)["headers"]["X-Forwarded-For"] == "127.0.0.1"


def test_metrics_stay_inside(gateway):
    port, _, _ = gateway
    assert ask(port, "GET", "/metrics")[0] == 404
    assert ask(port, "GET", "/nginx-health")[0] == 204


def test_what_the_service_would_refuse_reaches_it_and_much_more_does_not(gateway):
    port, _, _ = gateway
    above = RequestLimits().body_bytes + 1_000
    assert json.loads(ask(port, "POST", "/score", b"x" * above)[2])["bytes"] == above
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("POST", "/score")
    connection.putheader("Content-Length", str(50 * 1024**2))
    connection.endheaders()
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    assert answer.status == 413
    assert told["error"]["code"] == "body_too_large"
    assert told["request_id"]


def test_a_stream_may_be_as_long_as_it_is(gateway):
    port, _, _ = gateway
    long = b"x" * (6 * 1024**2)
    assert json.loads(ask(port, "POST", "/score_stream", long)[2])["bytes"] == len(long)


def test_a_service_that_is_gone_is_a_503_in_the_services_words(gateway, tmp_path):
    _, folder, _ = gateway
    port, dead = free_port(), free_port()
    text = re.sub(r"listen 127\.0\.0\.1:\d+", f"listen 127.0.0.1:{port}",
                  (folder / "nginx.conf").read_text())  # fmt: skip
    text = re.sub(r"server 127\.0\.0\.1:\d+;", f"server 127.0.0.1:{dead};", text)
    config = tmp_path / "nginx.conf"
    config.write_text(text.replace(str(folder), str(tmp_path)))
    with running(config, port):
        status, headers, body = ask(port, "GET", "/livez")
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert json.loads(body)["error"]["code"] == "unavailable"
