"""From the stack's file to the specification that Vertex AI gets, by ZenML's and KFP's own code."""

import json
import logging
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployment.components import of_vertex
from deployment.stacks import PROJECT
from deployment.vertex.options import (
    ACCELERATOR,
    label,
    labels_of,
    pipeline_options,
    step_settings,
    steps_of,
)
from deployment.vertex.settings import STEPS, VertexStack
from tamis.comparison.settings import CompareSettings
from tamis.config import validate
from tests.deployment.vertex.test_settings import GOOD
from tests.tiny import tiny_task

IMAGE, GPU_IMAGE = GOOD["image"], GOOD["gpu_image"]
NETWORK = "projects/123/global/networks/my-vpc"
DATA = GOOD | {
    "network": NETWORK,
    "machines": {
        "cpu": {"cpu": 4, "memory": "16GiB"},
        "big": {"machine_type": "n2-standard-8"},
        "t4": {"cpu": 8, "memory": "30GiB", "gpu": {"type": "NVIDIA_TESLA_T4", "count": 2}},
        "l4": {
            "machine_type": "g2-standard-8",
            "gpu": {"type": "NVIDIA_L4", "count": 1},
            "spot": True,
            "boot_disk_gb": 200,
        },
    },
    "steps": {
        "default": "cpu",
        "train": "l4",
        "sift": "l4",
        "evaluate": "t4",
        "score_sample": "t4",
        "join": "big",
        "choose_backend": "big",
        "try_variant": "l4",
        "fold": "t4",
    },
}
STACK = validate(VertexStack, DATA, "mine.yaml")
LABELS = labels_of(STACK, "toy", "tamis_training", "run-1")
LINEAR = {"family": "linear"}
COMPARED = {
    "preparations": {"raw": [], "stemmed": ["stem"]},
    "models": {
        "words": {"settings": LINEAR, "preparations": ["raw", "stemmed"]},
        "split": {"settings": LINEAR},
    },
}
STAMPS = {"stamp": "s", "home": "/tmp/tamis", "ledger": "gs://my-tamis/ledger"}
PIPELINES = ("training", "retraining", "filtering", "distillation", "comparison", "tuning")
RESOURCES = {
    "cpu": {
        "cpuLimit": 4.0,
        "memoryLimit": pytest.approx(16 * 2**30 / 1e9),
        "resourceCpuLimit": "4.0",
        "resourceMemoryLimit": "16Gi",
    },
    "t4": {
        "cpuLimit": 8.0,
        "memoryLimit": pytest.approx(30 * 2**30 / 1e9),
        "resourceCpuLimit": "8.0",
        "resourceMemoryLimit": "30Gi",
        "accelerator": {
            "count": "2",
            "resourceCount": "2",
            "type": "NVIDIA_TESLA_T4",
            "resourceType": "NVIDIA_TESLA_T4",
        },
    },
}
"""As KFP writes the machines that Vertex picks."""
CUSTOM = {
    "big": {"machine_type": "n2-standard-8"},
    "l4": {"machine_type": "g2-standard-8", "accelerator_type": "NVIDIA_L4",
           "accelerator_count": 1},
}  # fmt: skip
DISKS = {"big": 100, "l4": 200}
STRATEGIES = {"big": "STANDARD", "l4": "SPOT"}


@contextmanager
def own_zenml(folder):
    """ZenML with a configuration of its own; its hold on logs and errors is loosened again."""
    root, level = logging.getLogger(), logging.getLogger().level
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZENML_CONFIG_PATH", str(folder))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setattr(sys, "excepthook", sys.excepthook)
        import zenml.client  # noqa: F401

        root.setLevel(level)
        for handler in [each for each in root.handlers if "zenml" in type(each).__module__]:
            root.removeHandler(handler)
        logging.captureWarnings(False)
        yield patch


@pytest.fixture(scope="module", autouse=True)
def zenml(tmp_path_factory):
    """ZenML, which finds the project's steps and asks no server for anything."""
    with own_zenml(tmp_path_factory.mktemp("zenml")) as patch:
        from zenml.config import compiler
        from zenml.utils import code_repository_utils, source_utils

        patch.setattr(code_repository_utils, "find_active_code_repository", lambda: None)
        patch.setattr(source_utils, "_CUSTOM_SOURCE_ROOT", str(PROJECT))
        patch.setattr(compiler, "get_zenml_versions", lambda: ("0", "0"))
        yield


