import ast
import copy
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from deployment.stacks import STACKS
from deployment.vertex.settings import DEFAULT, STEPS, Gpu, Machine, VertexStack
from tamis.config import problems, read_yaml, validate
from tamis.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[3]
SHOWN = "configs/stacks/mine.yaml"
GPU = {"machine_type": "g2-standard-8", "gpu": {"type": "NVIDIA_L4", "count": 1}, "spot": True}
GOOD = {
    "kind": "vertex",
    "project": "my-project-1",
    "region": "us-central1",
    "bucket": "gs://my-tamis",
    "registry": "us-central1-docker.pkg.dev/my-project-1/tamis",
    "image": "us-central1-docker.pkg.dev/my-project-1/tamis/steps:0.1.0-cpu",
    "gpu_image": "us-central1-docker.pkg.dev/my-project-1/tamis/steps:0.1.0-gpu",
    "service_account": "tamis-steps@my-project-1.iam.gserviceaccount.com",
    "zenml_server": "https://zenml.example.org",
    "mlflow": {"tracking_uri": "https://mlflow.example.org", "secret": "tamis_mlflow"},
    "network": None,
    "labels": {"team": "data"},
    "machines": {"cpu": {"cpu": 4, "memory": "16GiB"}, "gpu": GPU},
    "steps": {"default": "cpu", "train": "gpu"},
}
SERVING = {"image": GOOD["image"], "min_replicas": 2, "max_replicas": 4}


def with_value(path, value, good=GOOD):
    """The good content with another value at a path of keys; ``...`` leaves it out."""
    data = copy.deepcopy(good)
    node = data
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return data


def stack_with(path, value):
    return validate(VertexStack, with_value(path, value), SHOWN)


def refused(data):
    """The one error of a content, the same by ``validate`` and by ``problems``."""
    with pytest.raises(ConfigError) as caught:
        validate(VertexStack, data, SHOWN)
    assert type(caught.value) is ConfigError
    assert caught.value.exit_code == 2
    told = str(caught.value)
    assert told.startswith(f"{SHOWN}: {caught.value.key}: given ") and "\n" not in told
    assert [str(each) for each in problems(VertexStack, data, SHOWN)] == [told]
    return caught.value


