"""Starts a stand-in for tests and logs the real google-cloud-aiplatform client in to it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

PROJECT, NUMBER, LOCATION = "demo-project", "123456789012", "us-central1"
ROOT = Path(__file__).resolve().parents[3]
PARENT = f"projects/{NUMBER}/locations/{LOCATION}"


def until(true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return found


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class StandIn:
    """A stand-in process and what can be asked of it beside the client."""

    def __init__(self, folder, parallel=2):
        self.folder = folder / "standin"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        given = folder / "environment.json"
        given.write_text(json.dumps({"GIVEN": "by the stand-in", "SHARED": "stand-in"}))
        command = [sys.executable, "-m", "tests.vertex.standin", "--port", str(self.port)]
        command += ["--project", PROJECT, "--location", LOCATION, "--folder", str(self.folder)]
        command += ["--environment", str(given), "--parallel", str(parallel)]
        self.output = folder / "standin.log"
        with self.output.open("wb") as output:
            environment = os.environ | {"LEAKED": "from the stand-in's own environment"}
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, env=environment
            )
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": "Bearer x"})
        self.api = f"/v1/projects/{PROJECT}/locations/{LOCATION}"
        until(self.ready)

    def ready(self):
        assert self.process.poll() is None, self.output.read_text()
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def inside(self, job):
        return self.http.get(f"/standin/jobs/{job}").json()

    def task(self, job, task):
        return self.inside(job)["tasks"][task]

    def ended(self, job):
        return until(lambda: self.inside(job)["state"].endswith(("ED",)) and self.inside(job))

    def resource(self, path):
        return self.http.get(f"{self.api}/{path}").json()

    def end(self):
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        finally:
            self.process.kill()


@contextlib.contextmanager
def logged_in(standin, folder):
    """The real client, with a throw-away key whose tokens come from the stand-in."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = folder / "account.json"
    content = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": f"runner@{PROJECT}.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{standin.url}/token",
    }
    account.write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        patch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
        patch.setenv("NO_GCE_CHECK", "true")
        from google.auth import credentials
        from google.cloud import aiplatform
        from google.cloud.aiplatform.utils import gcs_utils, resource_manager_utils

        # All three would ask Google: where requests may go, the project's number, the bucket.
        bounded = credentials.CredentialsWithRegionalAccessBoundary
        required = "_is_regional_access_boundary_lookup_required"
        patch.setattr(bounded, required, lambda _: False)
        patch.setattr(resource_manager_utils, "get_project_number", lambda *_, **__: NUMBER)
        bucket = "create_gcs_bucket_for_pipeline_artifacts_if_it_does_not_exist"
        patch.setattr(gcs_utils, bucket, lambda *_, **__: None)
        config = aiplatform.initializer.global_config
        before = dict(vars(config))
        aiplatform.init(
            project=PROJECT,
            location=LOCATION,
            api_endpoint=standin.url,
            api_transport="rest",
        )
        yield aiplatform
        vars(config).clear()
        vars(config).update(before)


WRITE = """
import json, os, pathlib, sys
pathlib.Path("seen.json").write_text(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))
print("said", sys.argv[1:])
"""
FAIL = "import sys; print('no luck'); sys.exit(3)"
HANG = "import time; print('hangs', flush=True); time.sleep(600)"
DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
AGAIN = """
import os, pathlib, sys
mark = pathlib.Path(os.environ["STANDIN_WORKDIR"]).parent / "mark"
mark.exists() or (mark.touch(), sys.exit(1))
"""


def container(name, code, arguments=()):
    """A KFP component of this name that runs Python code."""
    from kfp import dsl

    def component():
        return dsl.ContainerSpec(
            image="demo/steps:1", command=["python", "-c", code], args=list(arguments)
        )

    component.__name__ = name
    return dsl.container_component(component)


def compiled(path, build, name="demo"):
    """The path of the compiled form of a pipeline."""
    from kfp import compiler, dsl

    compiler.Compiler().compile(dsl.pipeline(name=name)(build), str(path))
    return str(path)


def chain(**codes):
    """Tasks after one another, as a function to compile."""

    def build():
        last = None
        for name, code in codes.items():
            task = container(name, code, ["{{$.pipeline_job_name}}"])()
            task.set_caching_options(enable_caching=False)
            task.set_env_variable("TASK", f"{name} of {{{{$.pipeline_task_name}}}}")
            task.set_env_variable("SHARED", "specification")
            task.set_env_variable("API_TOKEN", "hush-hush")
            if last is not None:
                task.after(last)
            last = task

    return build


def states(job):
    """States of the tasks of a job, as the client shows them, by name."""
    return {task.task_name: task.state.name for task in job.task_details}
