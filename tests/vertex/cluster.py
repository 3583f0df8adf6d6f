"""The services of the Vertex stack with a stack on them, and ``run.py`` as their client."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gcsfs

from tests.program import PROJECT, Outcome, run
from tests.vertex.services import Services, direct

STACK = """\
kind: vertex
project: demo-project
region: us-central1
bucket: {bucket}
registry: {registry}/demo-project/tamis
image: {registry}/demo-project/tamis/steps:1-cpu
gpu_image: {registry}/demo-project/tamis/steps:1-gpu
service_account: tamis-steps@demo-project.iam.gserviceaccount.com
zenml_server: {zenml}
mlflow: {{tracking_uri: "{mlflow}", secret: tamis_mlflow}}
network: projects/123456789012/global/networks/tamis
api_endpoint: {vertex}
labels: {{team: data}}
machines:
  cpu: {{cpu: 4, memory: 16GiB}}
  small_gpu: {{cpu: 8, memory: 32GiB, gpu: {{type: NVIDIA_TESLA_T4, count: 2}}}}
  gpu:
    machine_type: g2-standard-8
    gpu: {{type: NVIDIA_L4, count: 1}}
    spot: true
    boot_disk_gb: 200
steps: {{default: cpu, train: gpu, sift: gpu, evaluate: small_gpu, watch: small_gpu}}
retries: 1
scratch: {scratch}
"""


@dataclass(frozen=True)
class Cluster:
    """Running services, a registered stack called ``vertex``, a home folder."""

    services: Services
    folder: Path

    def environment(self):
        return {
            **self.services.environment(),
            "TAMIS_STACKS": str(self.folder / "stacks"),
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, *arguments) -> Outcome:
        """``run.py`` with ``--stack vertex``."""
        more = [] if arguments[0] == "stack" else ["--stack", "vertex"]
        wants_no_result = arguments[0] in ("runs", "logs", "stop", "schedule")
        home = self.folder / "home"
        if not wants_no_result:
            return run(home, *arguments, *more, **self.environment())
        done = subprocess.run(
            [*self.command(*arguments), *more], env=self.whole(), cwd=self.folder,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr, {})

    @contextmanager
    def started(self, *arguments):
        """``run.py`` in the background, with its output in a file; ended with the block."""
        path = self.folder / f"started-{time.monotonic_ns()}.log"
        with path.open("w") as log:
            process = subprocess.Popen(
                [*self.command(*arguments), "--stack", "vertex"],
                env=self.whole(), cwd=self.folder, stdout=log, stderr=subprocess.STDOUT,
                preexec_fn=heed_interrupts,
            )  # fmt: skip
        process.output = lambda: path.read_text(encoding="utf-8")
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def command(self, *arguments):
        return [sys.executable, str(PROJECT / "run.py"), *map(str, arguments)]

    def whole(self):
        home = {"TAMIS_HOME": str(self.folder / "home"), "COLUMNS": "200"}
        return {**os.environ, **home, **self.environment()}

    @property
    def bucket(self) -> gcsfs.GCSFileSystem:
        """The emulated bucket's file system."""
        return gcsfs.GCSFileSystem(
            endpoint_url=self.services.storage_url, token="anon", use_listings_cache=False
        )

    def put(self, path, text):
        self.bucket.pipe_file(f"tamis-test/{path}", text.encode())
        return f"gs://tamis-test/{path}"

    def vertex(self, method, path, **more):
        """A request to the stand-in."""
        answer = direct().request(
            method, f"{self.services.vertex_url}{path}", timeout=30,
            headers={"Authorization": "Bearer test"}, **more,
        )  # fmt: skip
        return answer

    def jobs(self):
        """Pipeline jobs on Vertex, newest first."""
        answer = self.vertex("GET", f"{API}/pipelineJobs")
        return sorted(
            answer.json().get("pipelineJobs", []), key=lambda job: job["createTime"], reverse=True
        )

    def inside(self, job):
        """What the stand-in knows of a job's tasks."""
        return self.vertex("GET", f"/standin/jobs/{id_of(job)}").json()

    def until(self, what, seconds=120.0):
        """The first true value of a function that is asked again and again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.3)
        raise AssertionError(f"not in {seconds} s")

    def zenml(self, code):
        """What a program prints last that asks the ZenML server, as JSON."""
        path = self.folder / "ask.py"
        path.write_text(f"import json\nfrom zenml.client import Client\n{code}\n")
        done = subprocess.run(
            [sys.executable, str(path)], env=self.whole(), cwd=self.folder,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])


def heed_interrupts():
    """As in a terminal, even where the tests run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


API = "/v1/projects/demo-project/locations/us-central1"


def id_of(job):
    return job["name"].rsplit("/", 1)[-1] if isinstance(job, dict) else job