def test_a_stack_file_is_read():
    stack = validate(VertexStack, GOOD, SHOWN)
    assert (stack.project, stack.region, stack.bucket) == (
        "my-project-1", "us-central1", "gs://my-tamis",
    )  # fmt: skip
    assert stack.machines["gpu"] == Machine(
        machine_type="g2-standard-8", gpu=Gpu(type="NVIDIA_L4"), spot=True
    )
    assert stack.mlflow.auth == "basic"
    assert (stack.retries, stack.scratch, stack.api_endpoint) == (2, "/tmp/tamis", None)
    assert problems(VertexStack, GOOD, SHOWN) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("project", "example.org:my-project"),
        ("project", "abcdef"),
        ("region", "northamerica-northeast1"),
        ("region", "europe-west12"),
        ("bucket", "gs://my_tamis.example.org"),
        ("image", "localhost:5000/tamis/steps:1"),
        ("image", f"us-docker.pkg.dev/p/r/steps@sha256:{'0' * 64}"),
        ("gpu_image", None),
        ("gpu_image", ...),
        ("service_account", "1234-compute@developer.gserviceaccount.com"),
        ("zenml_server", "http://127.0.0.1:8080"),
        ("zenml_server", "https://example.org/zenml/"),
        ("zenml_server", "http://[::1]:8080"),
        ("mlflow.tracking_uri", "http://mlflow:5000"),
        ("mlflow.auth", "token"),
        ("network", "projects/123/global/networks/my-vpc"),
        ("network", ...),
        ("api_endpoint", "https://aiplatform-tamis.p.googleapis.com"),
        ("labels", ...),
        ("labels", {f"key-{number}": "" for number in range(61)}),
        ("labels", {"k" * 63: "v" * 63}),
        ("machines.cpu", {"cpu": 0.5, "memory": "512MiB"}),
        ("machines.cpu", {"cpu": 8, "memory": "30GiB", "gpu": {"type": "NVIDIA_TESLA_T4"}}),
        ("machines.gpu", {"machine_type": "n1-highmem-16"}),
        ("machines.gpu.gpu.count", 16),
        ("machines.gpu.boot_disk_gb", 100),
        ("steps", {DEFAULT: "cpu"}),
        ("steps", dict.fromkeys((DEFAULT, *STEPS), "gpu")),
        ("retries", 0),
        ("scratch", "/mnt/disk"),
        ("serving", None),
        ("serving", {"image": GOOD["image"], "canary": 10, "health_route": "/"}),
        ("serving", {"image": GOOD["image"], "min_replicas": 2, "max_replicas": 2}),
    ],
)
def test_what_may_stand_in_it(path, value):
    stack_with(path, value)


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("project", "<project id>", "the id of your Google Cloud project"),
        ("project", "My-Project", "the id of your Google Cloud project"),
        ("project", "short", "the id of your Google Cloud project"),
        ("project", "ends-with-", "the id of your Google Cloud project"),
        ("region", "us-central", "a region such as us-central1"),
        ("region", "us-central1-a", "a region such as us-central1"),
        ("bucket", "gs://<bucket>", "a bucket such as gs://my-tamis"),
        ("bucket", "my-tamis", "a bucket such as gs://my-tamis"),
        ("bucket", "s3://my-tamis", "a bucket such as gs://my-tamis"),
        ("bucket", "gs://my-tamis/folder", "a bucket such as gs://my-tamis"),
        ("bucket", "gs://my-tamis/", "a bucket such as gs://my-tamis"),
        ("bucket", "gs://My-Tamis", "a bucket such as gs://my-tamis"),
        ("registry", "<registry>", "a registry such as"),
        ("registry", "us-docker.pkg.dev", "a registry such as"),
        ("registry", "https://us-docker.pkg.dev/p/r", "a registry such as"),
        ("image", "us-docker.pkg.dev/p/r/steps", "an image with its tag or digest"),
        ("image", "us-docker.pkg.dev/<project id>/r/steps:1", "an image with its tag or digest"),
        ("image", "us-docker.pkg.dev/p/r/steps@sha256:12", "an image with its tag or digest"),
        ("image", "us-docker.pkg.dev/p/r/steps:", "an image with its tag or digest"),
        ("image", "steps:1", "an image with its tag or digest"),
        ("gpu_image", "us-docker.pkg.dev/p/r/steps", "an image with its tag or digest"),
        ("service_account", "me@example.org", "a service account's address"),
        ("service_account", "tamis-steps", "a service account's address"),
        ("zenml_server", "https://<zenml server>", "an address such as https://"),
        ("zenml_server", "zenml.example.org", "an address such as https://"),
        ("zenml_server", "sqlite:///zenml.db", "an address such as https://"),
        ("zenml_server", "https://me:secret@zenml.example.org", "an address such as https://"),
        ("zenml_server", "https://zenml.example.org\n", "an address such as https://"),
        ("mlflow.tracking_uri", "file:///mlruns", "an address such as https://"),
        ("mlflow.tracking_uri", "https://<mlflow server>", "an address such as https://"),
        ("mlflow.secret", "a secret", "the name of a ZenML secret"),
        ("mlflow.secret", "{{mlflow.token}}", "the name of a ZenML secret"),
        ("mlflow.auth", "none", "'basic' or 'token'"),
        ("network", "default", "projects/NUMBER/global/networks/X"),
        ("network", "projects/mine/global/networks/x", "projects/NUMBER/global/networks/X"),
        ("api_endpoint", "us-central1-aiplatform.googleapis.com", "an address such as https://"),
        ("labels.team", "Data", "at most 63 lower-case letters, digits, _ and -"),
        ("labels.team", "d" * 64, "at most 63 lower-case letters, digits, _ and -"),
        ("labels.team", 7, "text"),
        ("machines.cpu.cpu", 0, "greater than 0"),
        ("machines.cpu.cpu", 500, "less than or equal to 416"),
        ("machines.cpu.cpu", "4", "a number"),
        ("machines.cpu.memory", "16GB", "a size such as 16GiB"),
        ("machines.cpu.memory", "16", "a size such as 16GiB"),
        ("machines.cpu.memory", "0GiB", "a size such as 16GiB"),
        ("machines.cpu.memory", "1.5GiB", "a size such as 16GiB"),
        ("machines.gpu.machine_type", "large", "a machine type such as n2-standard-8"),
        ("machines.gpu.gpu.type", "nvidia-l4", "an accelerator such as NVIDIA_L4"),
        ("machines.gpu.gpu.count", 0, "greater than or equal to 1"),
        ("machines.gpu.gpu.count", 17, "less than or equal to 16"),
        ("machines.gpu.gpu.count", 1.5, "a whole number"),
        ("machines.gpu.gpu", "NVIDIA_L4", "a mapping of keys to values"),
        ("machines.gpu.spot", "yes", "true or false"),
        ("machines.gpu.boot_disk_gb", 99, "greater than or equal to 100"),
        ("machines.gpu.boot_disk_gb", 64_001, "less than or equal to 64000"),
        ("retries", -1, "greater than or equal to 0"),
        ("retries", 11, "less than or equal to 10"),
        ("scratch", "scratch", "an absolute path"),
        ("scratch", "gs://my-tamis/scratch", "an absolute path"),
        ("serving.image", "us-docker.pkg.dev/p/r/serving", "an image with its tag or digest"),
        ("serving.image", ..., "a value; this key is required"),
        ("serving.predict_route", "predict", "a path such as /predict"),
        ("serving.port", 0, "greater than or equal to 1"),
        ("serving.machine_type", "large", "a machine type such as n2-standard-4"),
        ("serving.canary", 0, "greater than or equal to 1"),
        ("serving.canary", 101, "less than or equal to 100"),
        ("serving.max_replicas", 1, "from min_replicas=2"),
        ("serving.timeout_minutes", 0, "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_told_with_its_place_and_what_is_allowed(path, value, allowed):
    error = refused(with_value(path, value, GOOD | {"serving": SERVING}))
    assert error.key == path
    assert error.given == ("nothing" if value is ... else value)
    assert allowed in error.allowed


@pytest.mark.parametrize(
    "path",
    [
        "project", "region", "bucket", "registry", "image", "service_account", "zenml_server",
        "mlflow", "mlflow.tracking_uri", "mlflow.secret", "machines", "steps",
        "machines.gpu.gpu.type",
    ],
)  # fmt: skip
def test_what_must_be_there(path):
    error = refused(with_value(path, ...))
    assert (error.key, error.given) == (path, "nothing")
    assert error.allowed == "a value; this key is required"


@pytest.mark.parametrize(
    ("path", "value", "hint"),
    [
        ("projct", "my-project-1", "(did you mean 'project'?)"),
        ("gpu-image", "us-docker.pkg.dev/p/r/steps:1", "(did you mean 'gpu_image'?)"),
        ("mlflow.password", "secret", "one of the keys auth, secret, tracking_uri"),
        ("mlflow.secrets", "secret", "(did you mean 'secret'?)"),
        ("machines.cpu.memry", "16GiB", "(did you mean 'memory'?)"),
    ],
)
def test_an_unknown_key_is_refused_with_those_there_are(path, value, hint):
    error = refused(with_value(path, value))
    assert (error.key, error.given) == (path, path.split(".")[-1])
    assert hint in error.allowed


@pytest.mark.parametrize(
    ("machine", "key", "given", "allowed"),
    [
        ({"machine_type": "n2-standard-8", "cpu": 4}, "machine_type", "n2-standard-8", "either"),
        (
            {"machine_type": "n2-standard-8", "memory": "16GiB"},
            "machine_type", "n2-standard-8", "either it, or cpu and memory",
        ),
        ({}, "cpu", None, "cpu and memory, or a machine_type"),
        ({"cpu": 4}, "cpu", 4, "cpu and memory, or a machine_type"),
        ({"memory": "16GiB"}, "cpu", None, "cpu and memory, or a machine_type"),
        ({"gpu": {"type": "NVIDIA_L4"}}, "cpu", None, "cpu and memory, or a machine_type"),
        ({"cpu": 4, "memory": "16GiB", "spot": True}, "spot", True, "only with a machine_type"),
        (
            {"cpu": 4, "memory": "16GiB", "boot_disk_gb": 200},
            "boot_disk_gb", 200, "only with a machine_type",
        ),
    ],
)  # fmt: skip
def test_a_machine_is_described_in_one_of_two_ways(machine, key, given, allowed):
    error = refused(with_value("machines.cpu", machine))
    assert error.key == f"machines.cpu.{key}"
    assert error.given == given
    assert error.allowed.startswith(allowed)


def test_a_step_that_no_pipeline_has_is_refused_with_those_there_are():
    error = refused(with_value("steps", {"default": "cpu", "trian": "gpu"}))
    assert (error.key, error.given) == ("steps", "trian")
    assert error.allowed == f"default, {', '.join(STEPS)}"


@pytest.mark.parametrize(
    ("machines", "known"), [(GOOD["machines"], "cpu, gpu"), ({}, "none")], ids=["two", "none"]
)
def test_a_machine_that_is_not_described_is_refused_with_those_that_are(machines, known):
    error = refused(with_value("machines", machines) | {"steps": {"default": "big"}})
    assert (error.key, error.given) == ("steps.default", "big")
    assert error.allowed == f"one of the machines {known}"


@pytest.mark.parametrize("steps", [{}, {"train": "gpu", "sift": "gpu"}])
def test_the_steps_that_are_not_named_need_a_machine_too(steps):
    error = refused(with_value("steps", steps))
    assert (error.key, error.given) == ("steps", sorted(steps))
    assert error.allowed == "also default, for steps that are not named"


def test_there_is_room_for_the_labels_that_every_job_gets():
    error = refused(with_value("labels", {f"key-{number}": "" for number in range(62)}))
    assert error.key == "labels"
    assert "at most 61" in error.allowed


@pytest.mark.parametrize("key", ["Team", "7th", "", "k" * 64, "a b"])
def test_a_wrong_name_of_a_label_is_refused(key):
    error = refused(with_value("labels", {key: "data"}))
    assert (error.key, error.given) == (f"labels.{key}", key)
    assert error.allowed == "a lower-case word of at most 63 characters"


def test_all_problems_are_found_at_once():
    data = with_value("project", "<project id>") | {"region": "mars", "colour": "red"}
    del data["bucket"]
    data["machines"]["cpu"]["memory"] = "much"
    found = {error.key: error.given for error in problems(VertexStack, data, SHOWN)}
    assert found == {
        "project": "<project id>",
        "region": "mars",
        "bucket": "nothing",
        "colour": "colour",
        "machines.cpu.memory": "much",
    }


def test_each_placeholder_of_the_file_that_comes_with_it_is_a_problem_of_its_own():
    path = STACKS / "vertex.yaml"
    data = read_yaml(path, path.name)
    found = {error.key for error in problems(VertexStack, data, path.name)}
    placeholders = {key for key, value in data.items() if "<" in json.dumps(value)}
    assert "mlflow.tracking_uri" in found
    assert {key.split(".")[0] for key in found} == placeholders
    filled = json.loads(json.dumps(data).replace("<project id>", "my-project-1"))
    for key in ("bucket", "zenml_server", "mlflow"):
        filled[key] = GOOD[key]
    stack = validate(VertexStack, filled, path.name)
    assert stack.machine_of("sift").gpu is not None and stack.machine_of("gate").gpu is None


def test_a_stack_cannot_be_changed():
    stack = validate(VertexStack, GOOD, SHOWN)
    for model, key, value in (
        (stack, "project", "another-1"),
        (stack.mlflow, "secret", "another"),
        (stack.machines["gpu"], "spot", False),
        (stack.machines["gpu"].gpu, "count", 2),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, key, value)


def test_machines_and_images_of_steps():
    stack = stack_with("steps", {"default": "cpu", "train": "gpu", "sift": "gpu"})
    assert stack.machine_of("train") == stack.machine_of("sift") == stack.machines["gpu"]
    assert stack.machine_of("ingest") == stack.machines["cpu"]
    assert stack.image_of("train") == GOOD["gpu_image"]
    assert stack.image_of("ingest") == GOOD["image"]
    assert stack_with("gpu_image", None).image_of("train") == GOOD["image"]


def test_a_machine_by_its_type_without_a_gpu_takes_the_image_without():
    stack = stack_with("machines.gpu", {"machine_type": "n2-standard-8"})
    assert stack.image_of("train") == GOOD["image"]


def called(tree):
    """Names of what the functions with a ``pipeline`` decorator call."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(
            ast.unparse(each).split("(")[0] == "pipeline" for each in node.decorator_list
        ):
            inside = [part for statement in node.body for part in ast.walk(statement)]
            yield {
                part.func.id
                for part in inside
                if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
            }


def steps_of(file):
    """Steps of the pipelines of a file, by their names there."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name: alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("steps.")
        for alias in node.names
    }
    pipelines = list(called(tree))
    assert pipelines and all(names & set(imported) for names in pipelines)
    return {imported[name] for names in pipelines for name in names & set(imported)}


