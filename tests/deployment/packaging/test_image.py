"""The image of a service, as far as it can be judged without docker."""

import json
import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deployment.packaging.build import DOCKERFILE
from deployment.serving import environment as names
from deployment.serving.process import _QUIET
from deployment.stacks import PROJECT
from tests.deployment.test_images import SECRET

TEXT = DOCKERFILE.read_text()


def stages():
    lines = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    found, name = {}, ""
    for line in filter(str.strip, re.sub(r"\\\n", " ", lines).splitlines()):
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            name = rest.split(" AS ")[1]
            found[name] = []
        found[name].append((word, re.sub(r"\s+", " ", rest.strip())))
    return found


def given(stage, word):
    return [rest for found, rest in stages()[stage] if found == word]


def environment():
    return dict(re.findall(r'(\w+)=("[^"]*"|\S+)', " ".join(given("service", "ENV"))))


def test_it_starts_from_the_base_of_the_other_images():
    (base,) = given("base", "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64} AS base", base)
    assert f"FROM {base}" in (DOCKERFILE.parent / "Dockerfile").read_text()
    assert list(stages()) == ["base", "packages", "service"]
    assert base.split("@")[0] in " ".join(given("service", "LABEL"))


def test_the_service_runs_without_rights_and_nothing_is_installed_after_the_build():
    assert given("service", "USER") == ["10001:10001"]
    assert given("service", "RUN") == []
    assert all(copy.startswith("--from=packages ") for copy in given("service", "COPY"))
    assert not any("--chown" in copy for copy in given("service", "COPY")), "code belongs to root"


def test_only_the_lock_and_the_bento_are_copied():
    assert given("packages", "COPY") == ["*.lock ./", "bento/src /app"]
    assert not [rest for stage in stages() for word, rest in stages()[stage] if word == "ADD"]
    ignored = DOCKERFILE.with_name(f"{DOCKERFILE.name}.dockerignore").read_text().splitlines()
    assert [line for line in ignored if not line.startswith("#")] == ["*", "!*.lock", "!bento/src"]


def test_packages_are_wheels_of_the_lock_file_alone():
    install = given("packages", "RUN")[0]
    assert "--no-deps --only-binary=:all: --requirement requirements.lock" in install
    assert "pip --python /opt/venv/bin/python check" in install
    assert not re.search(r"curl |wget |git |apt-get", install)


def test_nothing_secret_is_in_it():
    for stage in stages():
        for word, rest in stages()[stage]:
            if word in ("ARG", "ENV", "COPY", "LABEL"):
                assert not SECRET.search(rest), rest


def test_the_environment_is_that_of_a_service_and_all_it_writes_is_below_tmp():
    told = environment()
    ours = {"PYTHONPATH": "/app", "TOKENIZERS_PARALLELISM": None}  # the last is set by the code
    for name, value in _QUIET.items():
        assert told.get(name) == ours.get(name, value), name
    assert told[names.MODEL] == f"/app/{names.BAKED.name}"
    assert told["HOME"].startswith("/tmp") and told["BENTOML_HOME"].startswith("/tmp")
    assert told["PYTHONDONTWRITEBYTECODE"] == "1"
    assert told["ORT_DISABLE_TELEMETRY"] == told["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("variables", "port"),
    [
        ({}, "3000"),
        ({"PORT": "8081"}, "8081"),
        ({"AIP_HTTP_PORT": "8080", "PORT": "8081"}, "8080"),
    ],
)
def test_the_command_listens_where_it_is_told(tmp_path, variables, port):
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    told = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TAMIS_SERVE_PROCESSES": "2"} | variables
    command = json.loads(given("service", "CMD")[0])
    done = subprocess.run(command, env=told, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "-m", "bentoml", "serve", "deployment.service:ScoreService", "--host", "0.0.0.0",
        "--port", port, "--api-workers", "2",
    ]  # fmt: skip


class Answers(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012
    status = 200

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
@pytest.mark.parametrize("variable", ["PORT", "AIP_HTTP_PORT"])
def test_the_health_check_asks_whether_it_is_ready(monkeypatch, status, healthy, variable):
    monkeypatch.setattr(Answers, "status", status)
    monkeypatch.setattr(Answers, "asked", [])
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        check = json.loads(given("service", "HEALTHCHECK")[0].partition("CMD ")[2])
        told = {"PATH": os.environ["PATH"], variable: str(server.server_port)}
        command = [sys.executable, *check[1:]]
        done = subprocess.run(command, env=told, capture_output=True, check=False, timeout=60)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (done.returncode == 0) is healthy
    assert Answers.asked == ["/readyz"]


def test_the_variant_of_torch_is_one_that_there_is(tmp_path):
    install = given("packages", "RUN")[0]
    case = re.search(r"if \[ -f torch.lock \].*?fi(?= &&)", install)[0]
    command = ["sh", "-c", case]
    told = {"VARIANT": "tpu", "PATH": "/usr/bin:/bin"}
    assert subprocess.run(command, cwd=tmp_path, env=told, check=False).returncode == 0
    (tmp_path / "torch.lock").write_text("torch==2.13.0\n")
    done = subprocess.run(command, cwd=tmp_path, env=told, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"cpu or gpu, not 'tpu'" in done.stderr


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).parent / "hadolint"
    found = str(hadolint) if hadolint.is_file() else shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed")
    files = sorted(str(file) for file in DOCKERFILE.parent.glob("*Dockerfile"))
    assert len(files) == 2
    done = subprocess.run([found, *files], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
