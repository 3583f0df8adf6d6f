"""The configuration for addresses of this machine, and faster."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deployment.monitoring.configs import (
    Email,
    Intervals,
    Receivers,
    address_of,
    alertmanager_config,
    prometheus_config,
    rule_files,
)
from tamis.errors import UsageError

ALL = Receivers(
    listener="http://127.0.0.1:3010",
    token_file=Path("token"),
    slack_url_file=Path("slack"),
    slack_channel="#here",
    email=Email("a@b.example", "c@d.example", "smtp.example:25", "u", Path("password")),
)
FAST = Intervals(scrape=0.5, evaluation=0.5, group_wait=0.0, speed=60.0)


def prometheus(services, listener=None):
    text = prometheus_config(services, listener, "127.0.0.1:1", "127.0.0.1:2", FAST)
    return yaml.safe_load(text)


def test_jobs_have_the_addresses_and_no_other():
    config = prometheus(["http://127.0.0.1:3000", "http://[::1]:3001"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs.keys() == {"tamis", "prometheus", "alertmanager"}
    assert jobs["tamis"]["static_configs"] == [{"targets": ["127.0.0.1:3000", "[::1]:3001"]}]
    assert jobs["tamis"]["metrics_path"] == "/metrics"
    assert config["global"]["scrape_timeout"] == "500ms"
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:2"]
    jobs = {
        job["job_name"]: job
        for job in prometheus(["https://x.example/api/"], "http://l:9")["scrape_configs"]
    }
    assert jobs["tamis"]["scheme"] == "https"
    assert jobs["tamis"]["metrics_path"] == "/api/metrics"
    assert jobs["tamis"]["static_configs"] == [{"targets": ["x.example:443"]}]
    assert jobs["tamis-monitor"]["static_configs"] == [{"targets": ["l:9"]}]


@pytest.mark.parametrize(
    "url", ["", "localhost:3000", "ftp://x", "http://", "http://x:y", "http://x:99999",
            "http://u@x:1", "http://x:1/?a=b"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UsageError, match="address"):
        address_of(url)


def test_services_of_two_kinds_are_refused():
    with pytest.raises(UsageError, match="begin alike"):
        prometheus(["http://x:1", "https://x:2"])


def test_every_receiver_is_told_and_secrets_are_files(tmp_path):
    config = yaml.safe_load(alertmanager_config(ALL, Intervals()))
    found = {one["name"]: one for one in config["receivers"]}
    webhook = found["monitor"]["webhook_configs"][0]
    assert webhook["url"] == "http://127.0.0.1:3010/alerts"
    assert webhook["http_config"]["authorization"] == {
        "type": "Bearer", "credentials_file": str(Path("token").absolute()),
    }  # fmt: skip
    assert found["people"]["slack_configs"][0]["channel"] == "#here"
    assert found["people-at-once"]["email_configs"][0]["to"] == "a@b.example"
    assert config["global"]["smtp_auth_password_file"] == str(Path("password").absolute())
    assert config["route"]["group_wait"] == "30s"
    if not shutil.which("amtool"):
        pytest.skip("amtool is not installed")
    for number, receivers in enumerate([ALL, Receivers()]):
        file = tmp_path / f"{number}.yml"
        file.write_text(alertmanager_config(receivers, FAST))
        subprocess.run(["amtool", "check-config", file], check=True, capture_output=True)


def test_whoever_is_not_named_is_not_told():
    config = yaml.safe_load(alertmanager_config(Receivers(), FAST))
    assert config["receivers"] == [
        {"name": "people"}, {"name": "people-at-once"}, {"name": "monitor"},
    ]  # fmt: skip
    assert config["global"] == {"resolve_timeout": "5m"}


def test_a_listener_needs_its_token():
    with pytest.raises(UsageError, match="token"):
        alertmanager_config(Receivers(listener="http://x:1"), FAST)


def test_times_are_shorter_and_nothing_else():
    slow = yaml.safe_load("---\n" + rule_files(Intervals())["model.yml"])
    fast = yaml.safe_load(rule_files(FAST)["model.yml"])
    first = [content["groups"][0]["rules"][0] for content in (slow, fast)]
    assert [rule["for"] for rule in first] == ["10m", "10000ms"]
    assert first[0] | {"for": ""} == first[1] | {"for": ""}
    recording = rule_files(FAST)["recording.yml"]
    assert "increase(tamis_score_bucket[60000ms])" in recording
    assert "increase(tamis_requests_total" in recording
    assert "[5000ms]" in recording
    assert "task_version_le:tamis_score:increase1h" in recording, "names stay"
    instantly = rule_files(Intervals(speed=1e9))["recording.yml"]
    assert "[1000ms]" in instantly, "a window holds a scrape"
    route = yaml.safe_load(alertmanager_config(Receivers(), FAST))["route"]
    assert (route["group_wait"], route["group_interval"]) == ("0s", "5000ms")
    assert route["routes"][0]["repeat_interval"] == "240000ms"
    assert route["routes"][1]["group_wait"] == "0s"