def pipeline_and_parameters(name, folder):
    """A pipeline of the project, and parameters that nothing is done with."""
    from deployment.distilling import DistillRequest
    from deployment.filtering import FilterRequest
    from pipelines.comparison import comparison
    from pipelines.distillation import distillation
    from pipelines.filtering import filtering
    from pipelines.retraining import retraining
    from pipelines.training import training
    from pipelines.tuning import tuning

    task, home = tiny_task(folder), {"home": "/tmp/tamis"}
    if name == "training":
        return training, {"task": task, **STAMPS}
    if name == "retraining":
        return retraining, {"task": task, "window_stamp": "w", "champion_version": "1", **STAMPS}
    if name == "comparison":
        variants = CompareSettings.model_validate(COMPARED).variants(task.model)
        given = {"task": task, "variants": list(variants), "stamp": "s", **home}
        return comparison, given
    if name == "tuning":
        return tuning, {"task": task, "trials": 2, "journals": "gs://my-tamis/tuning", **STAMPS}
    request = FilterRequest(inputs=("gs://b/a",), output="gs://b/o", version="1")
    if name == "filtering":
        return filtering, {"task": task, "request": request, **home}
    request = DistillRequest(corpus=request, samples="gs://b/s")
    return distillation, {"task": task, "request": request, **home}


def zenml_stack(stack):
    """The stack as ZenML would load it from its server."""
    from datetime import UTC, datetime
    from uuid import uuid4

    from zenml.container_registries import GCPContainerRegistryFlavor
    from zenml.enums import StackComponentType
    from zenml.integrations.gcp import flavors as gcp
    from zenml.integrations.mlflow import flavors as mlflow
    from zenml.stack import Stack

    known = {
        "orchestrator": gcp.VertexOrchestratorFlavor,
        "artifact_store": gcp.GCPArtifactStoreFlavor,
        "container_registry": GCPContainerRegistryFlavor,
        "image_builder": gcp.GCPImageBuilderFlavor,
        "experiment_tracker": mlflow.MLFlowExperimentTrackerFlavor,
        "model_registry": mlflow.MLFlowModelRegistryFlavor,
    }
    made, now = {}, datetime.now(UTC)
    for component in of_vertex(stack):
        flavor = known[component.kind]()
        plain = {  # there is no server to ask for secrets
            key: "x" if str(value).startswith("{{") else value
            for key, value in component.settings.items()
        }
        made[component.kind] = flavor.implementation_class(
            name="tamis-mine", id=uuid4(), config=flavor.config_class(**plain),
            flavor=flavor.name, type=StackComponentType(component.kind),
            user=None, created=now, updated=now,
        )  # fmt: skip
    return Stack(id=uuid4(), name="tamis-mine", **made)


class Vertex:
    """Takes the place of ``aiplatform``: keeps what it is given."""

    def __init__(self):
        self.given = {}
        vertex = self

        class PipelineJob:
            def __init__(self, **given):
                spec = json.loads(Path(given["template_path"]).read_text(encoding="utf-8"))
                vertex.given |= given | {"spec": spec}

            def submit(self, **given):
                vertex.given |= given

            def _dashboard_uri(self):
                return "https://console"

        self.PipelineJob = PipelineJob


def submit(name, stack, folder, patch):
    """Submit a pipeline of the project: what Vertex AI gets, and ZenML's record of the run."""
    from uuid import uuid4

    from zenml.integrations.gcp.orchestrators import vertex_orchestrator
    from zenml.pipelines import pipeline_definition

    there, vertex = zenml_stack(stack), Vertex()
    patch.setattr(pipeline_definition, "Client", lambda: SimpleNamespace(active_stack=there))
    patch.setattr(vertex_orchestrator, "aiplatform", vertex)
    pipeline, parameters = pipeline_and_parameters(name, folder)
    steps = steps_of(pipeline, parameters)
    options = pipeline_options(stack, steps, LABELS)
    draft = pipeline.with_options(run_name="run-1", **options)
    draft.prepare(**parameters)
    given = dict(draft._run_args)
    snapshot, _, _ = draft._compile(steps=given.pop("step_configurations"), **given)
    builds = there.get_docker_builds(snapshot)
    assert builds and all(build.settings.skip_build for build in builds)
    images = {build.step_name: build.settings.parent_image for build in builds}
    orchestrator = there.orchestrator
    patch.setattr(orchestrator, "_get_authentication", lambda: (None, stack.project))
    patch.setattr(orchestrator, "compute_metadata", lambda run: {})
    patch.setattr(
        orchestrator, "get_image", lambda snapshot, step_name: images.get(step_name, images[None])
    )
    whole = SimpleNamespace(
        id=uuid4(),
        schedule=None,
        pipeline_configuration=snapshot.pipeline_configuration,
        step_configurations=snapshot.step_configurations,
    )
    environments = {step: {"GIVEN": f"to {step}"} for step in steps}
    result = orchestrator.submit_pipeline(whole, there, {}, environments)
    assert result.wait_for_completion is None  # we wait ourselves
    return vertex.given, snapshot


