from types import SimpleNamespace

import pytest

from deployment.releasing.targets import make_target
from tamis.errors import ConfigError, UsageError
from tamis.task import load_task


def test_the_real_service_keeps_the_figures_of_each_version_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("ZENML_CONFIG_PATH", "/private")
    session = SimpleNamespace(home=tmp_path)
    target = make_target("local", load_task("edu_quality"), session)
    one, two = (target._program(version, tmp_path / "model", 18_000) for version in "12")
    assert one.environment["BENTOML_HOME"] != two.environment["BENTOML_HOME"]
    assert one.environment["TAMIS_SERVE_MODEL"] == str(tmp_path / "model")
    assert "ZENML_CONFIG_PATH" not in one.environment
    assert "18000" in one.command
    assert "answers" in target.sees


def test_a_shadow_needs_the_request_log(tmp_path):
    task = load_task("edu_quality", ["serve.log.enabled=false"])
    target = make_target("local", task, SimpleNamespace(home=tmp_path))
    assert "answers" not in target.sees


@pytest.mark.parametrize("name", ["cloud-run", "kubernetes"])
def test_a_target_that_the_task_says_nothing_about(name, tmp_path):
    section = f"release.{name.replace('-', '_')}: given 'nothing'"
    with pytest.raises(ConfigError, match=section):
        make_target(name, load_task("edu_quality"), SimpleNamespace(home=tmp_path))


def test_a_target_that_there_is_not(tmp_path):
    with pytest.raises(UsageError, match="--target: given 'moon'"):
        make_target("moon", load_task("edu_quality"), SimpleNamespace(home=tmp_path))
