"""The services of the Vertex stack on loopback: ZenML, MLflow, storage and the Vertex stand-in.

``with services(folder) as running:`` starts each as a process of its own and ends them all; clients
run with ``{**os.environ, **running.environment()}``. Processes started so cannot reach anything but
loopback: see ``guard/sitecustomize.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import requests

PROJECT, PROJECT_NUMBER = "demo-project", "123456789012"
LOCATION, BUCKET = "us-central1", "tamis-test"
STARTING_SECONDS, ENDING_SECONDS, POLL_SECONDS = 300.0, 10.0, 0.1
ROOT = Path(__file__).resolve().parents[2]
GUARD = ROOT / "tests" / "vertex" / "guard"
SELF = [sys.executable, "-m", "tests.vertex.services"]
USER, PASSWORD = "admin", "throw-away-password"
PRIVATE = ("ZENML_", "MLFLOW_", "GOOGLE_", "STORAGE_", "CLOUD_", "CLOUDSDK_", "TAMIS_", "STANDIN_")


@dataclass(frozen=True)
class Services:
    """Where the running services are and what a client of them needs."""

    folder: Path
    zenml_url: str
    zenml_key: str
    mlflow_url: str
    storage_url: str
    vertex_url: str
    bucket: str
    credentials: Path
    blocked: Path

    def environment(self) -> dict[str, str]:
        """Variables of a client process, to be laid over those it has already."""
        paths = [str(GUARD), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return {
            **task_environment(self),
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "ZENML_STORE_API_KEY": self.zenml_key,
            "ZENML_CONFIG_PATH": str(self.folder / "client"),
        }


def task_environment(running: Services) -> dict[str, str]:
    """Variables of a task: a client's less what it gets from its spec, its home and its code."""
    address = {"ZENML_STORE_URL": running.zenml_url}
    return {**guarded(running.folder), **google(running), **address}


def google(running: Services) -> dict[str, str]:
    """Variables that lead clients of Google Cloud to the services."""
    return {
        "STORAGE_EMULATOR_HOST": running.storage_url,
        # Read by the client in C++ that pyarrow, and pandas through it, use for gs:// addresses.
        "CLOUD_STORAGE_EMULATOR_ENDPOINT": running.storage_url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(running.credentials),
        "GOOGLE_CLOUD_PROJECT": PROJECT,
    }


