import json

import pytest

from deployment.serving.environment import KEYS, KEYS_FILE, LOG, MODEL, SETTINGS, read_environment
from deployment.serving.process import environment
from tamis.errors import ModelError, TamisError, UsageError
from tamis.serving.keys import ApiKey, ApiKeys, hash_of, write_keys
from tamis.serving.model import FILE
from tamis.serving.settings import RequestLimits, ServeSettings
from tests.serving.test_served_model import SERVED

ONE_KEY = ApiKeys(keys=(ApiKey(name="ada", hash=hash_of("secret")),)).model_dump_json()


@pytest.fixture
def folder(tmp_path):
    own = ServeSettings(limits=RequestLimits(documents=7), threads=2)
    served = SERVED.model_copy(update={"settings": own})
    (tmp_path / FILE).write_text(served.model_dump_json(), "utf-8")
    return tmp_path


def test_settings_are_laid_over_those_of_the_model_key_by_key(folder):
    found = read_environment(
        {MODEL: str(folder), KEYS: ONE_KEY, SETTINGS: "limits: {characters: 500}\nprocesses: 3"}
    )
    assert found.settings.limits == RequestLimits(documents=7, characters=500)
    assert (found.settings.threads, found.settings.processes) == (2, 3)
    assert found.served.version == "7"
    assert found.log is None
    assert found.routes == {}


def test_what_a_process_is_started_with_is_what_it_reads(folder, tmp_path):
    write_keys(tmp_path / "keys.json", [ApiKey(name="eve", hash=hash_of("other"))])
    told = environment(
        folder,
        log=tmp_path / "log",
        keys_file=tmp_path / "keys.json",
        settings={"queue_documents": 9},
        base={KEYS: "left over", SETTINGS: "left: over", "PATH": "/bin"},
    )
    found = read_environment(told)
    assert told["PATH"] == "/bin"
    assert found.settings.queue_documents == 9
    assert found.keys.who("other") == "eve"
    assert found.log == tmp_path / "log"


def test_keys_of_the_file_and_of_the_variable_both_count(folder, tmp_path):
    write_keys(tmp_path / "keys.json", [ApiKey(name="eve", hash=hash_of("other"))])
    found = read_environment(
        {MODEL: str(folder), KEYS: ONE_KEY, KEYS_FILE: str(tmp_path / "keys.json"), LOG: "/log"}
    )
    assert (found.keys.who("secret"), found.keys.who("other")) == ("ada", "eve")


def test_paths_of_vertex_stand_for_routes(folder):
    given = {"AIP_HEALTH_ROUTE": "/v1/health", "AIP_PREDICT_ROUTE": "/v1/predict"}
    found = read_environment({MODEL: str(folder), KEYS: ONE_KEY, **given})
    assert found.routes == {"/v1/health": "/readyz", "/v1/predict": "/predict"}


def test_a_service_without_a_key_does_not_start_unless_that_is_asked_for(folder, tmp_path):
    revoked = json.loads(ONE_KEY)
    revoked["keys"][0]["revoked"] = True
    for keys in ({}, {KEYS: json.dumps(revoked)}, {KEYS_FILE: str(tmp_path / "none.json")}):
        with pytest.raises(UsageError, match="given no key in force"):
            read_environment({MODEL: str(folder), **keys})
    found = read_environment({MODEL: str(folder), SETTINGS: "auth: none"})
    assert found.settings.auth == "none"


@pytest.mark.parametrize(
    ("uploaded", "right"),
    [
        (f"gs://bucket/models/toy/7-{'0' * 12}/", True),
        ("gs://caip-tenant/1234567890/artifacts", True),
        (f"gs://bucket/models/toy/8-{'0' * 12}", False),
        (f"gs://bucket/models/toy/7-{'1' * 12}", False),
    ],
)
def test_an_image_answers_for_no_other_version(folder, uploaded, right):
    variables = {MODEL: str(folder), KEYS: ONE_KEY, "AIP_STORAGE_URI": uploaded}
    if right:
        assert read_environment(variables).served.version == "7"
    else:
        with pytest.raises(UsageError, match="which this image holds"):
            read_environment(variables)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({MODEL: ""}, f"{MODEL}: given nothing"),
        ({MODEL: "/nowhere"}, "serving.json"),
        ({SETTINGS: "- a list"}, f"{SETTINGS}: given no mapping"),
        ({SETTINGS: "{unclosed"}, f"{SETTINGS}: given no mapping"),
        ({SETTINGS: "queue: 3"}, f"{SETTINGS}: queue"),
        ({SETTINGS: "limits: {documents: many}"}, f"{SETTINGS}: limits.documents: given 'many'"),
        ({SETTINGS: "auth: nobody"}, "allowed: 'keys' or 'none'"),
        ({KEYS: "secret"}, f"{KEYS}: given something else"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(folder, variables, said):
    with pytest.raises((UsageError, ModelError)) as caught:
        read_environment({MODEL: str(folder), KEYS: ONE_KEY, **variables})
    assert said in str(caught.value)
    assert isinstance(caught.value, TamisError)
    assert "secret" not in str(caught.value)
