"""Workflows: linted, pinned, without rights; what they run is there; each mistake is found."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from cli.app import app
from deployment.lint import workflows as checks
from deployment.lint.tools import NotInstalled

PROJECT = Path(__file__).resolve().parents[3]
GITHUB = PROJECT / ".github"
FILES = sorted((GITHUB / "workflows").glob("*.yml"))
PULL = ".github/workflows/pull-request.yml"
MAIN = ".github/workflows/main.yml"
CHECKS = (
    checks.policy_findings,
    checks.zizmor_findings,
    checks.actionlint_findings,
    checks.schema_of_github_findings,
)


def findings(check, root):
    try:
        return list(check(root))
    except NotInstalled as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_wrong_with_them(check):
    assert findings(check, PROJECT) == []


SHA = "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
RUN, ANYBODY = "run: make check", "run: echo ${{ github.head_ref }} && make check"
SPOILT = {
    "a tag": (checks.policy_findings, PULL, SHA, "@v7", "not pinned"),
    "a tag, to zizmor": (checks.zizmor_findings, PULL, SHA, "@v7", "unpinned-uses"),
    "a digest of what": (checks.policy_findings, PULL, " # v7.0.1", "", "which version"),
    "a tag in an action": (
        checks.policy_findings, ".github/actions/stack/action.yml",
        "@a309ff8b426b58ec0e2a45f0f869d46889d02405 # v6.2.0", "@v6", "not pinned"),
    "rights for all jobs": (
        checks.policy_findings, PULL, "permissions: {}", "permissions: {contents: write}",
        "permissions of the workflow"),
    "no end": (checks.policy_findings, PULL, "    timeout-minutes: 30\n", "", "timeout-minutes"),
    "runs that overtake": (checks.policy_findings, MAIN, "concurrency:", "x-c:", "concurrency"),
    "a token left behind": (
        checks.policy_findings, PULL, "persist-credentials: false", "persist-credentials: true",
        "leaves its token"),
    "secrets for anybody": (
        checks.policy_findings, PULL, "  pull_request:", "  pull_request_target:",
        "pull_request_target"),
    "text of anybody in a script": (
        checks.zizmor_findings, PULL, RUN, ANYBODY,
        "template-injection"),
    "text of anybody, to actionlint": (
        checks.actionlint_findings, PULL, RUN, ANYBODY, "potentially untrusted"),
    "a job that is not there": (
        checks.actionlint_findings, MAIN, "needs: train", "needs: training", "training"),
    "an unknown key": (
        checks.schema_of_github_findings, PULL, "runs-on:", "run-on:", "runs-on"),
    "an unknown ecosystem": (
        checks.schema_of_github_findings, ".github/dependabot.yml", "package-ecosystem: npm",
        "package-ecosystem: npmm", "npmm"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", SPOILT)
def test_a_mistake_is_found(mistake, copy, spoil):
    check, file, old, new, told = SPOILT[mistake]
    spoil(file, old, new)
    found = findings(check, copy)
    assert any(told in finding for finding in found), found


def jobs():
    for file in FILES:
        for name, job in yaml.safe_load(file.read_text())["jobs"].items():
            yield f"{file.stem}/{name}", job


def scripts():
    for where, job in jobs():
        for step in job["steps"]:
            if "run" in step:
                yield where, step["run"]
    yield (
        "stack",
        yaml.safe_load((GITHUB / "actions/stack/action.yml").read_text())["runs"]["steps"][1][
            "run"
        ],
    )
    yield "release.sh", (GITHUB / "release.sh").read_text()


def test_only_releases_and_the_night_may_log_in_and_nobody_writes():
    for where, job in jobs():
        rights = dict(job["permissions"])
        assert rights.pop("contents") == "read"
        cloud = where in {"main/staging", "main/production", "nightly/retrain"}
        assert rights == ({"id-token": "write"} if cloud else {}), where
        assert ("environment" in job) == cloud, where


def test_production_comes_after_staging_and_asks_its_environment():
    found = dict(jobs())
    assert found["main/staging"]["needs"] == "train"
    assert found["main/production"]["needs"] == "staging"
    assert found["main/production"]["environment"] == "production"


def test_no_workflow_holds_a_secret():
    for file in FILES:
        assert "secrets." not in file.read_text()


def test_targets_of_make_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    called = {
        name for _, text in scripts() for name in re.findall(r"(?:run: |^)make ([a-z-]+)", text)
    }
    assert called >= {"check", "test", "test-vertex", "setup"}
    assert called <= targets


def test_files_that_are_named_are_there():
    for where, text in scripts():
        for name in re.findall(r"(?<![\w/$])(?:\.github|deployment)/[\w./-]*\w\.\w+", text):
            if "*" not in name:
                assert (PROJECT / name).exists(), f"{where}: {name}"


def verbs():
    group = typer.main.get_command(app)
    return dict(group.commands)


def test_verbs_and_options_are_there():
    known, asked = verbs(), []
    for where, text in scripts():
        joined = text.replace("\\\n", " ")
        for call in re.findall(r"(?:run\.py|^\s*tamis) ([a-z].*)$", joined, re.MULTILINE):
            words = shlex.split(call.split("||")[0].replace('"${chosen[@]}"', "--version 1"))
            asked.append((where, words[0], [w for w in words if w.startswith("--")]))
    assert {verb for _, verb, _ in asked} == {"train", "monitor", "package", "release"}
    for where, verb, options in asked:
        there = {name for option in known[verb].params for name in option.opts}
        assert set(options) <= there, f"{where}: {verb}"


def test_tools_are_pinned_by_hash():
    lines = (GITHUB / "tools/requirements.txt").read_text().splitlines()
    for line in filter(None, (line.partition("#")[0] for line in lines)):
        assert re.fullmatch(r"[a-z0-9.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line), line


def test_the_linter_of_npm_is_pinned_by_hash():
    lock = json.loads((PROJECT / "deployment/lint/package-lock.json").read_text())
    package = json.loads((PROJECT / "deployment/lint/package.json").read_text())
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    for name, entry in lock["packages"].items():
        if name:
            assert entry["integrity"].startswith("sha512-"), name
            assert not entry.get("hasInstallScript")


STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $*" in
  *"run.py train"*) [ -z "$REFUSED" ] || exit 3; echo '{"model_version": "7"}' > train.json ;;
  *"run.py package"*)
    mkdir -p ".tamis/packages/$TASK/7-onnx-int8-abc"; touch ".tamis/packages/$TASK/7-onnx-int8-abc/Dockerfile"
    echo '{"model_version": "7"}' > package.json ;;
  *"run.py release"*) [ -z "$TAKEN_BACK" ] || exit 3 ;;
  "curl"*) [ -z "$UNREADY" ] || exit 22 ;;
esac
"""  # noqa: E501


