"""Vertex Model Registry, the model's files and the errors of Google's, by the real clients."""

from itertools import count

import fsspec
import pytest

from deployment.registry import Version
from deployment.vertex.endpoints import Endpoints
from deployment.vertex.serving_models import machine_of, publish, publish_version, serving_stack
from deployment.vertex.settings import Gpu, Serving
from tamis.config import validate
from tamis.errors import ConfigError, EngineError, ModelError, StackError
from tamis.models.classifier import digest
from tests.deployment.endpoints.endpoint_stubs import (
    IMAGE,
    SERVING,
    FakeRegistry,
    refusing,
    upload,
)
from tests.vertex.services import free_ports as ports

numbers = count()


class TestUpload:
    def test_the_same_version_is_uploaded_once(self, endpoints, task, api):
        upload(endpoints, task, "3", "3")
        (version,) = api.get(f"/models/{task}:listVersions").json()["models"]
        assert sorted(version["versionAliases"]) == ["default", "mlflow-3"]
        labels = {"team": "demo", "task": task, "mlflow_version": "3", "digest": "3" * 63}
        assert version["labels"] == labels
        assert version["artifactUri"] == f"gs://tamis-test/models/{task}/3"
        container = version["containerSpec"]
        assert container["imageUri"] == IMAGE
        assert (container["predictRoute"], container["healthRoute"]) == ("/predict", "/readyz")
        assert container["ports"] == [{"containerPort": 8080}]
        assert container["deploymentTimeout"] == "1800s"

    def test_versions_share_one_parent(self, endpoints, task, api):
        upload(endpoints, task, "3", "7")
        versions = api.get(f"/models/{task}:listVersions").json()["models"]
        assert {v["versionId"]: v["versionAliases"][0] for v in versions} == {
            "1": "mlflow-3",
            "2": "mlflow-7",
        }
        assert endpoints.is_uploaded(task, "7", "7" * 64)
        assert not endpoints.is_uploaded(task, "7", "8" * 64)
        assert not endpoints.is_uploaded(task, "8", "8" * 64)

    def test_another_image_makes_another_version_which_takes_the_alias(
        self, endpoints, stacks, task, api
    ):
        upload(endpoints, task, "3")
        upload(Endpoints(stacks(more=SERVING.replace("serving:1", "serving:2"))), task, "3")
        versions = api.get(f"/models/{task}:listVersions").json()["models"]
        found = {v["versionId"]: v.get("versionAliases") for v in versions}
        assert found == {"1": ["default"], "2": ["mlflow-3"]}

    def test_a_model_of_somebody_else_is_left_alone(self, endpoints, task, api):
        body = {"modelId": task, "model": {"displayName": "other"}}
        assert api.post("/models:upload", json=body).status_code == 200
        with pytest.raises(StackError, match=f"models/{task} is not of this task"):
            upload(endpoints, task, "1")

    def test_files_have_to_be_in_a_bucket(self, endpoints, task):
        with pytest.raises(StackError, match="a folder of a bucket"):
            endpoints.upload(task, "1", "/home/model", {})


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "classifier"
        (folder / "head").mkdir(parents=True)
        (folder / "head" / "weights.safetensors").write_bytes(b"weights")
        (folder / "classifier.json").write_text("{}")
        return folder

    def test_are_copied_once(self, folder, monkeypatch):
        url = f"memory://bucket-{next(numbers)}/models/toy/1-abc"
        fs, root = fsspec.core.url_to_fs(url)
        put = []
        real = type(fs).put_file
        monkeypatch.setattr(
            type(fs), "put_file", lambda self, *rest: (put.append(rest[1]), real(self, *rest))
        )
        assert publish(folder, url) == url
        assert fs.cat_file(f"{root}/head/weights.safetensors") == b"weights"
        assert len(put) == 2
        publish(folder, url)
        assert len(put) == 2
        fs.pipe_file(f"{root}/classifier.json", b"half")
        publish(folder, url)
        assert put[2:] == [f"{root}/classifier.json"]
        assert fs.cat_file(f"{root}/classifier.json") == b"{}"

    def test_of_a_version_go_to_the_bucket(self, folder, stacks, task, tmp_path):
        version = Version(task, "4", (), {"digest": digest(folder)}, "", "")
        registry = FakeRegistry(folder)
        url = publish_version(stacks(), registry, version, tmp_path / "cache")
        assert url == f"gs://tamis-test/models/{task}/4-{digest(folder)[:12]}"
        fs, root = fsspec.core.url_to_fs(url)
        assert fs.cat_file(f"{root}/head/weights.safetensors") == b"weights"

    def test_that_were_changed_are_not_served(self, folder, stacks, task, tmp_path):
        version = Version(task, "4", (), {"digest": "0" * 64}, "", "")
        with pytest.raises(ModelError, match=f"{task} version 4: the files in .* are not those"):
            publish_version(stacks(), FakeRegistry(folder), version, tmp_path)

    def test_that_cannot_be_written_are_told(self, folder, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(EngineError, match=r"copying the model's files to .*/file/1: "):
            publish(folder, str(tmp_path / "file" / "1"))


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind", "told"),
        [
            (401, StackError, "the credentials are refused; `gcloud auth"),
            (403, StackError, "not allowed .*grant roles/aiplatform.user"),
            (429, EngineError, "429 .*: no"),
            (500, EngineError, "500 .*: no"),
        ],
    )
    def test_are_one_sentence_that_says_what_was_asked(self, stacks, task, status, kind, told):
        with refusing(status) as url, pytest.raises(kind, match=told) as found:
            Endpoints(stacks(vertex=url)).state(task)
        assert str(found.value).startswith(f"looking up the endpoint of {task}: ")
        assert "\n" not in str(found.value)

    def test_so_is_no_answer(self, stacks, task):
        (port,) = ports(1)
        endpoints = Endpoints(stacks(vertex=f"http://127.0.0.1:{port}"))
        with pytest.raises(EngineError, match=f"^looking up {task}@default in Vertex Model"):
            upload(endpoints, task, "1")

    def test_so_is_what_vertex_refuses(self, endpoints, task):
        with pytest.raises(EngineError, match=f"^uploading version 1 of {task} .*: 400 .*Invalid"):
            endpoints.upload(task, "1", "gs://tamis-test/x", {"NO": "1"})

    def test_a_deployment_that_takes_too_long(self, endpoints, task, monkeypatch):
        class Endless:
            def result(self, timeout):
                raise TimeoutError(timeout)

        upload(endpoints, task, "1")
        monkeypatch.setattr(endpoints._client, "deploy_model", lambda *_, **__: Endless())
        with pytest.raises(EngineError, match=f"deploying version 1 of {task}: not done in time"):
            endpoints.deploy(task, "1", 100)


