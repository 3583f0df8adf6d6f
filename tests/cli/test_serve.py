"""The verbs serve and keys; the service itself is tested in tests/deployment/serving."""

import pytest
from typer.testing import CliRunner

from cli.app import app
from tamis.errors import UsageError
from tamis.serving.keys import read_keys


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def test_a_key_is_shown_once_and_found_by_its_hash(file):
    made = call("keys", "create", "ada", "--file", file)
    assert made.exit_code == 0
    key = made.stdout.strip().splitlines()[-1]
    assert read_keys(file).who(key) == "ada"
    listed = call("keys", "list", "--file", file).stdout
    assert "ada" in listed
    assert "in force" in listed
    assert key not in listed


def test_a_revoked_key_is_nobody_and_its_name_is_free_again(file):
    first = call("keys", "create", "ada", "--file", file).stdout.strip().splitlines()[-1]
    assert call("keys", "revoke", "ada", "--file", file).exit_code == 0
    assert read_keys(file).who(first) is None
    assert "revoked" in call("keys", "list", "--file", file).stdout
    second = call("keys", "create", "ada", "--file", file).stdout.strip().splitlines()[-1]
    assert read_keys(file).who(second) == "ada"
    assert read_keys(file).who(first) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "ada"], "given 'ada', which has a key"),
        (["create", "a b"], "given 'a b'; allowed: 1 to 64 letters"),
        (["revoke", "eve"], "given 'eve'; allowed: ada"),
    ],
)
def test_a_wrong_name_is_told(file, arguments, said):
    call("keys", "create", "ada", "--file", file)
    before = file.read_text("utf-8")
    error = call("keys", *arguments, "--file", file).exception
    assert isinstance(error, UsageError)
    assert said in str(error)
    assert file.read_text("utf-8") == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "tensorrt"], "--backend: given 'tensorrt'; allowed: torch, torch-bf16"),
        (["--set", "serve.queue=3"], "serve.queue: given 'queue'"),
        (["--set", "serve.limits.documents=0"], "serve.limits.documents"),
    ],
)
def test_a_service_that_cannot_be_is_refused_before_any_work(arguments, said):
    error = call("serve", *arguments).exception
    assert isinstance(error, UsageError)
    assert said in str(error)
