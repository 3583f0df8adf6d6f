import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import requests

from tests.vertex import services as module
from tests.vertex.services import ROOT, Started, guarded, services

pytestmark = pytest.mark.pipeline

ZENML = """
import json
from zenml.client import Client
from zenml.enums import StackComponentType
from zenml.stack import StackComponent
client = Client()
made = client.create_stack_component(
    "bucket", "gcp", StackComponentType.ARTIFACT_STORE, {"path": "gs://tamis-test/zenml"}
)
store = StackComponent.from_model(made)
with store.open("gs://tamis-test/zenml/x", "w") as file:
    file.write("kept")
with store.open("gs://tamis-test/zenml/x") as file:
    text = file.read()
stacks = [stack.name for stack in client.list_stacks()]
print(json.dumps([client.active_user.name, client.zen_store.type, stacks, text]))
"""
MLFLOW = """
import json, sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("trial")
with mlflow.start_run() as run:
    mlflow.log_text("kept", "folder/file.txt")
address = run.info.artifact_uri + "/folder"
client = mlflow.MlflowClient()
client.create_registered_model("model")
version = client.create_model_version("model", address, run.info.run_id).version
client.set_registered_model_alias("model", "champion", version)
found = client.get_model_version_by_alias("model", "champion")
text = mlflow.artifacts.load_text(found.source + "/file.txt")
import gcsfs
print(json.dumps([found.version, text, gcsfs.GCSFileSystem().find("tamis-test/mlflow")]))
"""
STORAGE = """
import json
import gcsfs, pandas
import pyarrow as pa, pyarrow.parquet as pq
files = gcsfs.GCSFileSystem()
refused = []
def create(content):
    try:
        files.pipe_file("tamis-test/trial/once", content, mode="create")
    except FileExistsError:
        refused.append(content.decode())
create(b"first")
create(b"second")
big = bytes(range(256)) * 80_000
files.pipe_file("tamis-test/trial/big", big)
files.mv("tamis-test/trial/big", "tamis-test/trial/moved")
part = files.cat_file("tamis-test/trial/moved", start=20_000_000, end=20_000_300)
pq.write_table(pa.table({"x": range(1000)}), "tamis-test/trial/t.parquet", filesystem=files)
rows = [
    pq.read_table("tamis-test/trial/t.parquet", filesystem=files).num_rows,
    len(pandas.read_parquet("gs://tamis-test/trial/t.parquet")),
]
before = files.find("tamis-test/trial")
once = files.cat_file("tamis-test/trial/once").decode()
files.rm("tamis-test/trial", recursive=True)
files.invalidate_cache()
same = part == big[20_000_000:20_000_300]
print(json.dumps([refused, once, same, rows, before, files.find("tamis-test/trial")]))
"""


SENDER = """
import json, socket, sys, time
import grpc
from google.cloud.aiplatform.utils.resource_manager_utils import get_project_number
began, failed = time.monotonic(), []
def fails(call):
    try:
        call()
    except OSError as error:
        failed.append(type(error).__name__)
fails(lambda: socket.getaddrinfo("example.com", 80))
fails(lambda: socket.gethostbyname("127.example.com"))
fails(lambda: socket.socket().connect(("203.0.113.1", 80)))
fails(lambda: socket.socket().connect(("names.example.com", 80)))
fails(lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("203.0.113.2", 53)))
channel = grpc.secure_channel("grpc.example.com:443", grpc.ssl_channel_credentials())
fails(lambda: channel.unary_unary("/service/call")(b""))
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(("localhost", server.getsockname()[1])).close()
print(json.dumps([failed, time.monotonic() - began, get_project_number("demo-project")]))
"""
STEP = """
import json, os
os.makedirs("/app", exist_ok=True)
os.chdir("/app")
first = os.getcwd()
os.makedirs(os.environ["BELOW"], exist_ok=True)
os.chdir(os.environ["BELOW"])
print(json.dumps([first, os.getcwd(), os.environ.get("OTHER")]))
"""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""
PARENT = """
import sys, time
from pathlib import Path
from tests.vertex.services import Started
started = Started(Path(sys.argv[1]))
started.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], {})
print("ready", flush=True)
time.sleep(600)
"""


def below(pid=None):
    return set(psutil.Process(pid).children(recursive=True))


def gone(processes):
    """Whether all have ended; one that waits for its new parent to ask for its status has."""
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            continue
    return True


def soon(holds):
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def client(folder, program, environment, *arguments):
    path = folder / "program.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path), *arguments],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    others = below()
    with services(tmp_path_factory.mktemp("services") / "run") as found:
        ours = below() - others
        assert len(ours) >= 5
        yield found
        # The servers are guarded too, and so is every client of these tests.
        assert found.blocked.read_text() == ""
    assert gone(ours)


def test_every_service_answers_and_keeps_a_log(running):
    urls = [f"{running.zenml_url}/health", f"{running.mlflow_url}/health"]
    urls += [running.storage_url, f"{running.vertex_url}/healthz"]
    assert [requests.get(url, timeout=5).status_code for url in urls] == [200] * 4
    names = sorted(path.name for path in (running.folder / "logs").iterdir())
    assert names == ["mlflow.log", "storage.log", "vertex.log", "zenml.log"]