@pytest.fixture(scope="module")
def submitted(zenml, tmp_path_factory):
    """The same for the stack of these tests, once a pipeline."""
    known = {}

    def once(name):
        if name not in known:
            with pytest.MonkeyPatch.context() as patch:
                folder = tmp_path_factory.mktemp(name)
                patch.setenv("ZENML_CONFIG_PATH", str(folder / "zenml"))
                known[name] = submit(name, STACK, folder, patch)
        return known[name]

    return once


def machine_name(step):
    kind = "try_variant" if step.startswith("try_variant_") else step
    return DATA["steps"].get(kind, "cpu")


def container_of(spec, step):
    return spec["deploymentSpec"]["executors"][f"exec-{step.replace('_', '-')}"]["container"]


def custom_job_of(spec, step):
    """Parameters of a step's custom job."""
    component = spec["components"][f"comp-{step.replace('_', '-')}"]
    parameters = component["inputDefinitions"]["parameters"]
    return {name: value.get("defaultValue") for name, value in parameters.items()}


def runs_step(command, arguments, step):
    whole = [*command, *arguments]
    return "zenml.entrypoints.entrypoint" in whole and whole[-2:] == ["--step_name", step]


def test_a_comparison_tries_each_variant_in_a_step_of_its_own(submitted):
    _, snapshot = submitted("comparison")
    steps = snapshot.step_configurations
    tried = {"try_variant_words", "try_variant_words_stemmed", "try_variant_split"}
    assert {step for step in steps if step.startswith("try_variant")} == tried
    for step in tried:  # side by side: none waits for another
        assert set(steps[step].spec.upstream_steps) == {"ingest", "fold"}
    assert tried < set(steps["rank_variants"].spec.upstream_steps)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_job_is_labelled_and_runs_as_the_stack_says(submitted, name):
    job, snapshot = submitted(name)
    assert (job["project"], job["location"]) == ("my-project-1", "us-central1")
    assert job["service_account"] == DATA["service_account"]
    assert job["network"] == NETWORK
    assert job["pipeline_root"].startswith("gs://my-tamis/")
    assert job["enable_caching"] is False
    assert job["labels"] == {
        "team": "data", "task": "toy", "pipeline": "tamis_training", "run": "run-1",
    }  # fmt: skip
    assert snapshot.run_name_template == "run-1"
    assert snapshot.pipeline_configuration.execution_mode.value == "continue_on_failure"


@pytest.mark.parametrize("name", PIPELINES)
def test_each_step_gets_its_machine_image_and_environment(submitted, name):
    job, snapshot = submitted(name)
    spec, seen = job["spec"], []
    for step in snapshot.step_configurations:
        machine = machine_name(step)
        image = GPU_IMAGE if machine in ("t4", "l4") else IMAGE
        container = container_of(spec, step)
        if machine in RESOURCES:
            assert container["resources"] == RESOURCES[machine], step
            assert container["image"] == image
            assert runs_step(container["command"], container["args"], step)
            assert {"name": "GIVEN", "value": f"to {step}"} in container["env"]
        else:
            custom = custom_job_of(spec, step)
            (pool,) = custom["worker_pool_specs"]
            assert pool["machine_spec"] == CUSTOM[machine], step
            assert pool["disk_spec"]["boot_disk_size_gb"] == DISKS[machine]
            assert pool["replica_count"] == 1
            assert custom["strategy"] == STRATEGIES[machine]
            assert custom["labels"] == job["labels"]
            assert custom["service_account"] == DATA["service_account"]
            assert custom["network"] == NETWORK
            inner = pool["container_spec"]
            assert inner["image_uri"] == image
            assert runs_step(inner["command"], inner["args"], step)
            assert {"name": "GIVEN", "value": f"to {step}"} in inner["env"]
            assert "resources" not in container
        seen.append(machine)
    assert len(seen) >= 2 and {"l4", "t4"} & set(seen)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_tasks_are_the_steps_in_their_order_and_none_is_cached_by_vertex(submitted, name):
    job, snapshot = submitted(name)
    tasks = job["spec"]["root"]["dag"]["tasks"]
    assert set(tasks) == {step.replace("_", "-") for step in snapshot.step_configurations}
    for step, record in snapshot.step_configurations.items():
        task = tasks[step.replace("_", "-")]
        assert not task["cachingOptions"].get("enableCache", False)
        before = {each.replace("_", "-") for each in record.spec.upstream_steps}
        assert set(task.get("dependentTasks", [])) == before