class TestSettings:
    def test_without_serving_there_are_no_endpoints(self, stacks):
        stack = stacks("bare", more="")
        assert stack.serving is None
        for make in (lambda: Endpoints(stack), lambda: serving_stack("bare")):
            with pytest.raises(StackError, match="^--endpoint: the stack's file has no serving;"):
                make()

    def test_nor_on_this_machine(self, stacks):
        stacks()
        assert serving_stack("vertex").serving.canary == 10
        with pytest.raises(StackError, match="given with --stack local; allowed: a stack of kind"):
            serving_stack("local")

    @pytest.mark.parametrize(
        ("data", "key"),
        [
            ({}, "image"),
            ({"image": "serving"}, "image"),
            ({"image": IMAGE, "predict_route": "predict"}, "predict_route"),
            ({"image": IMAGE, "canary": 0}, "canary"),
            ({"image": IMAGE, "canary": 101}, "canary"),
            ({"image": IMAGE, "min_replicas": 0}, "min_replicas"),
            ({"image": IMAGE, "min_replicas": 2}, "max_replicas"),
            ({"image": IMAGE, "port": 0}, "port"),
            ({"image": IMAGE, "timeout_minutes": 121}, "timeout_minutes"),
            ({"image": IMAGE, "machine_type": "big"}, "machine_type"),
            ({"image": IMAGE, "routes": 1}, "routes"),
        ],
    )
    def test_wrong_ones_are_refused(self, data, key):
        with pytest.raises(ConfigError) as found:
            validate(Serving, data, "vertex.yaml")
        assert key in (found.value.key, found.value.given)

    def test_a_gpu(self):
        machine = machine_of(Serving(image=IMAGE, gpu=Gpu(type="NVIDIA_L4", count=2)))
        assert (machine.accelerator_type.name, machine.accelerator_count) == ("NVIDIA_L4", 2)
        with pytest.raises(StackError, match="given 'NVIDIA_L5'; allowed: .*NVIDIA_L4"):
            machine_of(Serving(image=IMAGE, gpu=Gpu(type="NVIDIA_L5")))