def test_tasks_get_the_services_and_no_key_of_the_client(running):
    tasks = json.loads((running.folder / "tasks.json").read_text())
    ours = running.environment()
    assert ours["ZENML_STORE_API_KEY"] == running.zenml_key
    assert running.zenml_key not in str(tasks)
    assert {name: ours[name] for name in tasks if name != "PYTHONPATH"} == {
        name: value for name, value in tasks.items() if name != "PYTHONPATH"
    }
    assert set(ours) - set(tasks) == {"ZENML_STORE_API_KEY", "ZENML_CONFIG_PATH"}
    account = json.loads(running.credentials.read_text())
    assert account["token_uri"] == f"{running.vertex_url}/token"


def test_a_client_keeps_the_python_path_that_is_there(running, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"one{os.pathsep}two")
    assert running.environment()["PYTHONPATH"].split(os.pathsep)[1:] == ["one", "two"]


def test_a_zenml_client_reads_and_writes_the_server_and_the_bucket(running, tmp_path):
    found = client(tmp_path, ZENML, running.environment())
    assert found == ["tamis-test", "rest", ["default"], "kept"]


def test_mlflow_keeps_artifacts_in_the_bucket_and_aliases_versions(running, tmp_path):
    version, text, files = client(tmp_path, MLFLOW, running.environment(), running.mlflow_url)
    assert (version, text) == ("1", "kept")
    assert [name.rpartition("/artifacts/")[2] for name in files] == ["folder/file.txt"]


def test_the_bucket_is_read_and_written_and_creates_a_file_once(running, tmp_path):
    refused, once, same, rows, before, after = client(tmp_path, STORAGE, running.environment())
    assert (refused, once, same, rows) == (["second"], "first", True, [1000, 1000])
    assert before == [f"tamis-test/trial/{name}" for name in ("moved", "once", "t.parquet")]
    assert after == []


def test_what_would_leave_fails_at_once_and_is_recorded(tmp_path):
    failed, seconds, number = client(tmp_path, SENDER, guarded(tmp_path))
    assert failed == ["gaierror"] * 2 + ["OSError"] * 4
    assert seconds < 5
    assert number == "123456789012"
    lines = [line.split("\t") for line in (tmp_path / "blocked.tsv").read_text().splitlines()]
    hosts = ["example.com", "127.example.com", "203.0.113.1", "names.example.com"]
    assert [host for host, _ in lines] == [*hosts, "203.0.113.2", "grpc.example.com"]
    assert all("program.py" in program for _, program in lines)


def test_the_guard_moves_app_and_hides_no_other_sitecustomize(tmp_path):
    work, other = tmp_path / "work", tmp_path / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("import os; os.environ['OTHER'] = 'ran'")
    environment = guarded(tmp_path) | {"STANDIN_WORKDIR": str(work), "BELOW": str(tmp_path / "app")}
    environment["PYTHONPATH"] += os.pathsep + str(other)
    assert client(tmp_path, STEP, environment) == [str(work), str(tmp_path / "app"), "ran"]


@pytest.fixture
def cheap(tmp_path, monkeypatch):
    """A folder for services with quick ones in place of ZenML and MLflow."""
    (tmp_path / "health").touch()

    def quick(name):
        def start(started, running):
            port = getattr(running, f"{name}_url").rpartition(":")[2]
            command = [sys.executable, "-m", "http.server", port, "--bind=127.0.0.1"]
            started.start(name, [*command, f"--directory={tmp_path}"], guarded(running.folder))

        return start

    monkeypatch.setattr(module, "start_zenml", quick("zenml"))
    monkeypatch.setattr(module, "start_mlflow", quick("mlflow"))
    monkeypatch.setattr(module, "make_key", lambda url: "key")
    return tmp_path / "run"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_inside_ends_every_process(cheap, error):
    others, ours = below(), set()
    with pytest.raises(error), services(cheap, standin=False) as found:
        ours = below() - others
        assert found.vertex_url == ""
        raise error
    assert len(ours) == 4
    assert gone(ours)


def test_a_token_is_handed_out_without_the_stand_in(cheap):
    with services(cheap, standin=False) as found:
        address = json.loads(found.credentials.read_text())["token_uri"]
        assert address.startswith(found.storage_url)
        assert requests.post(address, data={"a": "b"}, timeout=5).json()["access_token"]


def test_a_service_that_does_not_start_is_named_with_the_end_of_its_log(cheap, monkeypatch):
    def broken(started, running):
        command = [sys.executable, "-c", "raise SystemExit('no such database')"]
        started.start("mlflow", command, guarded(running.folder))

    monkeypatch.setattr(module, "start_mlflow", broken)
    others = below()
    with (
        pytest.raises(RuntimeError, match=r"(?s)mlflow: ended before.*no such database"),
        services(cheap, standin=False),
    ):
        pytest.fail("it started")
    assert gone(below() - others)


def test_what_ignores_the_signal_is_killed_with_all_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ENDING_SECONDS", 0.5)
    others = below()
    started = Started(tmp_path)
    started.start("stubborn", [sys.executable, "-c", STUBBORN], guarded(tmp_path))
    soon(lambda: "ready" in (tmp_path / "logs" / "stubborn.log").read_text())
    ours = below() - others
    assert len(ours) == 3
    started.end()
    assert gone(ours)


def test_nothing_outlives_a_killed_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout.readline() == "ready\n"
        ours = below(parent.pid)
        assert len(ours) == 2
        parent.kill()
    soon(lambda: gone(ours))
