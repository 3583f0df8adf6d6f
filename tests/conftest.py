"""Every test keeps to its own folders: no ZenML or MLflow state of the user is touched."""

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

PRIVATE = ("ZENML_CONFIG_PATH", "ZENML_STORE_URL", "ZENML_STORE_API_KEY", "ZENML_ACTIVE_STACK_ID")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    for name in PRIVATE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TAMIS_HOME", str(tmp_path / "tamis-home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def pytest_configure(config):
    # Two workers share two cores: threads of BLAS and torch would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


LONGEST = "tests/vertex/test_vertex_"
LONG = (
    LONGEST,
    "tests/pipelines/",
    "tests/vertex/",
    "tests/engine/",
    "tests/deployment/",
    "tests/cli/",
)


def pytest_collection_modifyitems(items):
    # What takes long begins and small files end, so that no worker is left alone with a long one.
    def place(item):
        return next((at for at, long in enumerate(LONG) if item.nodeid.startswith(long)), len(LONG))

    items.sort(key=place)


class ByFile(LoadScopeScheduling):
    """A file's tests share a worker, and so what they set up; those of the Vertex stack do, too."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return LONGEST if file.startswith(LONGEST) else file


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)
