"""Storage and the Vertex stand-in on loopback, and the stack files that lead to them."""

from itertools import count

import httpx
import pytest

from deployment.stacks import load_stack
from deployment.vertex.endpoints import Endpoints
from tests.deployment.endpoints.endpoint_stubs import SERVING, STACK
from tests.vertex.services import (
    Services,
    Started,
    free_ports,
    google,
    start_storage,
    start_vertex,
    write_credentials,
)

numbers = count()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Storage and the stand-in; Google's libraries of this process are led to them."""
    folder = tmp_path_factory.mktemp("services")
    started = Started(folder)
    storage, vertex = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    found = Services(
        folder=folder, zenml_url="", zenml_key="", mlflow_url="", storage_url=storage,
        vertex_url=vertex, bucket="gs://tamis-test", credentials=folder / "credentials.json",
        blocked=folder / "blocked.tsv",
    )  # fmt: skip
    try:
        write_credentials(found.credentials, f"{vertex}/token")
        start_storage(started, found)
        start_vertex(started, found)
        started.wait({"storage": storage, "vertex": f"{vertex}/healthz"})
        with pytest.MonkeyPatch.context() as patch:
            for name, value in google(found).items():
                patch.setenv(name, value)
            patch.setenv("NO_GCE_CHECK", "true")
            patch.setenv("NO_PROXY", "127.0.0.1,localhost")
            from gcsfs import GCSFileSystem
            from google.auth import credentials

            bounded = credentials.CredentialsWithRegionalAccessBoundary
            required = "_is_regional_access_boundary_lookup_required"
            patch.setattr(bounded, required, lambda _: False)
            GCSFileSystem.clear_instance_cache()  # they remember the address
            yield found
            GCSFileSystem.clear_instance_cache()
    finally:
        started.end()


@pytest.fixture
def stacks(running, tmp_path, monkeypatch):
    """Makes stack files."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    monkeypatch.setenv("TAMIS_STACKS", str(folder))
    (folder / "local.yaml").write_text("kind: local\n")

    def make(name="vertex", more=SERVING, vertex=running.vertex_url):
        (folder / f"{name}.yaml").write_text(STACK.format(vertex=vertex, more=more))
        return load_stack(name)

    return make


@pytest.fixture
def endpoints(stacks):
    return Endpoints(stacks())


@pytest.fixture
def task():
    """A task of its own for every test: what Vertex AI has is kept between them."""
    return f"task_{next(numbers)}"


@pytest.fixture
def api(running):
    """The stand-in, asked past the client."""
    with httpx.Client(
        base_url=f"{running.vertex_url}/v1/projects/demo-project/locations/us-central1",
        headers={"Authorization": "Bearer x"},
        trust_env=False,
    ) as client:
        yield client
