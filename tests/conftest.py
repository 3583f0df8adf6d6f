"""Every test keeps to its own folders: no ZenML or MLflow state of the user is touched."""

import os

import pytest

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
