"""The list of materials."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from deployment.packaging.closure import Pin
from deployment.packaging.sbom import Contents, make_sbom, validate
from tamis.errors import EngineError

CONTENTS = Contents(
    task="toy",
    version="7",
    digest="d" * 64,
    backend="onnx-int8",
    code="0.1.0+abc",
    code_files={"tamis/task.py": "1" * 64},
    model_files={"serving.json": "2" * 64},
    pins=(Pin("PyYAML", "6.0.3"), Pin("numpy", "2.4.6"), Pin("safetensors", "0.8.0", ("numpy",))),
    hashes={"pyyaml==6.0.3": "3" * 64},
    image=f"python:3.11.14-slim-bookworm@sha256:{'4' * 64}",
    at=datetime(2026, 1, 2, tzinfo=UTC),
)


@pytest.fixture(scope="module")
def text():
    return make_sbom(CONTENTS)


@pytest.fixture(scope="module")
def parts(text):
    return {part["bom-ref"]: part for part in json.loads(text)["components"]}


def test_packages_have_links_licences_and_hashes(parts):
    found = parts["pkg:pypi/pyyaml@6.0.3"]
    assert found["licenses"][0]["license"]["id"] == "MIT"
    assert found["hashes"] == [{"alg": "SHA-256", "content": "3" * 64}]
    assert "BSD-3-Clause" in parts["pkg:pypi/numpy@2.4.6"]["licenses"][0]["expression"]
    assert "hashes" not in parts["pkg:pypi/numpy@2.4.6"], "none is known, so none is told"


def test_the_model_the_code_and_the_base_image_are_in_it(text, parts):
    model = parts["model"]
    assert (model["type"], model["version"]) == ("machine-learning-model", "7")
    assert {"name": "tamis:digest", "value": "d" * 64} in model["properties"]
    assert model["components"][0]["hashes"][0]["content"] == "2" * 64
    assert parts["base-image"]["purl"].startswith(f"pkg:oci/python@sha256:{'4' * 64}")
    service = json.loads(text)["metadata"]["component"]
    assert service["components"][0]["name"] == "tamis/task.py"


def test_who_needs_whom(text):
    edges = {each["ref"]: each.get("dependsOn", []) for each in json.loads(text)["dependencies"]}
    assert edges["pkg:pypi/safetensors@0.8.0"] == ["pkg:pypi/numpy@2.4.6"]
    assert set(edges["service"]) == {
        "model", "base-image", "pkg:pypi/pyyaml@6.0.3", "pkg:pypi/safetensors@0.8.0",
    }  # fmt: skip


def test_equal_contents_make_equal_lists(text):
    assert make_sbom(CONTENTS) == text
    other = json.loads(make_sbom(replace(CONTENTS, digest="e" * 64)))
    assert other["serialNumber"] != json.loads(text)["serialNumber"]


def test_what_is_not_of_the_schema_is_refused_in_a_line(text):
    wrong = json.loads(text) | {"surprise": 1}
    with pytest.raises(
        EngineError, match=r"^sbom\.cdx\.json: not CycloneDX 1\.6: .*surprise"
    ) as it:
        validate(json.dumps(wrong))
    assert "\n" not in str(it.value)