def test_what_zenml_caches_is_what_the_pipeline_says(submitted):
    _, snapshot = submitted("training")
    steps = snapshot.step_configurations
    assert steps["gate"].config.enable_cache is False
    assert steps["train"].config.enable_cache is not False
    assert "tamis/task.py" in steps["train"].config.cache_policy.file_dependencies


def test_a_stack_without_a_network_or_an_image_for_gpus(zenml, tmp_path, monkeypatch):
    more = {"network": None, "gpu_image": None, "labels": {}}
    stack = validate(VertexStack, DATA | more, "mine.yaml")
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "zenml"))
    job, _ = submit("filtering", stack, tmp_path, monkeypatch)
    assert job["network"] is None
    custom = custom_job_of(job["spec"], "sift")
    assert not custom["network"]
    assert custom["worker_pool_specs"][0]["container_spec"]["image_uri"] == IMAGE
    assert container_of(job["spec"], "manifest")["image"] == IMAGE


def test_a_gpu_without_a_machine_type_is_asked_for_in_both_places():
    """Either alone is dropped without a word."""
    settings = step_settings(STACK, "evaluate", LABELS)
    assert settings["resources"].gpu_count == 2
    assert (settings["resources"].cpu_count, settings["resources"].memory) == (8, "30GiB")
    selectors = settings["orchestrator"].pod_settings.node_selectors
    assert selectors == {ACCELERATOR: "NVIDIA_TESLA_T4"}
    assert settings["orchestrator"].labels == LABELS
    assert settings["orchestrator"].custom_job_parameters is None
    plain = step_settings(STACK, "gate", LABELS)
    assert plain["resources"].gpu_count is None and "orchestrator" not in plain
    assert "resources" not in step_settings(STACK, "train", LABELS)  # ignored beside a custom job


@pytest.mark.parametrize("name", PIPELINES)
def test_the_steps_of_a_pipeline_are_known_without_running_it(name, tmp_path):
    pipeline, parameters = pipeline_and_parameters(name, tmp_path)
    steps = steps_of(pipeline, parameters)
    kinds = {"try_variant" if step.startswith("try_variant_") else step for step in steps}
    assert len(steps) == len(set(steps)) >= 2 and kinds <= set(STEPS)
    assert not pipeline.invocations  # as it is written, not as it was prepared
    assert steps_of(pipeline, parameters) == steps


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("edu_quality", "edu_quality"),
        ("Tamis Training", "tamis-training"),
        ("training-20250501-120000-ab12", "training-20250501-120000-ab12"),
        ("r\u00e9sum\u00e9/v1.0", "r-sum--v1-0"),
        ("x" * 200, "x" * 63),
        ("\u0130" * 60, None),
        ("a\nb", "a-b"),
        ("", ""),
    ],
)
def test_a_label_is_short_and_clean(value, expected):
    found = label(value)
    assert re.fullmatch("[a-z0-9_-]{0,63}", found)
    assert expected is None or found == expected


def test_labels_of_a_run_stand_beside_those_of_the_stack():
    labels = labels_of(STACK, "Edu Quality", "tamis_training", "training-" + "7" * 80)
    assert labels == {
        "team": "data",
        "task": "edu-quality",
        "pipeline": "tamis_training",
        "run": "training-" + "7" * 54,
    }
    assert STACK.labels == {"team": "data"}
