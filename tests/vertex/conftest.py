"""One set of services for all tests of the Vertex stack on a worker."""

import pyarrow.parquet as pq
import pytest

from tamis.corpus.sources import ingest_window
from tamis.task import load_task
from tests.program import run, small_task
from tests.vertex.cluster import STACK, Cluster
from tests.vertex.services import services


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vertex")
    with services(folder / "services") as running:
        stacks = folder / "stacks"
        stacks.mkdir()
        (stacks / "local.yaml").write_text("kind: local\n")
        (stacks / "vertex.yaml").write_text(
            STACK.format(
                bucket=running.bucket,
                zenml=running.zenml_url,
                mlflow=running.mlflow_url,
                vertex=running.vertex_url,
                registry=running.vertex_url.removeprefix("http://"),
                scratch=folder / "scratch",
            )
        )
        made = Cluster(running, folder)
        (folder / "services" / "client").mkdir(exist_ok=True)
        yield made
        blocked = running.blocked.read_text()
    assert not blocked, f"something tried to leave this machine:\n{blocked}"


@pytest.fixture(scope="session")
def task(cluster):
    return small_task(cluster.folder)


@pytest.fixture(scope="session")
def here(cluster):
    """Home of the local stack that everything is compared with."""
    return cluster.folder / "local"


@pytest.fixture(scope="session")
def up(cluster):
    """The stack is registered; what was said before, while and after that."""
    before = cluster.run("train", "--task", "edu_quality")
    refused = cluster.run("stack", "up", "vertex")
    cluster.zenml(
        "Client().create_secret('tamis_mlflow', {'username': 'u', 'password': 'p'}); print(1)"
    )
    return (
        before,
        refused,
        cluster.run("stack", "up", "vertex"),
        cluster.run("stack", "up", "vertex"),
    )


@pytest.fixture(scope="session")
def trained(cluster, task, up, here):
    local = run(here, "train", "--task", task)
    assert local.code == 0, local.err
    remote = cluster.run("train", "--task", task)
    assert remote.code == 0, remote.out + remote.err
    return local, remote


@pytest.fixture(scope="session")
def window(cluster, task, here):
    """The task's window of new documents as a file: on this machine, and in the bucket."""
    file = here / "window.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(ingest_window(load_task(task)).table.select(["text", "label"]), file)
    cluster.bucket.pipe_file("tamis-test/windows/window.parquet", file.read_bytes())
    return file, "gs://tamis-test/windows/window.parquet"