def guarded(folder: Path) -> dict[str, str]:
    """Variables of any process: the guard, no proxies, no telemetry, no waiting for a network."""
    return {
        "PYTHONPATH": str(GUARD),
        "TAMIS_GUARD_LOG": str(folder / "blocked.tsv"),
        "NO_GCE_CHECK": "true",
        "GOOGLE_API_USE_CLIENT_CERTIFICATE": "false",
        # What the guard does not see of gRPC ends at a proxy that nobody serves.
        "grpc_proxy": "http://127.0.0.1:9",
        **dict.fromkeys(("no_grpc_proxy", "NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), ""),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_COLORS_DISABLED": "true",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_DISABLE_INTERACTIVE_INPUT": "true",
        "AUTO_OPEN_DASHBOARD": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GIT_PYTHON_REFRESH": "quiet",
    }


class Started:
    """The processes of the services, ended with the ``with`` or with the process that began it."""

    def __init__(self, folder: Path) -> None:
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._watchdog = subprocess.Popen(
            [*SELF, "watch"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Start one service in a session of its own, with its output in its log."""
        with (self._logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[name] = process
        self._watchdog.stdin.write(f"{process.pid}\n".encode())
        self._watchdog.stdin.flush()

    def wait(self, addresses: dict[str, str]) -> None:
        """Return when every address answers 200.

        Raises:
            RuntimeError: If a service ends before or does not answer in time, with its log's end.
        """
        limit = time.monotonic() + STARTING_SECONDS
        left = dict(addresses)
        while left:
            for name in list(left):
                if answers(left[name]):
                    del left[name]
                elif self._running[name].poll() is not None:
                    raise RuntimeError(self._say(name, "ended before it answered"))
                elif time.monotonic() > limit:
                    raise RuntimeError(self._say(name, f"no answer in {STARTING_SECONDS:.0f} s"))
            time.sleep(POLL_SECONDS if left else 0)

    def _say(self, name: str, what: str) -> str:
        tail = (self._logs / f"{name}.log").read_text(errors="replace")[-4000:]
        return f"{name}: {what}. The end of its log:\n{tail}"

    def end(self) -> None:
        """End every service and all that they started, then the watchdog."""
        end_all([process.pid for process in self._running.values()])
        for process in self._running.values():
            process.wait()
        self._watchdog.communicate(b"done\n")


def end_all(pids: list[int]) -> None:
    """SIGTERM to the groups; after ten seconds SIGKILL to what is left, descendants included."""
    everyone: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            everyone += [process, *process.children(recursive=True)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
    _, left = psutil.wait_procs(everyone, timeout=ENDING_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=ENDING_SECONDS)


def watch() -> None:
    """Read process ids from stdin; when whoever wrote them is gone, end what they left."""
    lines = sys.stdin.read().splitlines()
    if "done" not in lines:
        end_all([int(line) for line in lines])


def answers(url: str) -> bool:
    """Whether the address answers 200 within two seconds."""
    with contextlib.suppress(requests.RequestException):
        return direct().get(url, timeout=2).status_code == 200
    return False


def direct() -> requests.Session:
    """A session that asks no proxy."""
    session = requests.Session()
    session.trust_env = False
    return session


def free_ports(count: int) -> list[int]:
    """Different free ports of loopback."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def write_credentials(path: Path, token_uri: str) -> None:
    """Write a service account that nobody knows, with a key made here."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoded = key.private_bytes(pem, form, serialization.NoEncryption())
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "throw-away",
        "private_key": encoded.decode(),
        "client_email": f"tamis-test@{PROJECT}.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }
    path.write_text(json.dumps(account))
    path.chmod(0o600)


def make_key(url: str) -> str:
    """Log in to the ZenML server and make an API key of a new service account."""
    session = direct()

    def post(path: str, **arguments: Any) -> Any:
        answer = session.post(f"{url}/api/v1/{path}", timeout=30, **arguments)
        answer.raise_for_status()
        return answer.json()

    token = post("login", data={"username": USER, "password": PASSWORD})["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    account = post("service_accounts", json={"name": "tamis-test", "active": True})["id"]
    return post(f"service_accounts/{account}/api_keys", json={"name": "tamis-test"})["body"]["key"]


def base(folder: Path) -> dict[str, str]:
    """The environment of a service: what is here without settings of clients, and the guard's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}
    return {**kept, **guarded(folder)}


@contextlib.contextmanager
def services(folder: Path, standin: bool = True) -> Iterator[Services]:
    """Start ZenML, MLflow, storage and the stand-in below ``folder``; end all on the way out.

    Args:
        folder: Made if need be; must not have been used before.
        standin: Whether Vertex is answered too; else ``vertex_url`` is empty.

    Raises:
        RuntimeError: If a service does not answer in 120 seconds, with the end of its log.
    """
    folder = folder.resolve()
    started = Started(folder)
    try:
        urls = [f"http://127.0.0.1:{port}" for port in free_ports(4)]
        zenml, mlflow, storage, vertex = urls if standin else [*urls[:3], ""]
        running = Services(
            folder=folder,
            zenml_url=zenml,
            zenml_key="",
            mlflow_url=mlflow,
            storage_url=storage,
            vertex_url=vertex,
            bucket=f"gs://{BUCKET}",
            credentials=folder / "credentials.json",
            blocked=folder / "blocked.tsv",
        )
        running.blocked.touch()
        write_credentials(running.credentials, f"{vertex or storage}/token")
        start_zenml(started, running)
        start_mlflow(started, running)
        start_storage(started, running)
        addresses = {"zenml": f"{zenml}/health", "mlflow": f"{mlflow}/health", "storage": storage}
        if vertex:
            start_vertex(started, running)
            addresses["vertex"] = f"{vertex}/healthz"
        started.wait(addresses)
        yield replace(running, zenml_key=make_key(zenml))
    finally:
        started.end()


def start_zenml(started: Started, running: Services) -> None:
    """Start the server of ZenML on an empty database."""
    port = running.zenml_url.rpartition(":")[2]
    own = {
        "ZENML_SERVER": "true",
        "ZENML_CONFIG_PATH": str(running.folder / "zenml"),
        "ZENML_SERVER_AUTO_ACTIVATE": "1",
        "ZENML_DEFAULT_USER_NAME": USER,
        "ZENML_DEFAULT_USER_PASSWORD": PASSWORD,
    }
    command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app"]
    # uvloop looks names up in C, unseen by the guard.
    command += ["--host=127.0.0.1", f"--port={port}", "--loop=asyncio", "--log-level=warning"]
    started.start("zenml", command, {**base(running.folder), **own})


def start_mlflow(started: Started, running: Services) -> None:
    """Start MLflow's server, which keeps artifacts in the bucket as in production."""
    folder = running.folder / "mlflow"
    folder.mkdir()
    own = {**google(running), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", "--workers=1"]
    command += [f"--port={running.mlflow_url.rpartition(':')[2]}"]
    command += [f"--backend-store-uri=sqlite:///{folder}/mlflow.db"]
    command += [f"--artifacts-destination=gs://{BUCKET}/mlflow"]
    command += ["--uvicorn-opts=--loop=asyncio --log-level=warning"]
    started.start("mlflow", command, {**base(running.folder), **own})


def start_storage(started: Started, running: Services) -> None:
    """Start the emulator of Google Cloud Storage, in memory, with the bucket."""
    port = running.storage_url.rpartition(":")[2]
    started.start("storage", [*SELF, "storage", port], base(running.folder))


def start_vertex(started: Started, running: Services) -> None:
    """Start the stand-in, whose tasks get the environment of a task."""
    port = running.vertex_url.rpartition(":")[2]
    given = running.folder / "tasks.json"
    given.write_text(json.dumps(task_environment(running), indent=1))
    command = [sys.executable, "-m", "tests.vertex.standin", f"--port={port}"]
    command += [f"--project={PROJECT}", f"--location={LOCATION}"]
    command += [f"--folder={running.folder / 'vertex'}", f"--environment={given}"]
    started.start("vertex", command, base(running.folder))


def serve_storage(port: int) -> None:
    """Serve gcp-storage-emulator and what it lacks: ``ifGenerationMatch``, which 412 answers.

    It also hands out tokens where no stand-in does, and no longer writes a list of all objects at
    each change, which made 1,200 deletions take 45 seconds.
    """
    import logging

    from gcp_storage_emulator import server as emulator
    from gcp_storage_emulator.storage import Storage

    class Unmatched(Exception):
        pass

    class Matching(Storage):
        wanted: str | None = None

        def __init__(self, *rest: Any, **more: Any) -> None:
            super().__init__(*rest, **more)
            self.project_number = PROJECT_NUMBER

        def create_file(self, bucket_name: str, file_name: str, *rest: Any) -> None:
            known = self.objects.get(bucket_name, {}).get(file_name, {"generation": "0"})
            if self.wanted not in (None, known["generation"]):
                raise Unmatched
            super().create_file(bucket_name, file_name, *rest)

        def _write_config_to_file(self) -> None:
            pass

    class Handler(emulator.RequestHandler):
        def _match(self, handle: Callable[[], None]) -> None:
            # One request at a time: the emulator has one thread.
            query = parse_qs(urlsplit(self.path).query)
            self.storage.wanted = query.get("ifGenerationMatch", [None])[0]
            try:
                handle()
            except Unmatched:
                self.send_error(412)

        def do_POST(self) -> None:
            if self.path == "/token":
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                token = emulator.Response(self)
                token.json({"access_token": "none", "token_type": "Bearer", "expires_in": 3600})
                token.close()
            else:
                self._match(super().do_POST)

        def do_PUT(self) -> None:
            self._match(super().do_PUT)

    emulator.Storage, emulator.RequestHandler = Matching, Handler
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET).run()


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch()
    else:
        serve_storage(int(sys.argv[2]))