def released(tmp_path, *arguments, **variables):
    """release.sh with stand-ins for every program that leaves this machine; what they were told."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    names = [programs / name for name in ("docker", "gcloud", "curl")]
    for file in (*names, tmp_path / ".venv/bin/python"):
        file.write_text(STUB)
        file.chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    given = {
        "PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls), "TASK": "edu_quality",
        "STACK": "staging", "REVISION": "0123456789abcdef", "PROJECT": "my-project",
        "REGISTRY": "us-central1-docker.pkg.dev/my-project/tamis", "REGION": "us-central1",
        "REFUSED": "", "UNREADY": "", "TAKEN_BACK": "", **variables,
    }  # fmt: skip
    done = subprocess.run(
        [GITHUB / "release.sh", *arguments], cwd=tmp_path, env=given, capture_output=True, text=True
    )
    return done, calls.read_text().splitlines()


def kinds(calls):
    words = [call.split() for call in calls]
    return [" ".join(w[1:3]) if w[0] == "python" else " ".join(w[:2]) for w in words]


def test_a_release_trains_packages_tries_pushes_and_releases(tmp_path):
    done, calls = released(tmp_path, "--train")
    assert done.returncode == 0, done.stderr
    assert kinds(calls) == [
        "run.py train", "run.py package", "docker build", "docker run", "curl --fail",
        "docker stop", "gcloud auth", "docker login", "docker push", "run.py release",
    ]  # fmt: skip
    image = "us-central1-docker.pkg.dev/my-project/tamis/serving:edu_quality-7-0123456789ab"
    assert calls[-2] == f"docker push {image}"
    assert "--version 7" in calls[-1]
    template = re.search(r"image: '([^']+)'", calls[-1]).group(1)
    assert template.format(version="7") == image, "the release asks for what was pushed"


def test_the_champion_is_released_without_training(tmp_path):
    done, calls = released(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run.py train" not in kinds(calls)
    assert "--version" not in calls[-1]


def test_what_the_gate_refuses_goes_nowhere(tmp_path):
    done, calls = released(tmp_path, "--train", REFUSED="1")
    assert done.returncode == 3
    assert kinds(calls) == ["run.py train"]


def test_an_image_that_does_not_become_ready_is_not_pushed(tmp_path):
    done, calls = released(tmp_path, "--train", UNREADY="1")
    assert done.returncode != 0
    assert "docker push" not in kinds(calls)
    assert kinds(calls)[-1] == "docker stop", "and is not left running"


def test_a_canary_that_is_taken_back_fails_the_job(tmp_path):
    assert released(tmp_path, "--train", TAKEN_BACK="1")[0].returncode == 3


def test_a_release_without_its_settings_does_nothing(tmp_path):
    done, calls = released(tmp_path, STACK="")
    assert (done.returncode, calls) == (2, [])
    assert "STACK is not set" in done.stderr
