"""A package of a small model, built, tried and built again."""

import json
from dataclasses import replace

import pytest
import yaml

from deployment.packaging import build
from deployment.packaging.record import read_package
from deployment.packaging.sbom import FILE as SBOM
from deployment.registry import Version
from tamis.errors import EngineError
from tamis.models.classifier import load_classifier
from tamis.serving.model import CLASSIFIER, read_served
from tests.deployment.serving.small_service import save_served
from tests.tiny import ORDINAL, tiny_task

VERSION = Version(
    "toy", "1", ("champion",), {"digest": "d" * 64}, "", "", "2026-01-02T03:04:05+00:00"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return save_served(tmp_path_factory.mktemp("model") / "served")


@pytest.fixture(scope="module")
def pack(served):
    class Registry:
        def download(self, version, cache):
            return served / CLASSIFIER

    task = tiny_task("unused", ORDINAL)

    def call(home, output, version=VERSION, **more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("deployment.registry.Registry", Registry)
            patch.setattr("deployment.serving.prepare.prepare", lambda *given: served)
            return build.package(task, version, home, output, **more)

    return call


@pytest.fixture(scope="module")
def packed(pack, tmp_path_factory):
    home = tmp_path_factory.mktemp("packed")
    return home, *pack(home, home / "out")


def test_it_holds_all_that_an_image_needs(packed):
    _, folder, made, new = packed
    assert new and made.tried
    assert read_package(folder) == made
    assert {"Dockerfile", ".dockerignore", "requirements.lock", SBOM} <= set(made.files)
    assert "torch.lock" not in made.files
    assert folder.name == f"1-torch-{made.inputs[:12]}"
    assert (made.task, made.version) == ("toy", "1")
    lock = (folder / "requirements.lock").read_text()
    assert "scikit-learn==" in lock and "\ntorch==" not in lock
    assert json.loads((folder / SBOM).read_text())["specVersion"] == "1.6"


def test_the_bento_is_of_this_version_and_scores_as_the_model_does(packed, served):
    _, folder, made, _ = packed
    bento = yaml.safe_load((folder / "bento" / "bento.yaml").read_text())
    assert f"{bento['name']}:{bento['version']}" == made.bento
    assert bento["labels"]["version"] == "1"
    there = read_served(folder / "bento" / "src" / "served")
    classifier = load_classifier(served / CLASSIFIER)
    for probe in there.probes:
        assert probe.score == pytest.approx(classifier.score([probe.text]).values[0], abs=1e-6)


def test_the_code_in_it_is_what_the_service_needs_and_no_more(packed):
    _, folder, *_ = packed
    source = folder / "bento" / "src"
    assert (source / "deployment" / "service.py").is_file()
    for name in ("deployment/registry.py", "cli", "deployment/packaging", "steps"):
        assert not (source / name).exists(), name
    assert not list(folder.rglob("*.pyc"))


def test_its_dockerfile_says_what_is_in_it(packed):
    _, folder, made, _ = packed
    lines = (folder / "Dockerfile").read_text().splitlines()
    values = {
        "TASK": "toy",
        "MODEL_VERSION": "1",
        "MODEL_DIGEST": made.digest,
        "BACKEND": "torch",
        "CODE": made.code,
        "FINGERPRINT": made.inputs,
    }
    for name, value in values.items():
        assert f"ARG {name}={value}" in lines
    assert not [line for line in lines if line.endswith("=unknown")]


def test_the_same_again_is_the_package_that_is_there(pack, packed):
    home, folder, made, _ = packed
    assert pack(home, home / "out") == (folder, made, False)


def test_elsewhere_it_is_the_same_to_the_byte(pack, packed, tmp_path):
    _, folder, made, _ = packed
    other, again, new = pack(tmp_path, tmp_path / "out", trial=False)
    assert new and again.fingerprint == made.fingerprint
    assert again.files == made.files
    assert other.name == folder.name
    assert build._known(other, again.inputs, trial=True) is None, "it was not tried"
    (other / "Dockerfile").write_text("FROM scratch\n")
    assert build._known(other, again.inputs, trial=False) is None, "it is made again"


def test_a_service_that_scores_otherwise_is_no_package(pack, tmp_path, monkeypatch):
    settle = build._settle

    def wrongly(model, version, choice):
        found = settle(model, version, choice)
        probes = tuple(p.model_copy(update={"score": p.score + 0.05}) for p in found.probes)
        wrong = found.model_copy(update={"probes": probes})
        (model / "serving.json").write_text(wrong.model_dump_json())
        return wrong

    monkeypatch.setattr(build, "_settle", wrongly)
    with pytest.raises(EngineError, match="the service of the package scores a probe"):
        pack(tmp_path, tmp_path / "out", version=replace(VERSION, version="2"))
    assert not list((tmp_path / "out").iterdir()), "nothing is left of it"
