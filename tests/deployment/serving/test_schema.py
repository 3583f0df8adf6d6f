"""The OpenAPI document is true: schemathesis asks a real service for all it describes."""

import os
import re
import subprocess
import sys

import pytest

from tests.deployment.serving.small_service import KEY, save_served, serving

pytest.importorskip("schemathesis", reason="schemathesis is not installed")

SETTINGS = """\
hooks = "ndjson_hooks"

# A limit of the service may stand below what a schema can say: characters of all documents, say.
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "413"]

# Lines are text, and what is wrong with one is said in its place in the answer.
[[operations]]
include-path = "/score_stream"
checks.negative_data_rejection.enabled = false
"""
HOOKS = """\
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_lines(context, value):
    return str(value).encode("utf-8", "replace")
"""
OPERATIONS = {
    ("get", "/livez"), ("get", "/metrics"), ("get", "/model"), ("get", "/readyz"),
    ("post", "/feedback"), ("post", "/predict"), ("post", "/score"), ("post", "/score_stream"),
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    with serving(folder, save_served(folder / "model")) as one:
        yield one


def test_every_answer_is_as_documented(service, tmp_path):
    (tmp_path / "settings.toml").write_text(SETTINGS, "utf-8")
    (tmp_path / "ndjson_hooks.py").write_text(HOOKS, "utf-8")
    program = "from schemathesis.cli import schemathesis; schemathesis()"
    done = subprocess.run(
        [
            sys.executable, "-c", program, "--config-file", "settings.toml", "run",
            f"{service.url}/docs.json", "--header", f"Authorization: Bearer {KEY}",
            "--max-examples", "50", "--seed", "7", "--no-shrink", "--continue-on-failure",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    told = "\n".join(line[:300] for line in (done.stdout + done.stderr).splitlines())
    assert done.returncode == 0, told
    number = len(OPERATIONS)
    assert f"Selected: {number}/{number}" in told and f"Tested: {number}" in told
    generated = re.search(r"([\d,]+) generated", told)
    assert generated and int(generated[1].replace(",", "")) > 300
    assert service.ask("/readyz").status == 200
    assert "Traceback" not in (service.folder / "service.log").read_text("utf-8")


def test_the_document_names_every_route_with_examples_and_errors(service):
    document = service.ask("/docs.json").json
    found = {(method, path) for path, one in document["paths"].items() for method in one}
    assert document["openapi"].startswith("3.1") and found == OPERATIONS
    for method, path in OPERATIONS:
        operation = document["paths"][path][method]
        assert operation["summary"]
        if method == "post":
            assert operation["security"] == [{"key": []}]
            assert {"401", "415", "429", "503"} <= set(operation["responses"])
    assert "HTTPValidationError" not in document["components"]["schemas"]
    document_in = document["components"]["schemas"]["DocumentIn"]
    assert document_in["properties"]["text"]["examples"]