def test_every_step_of_every_pipeline_may_be_given_a_machine():
    files = [f for f in sorted((PROJECT / "pipelines").glob("*.py")) if f.name != "__init__.py"]
    assert len(files) >= 4
    found = set().union(*map(steps_of, files))
    assert {"ingest", "train", "sift", "promote_or_refuse"} <= found
    assert set(STEPS) == found
    assert list(STEPS) == sorted(STEPS) and DEFAULT not in STEPS


@pytest.mark.parametrize(
    ("step", "machine"),
    [
        ("try_variant", "gpu"),
        ("try_variant_tfidf", "gpu"),
        ("try_variant_split_keeping", "gpu"),
        ("split", "big"),
        ("split_keeping", "cpu"),  # a step, and not one of several of `split`
        ("split_keeping_more", "big"),
        ("splitter", "cpu"),
        ("ingest_window", "cpu"),
        ("evaluate", "cpu"),
        ("try", "cpu"),
    ],
)
def test_a_step_of_a_kind_gets_the_machine_of_its_kind(step, machine):
    machines = GOOD["machines"] | {"big": {"machine_type": "n2-standard-8"}}
    steps = {"default": "cpu", "try_variant": "gpu", "split": "big", "ingest": "big"}
    stack = validate(VertexStack, GOOD | {"machines": machines, "steps": steps}, SHOWN)
    assert stack.machine_of(step) == stack.machines[machine]
    assert stack.image_of(step) == GOOD["gpu_image" if machine == "gpu" else "image"]
