"""Every trigger asks for the same: `monitor --retrain-on-drift`, with options that there are."""

import re
import shlex
from pathlib import Path

import hcl2
import pytest
import typer
import yaml

from cli.app import app
from cli.schedule import Verb, _require_remote
from deployment.retraining.request import Trigger
from tamis.errors import StackError

PROJECT = Path(__file__).resolve().parents[3]


def nightly():
    text = (PROJECT / ".github/workflows/nightly.yml").read_text()
    (line,) = re.findall(r"run\.py (monitor .*?) *\\?$", text, re.MULTILINE)
    return shlex.split(line.replace("$GITHUB_RUN_ID", "1234"))


def job():
    manifest = yaml.safe_load((PROJECT / "deployment/cloud_run/monitor-job.yaml").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["template"]["spec"]["containers"]
    return container["args"][1:]


def terraform():
    text = (PROJECT / "deployment/terraform/terraform.tfvars.example").read_text()
    block = re.search(r"^# schedules = \{\n(?:# .*\n)*?# \}", text, re.MULTILINE)[0]
    found = hcl2.loads(re.sub(r"^# ?", "", block, flags=re.MULTILINE) + "\n")
    schedule = found["schedules"]["daily-monitor"]
    return [part.strip('"') for part in (schedule["verb"], *schedule["args"])]


def crontab():
    with pytest.raises(StackError) as refused:
        _require_remote("local", Verb.monitor, "edu_quality", "17 3 * * *")
    return shlex.split(str(refused.value).split("run.py ")[1])


def listener(monkeypatch, tmp_path):
    from cli import listen
    from deployment.listening import server

    taken = []
    monkeypatch.setattr(server, "listen", lambda *given: taken.append(given))
    monkeypatch.setenv("TAMIS_HOME", str(tmp_path))
    monkeypatch.setenv("TAMIS_LISTEN_TOKEN", "x" * 20)
    listen.listen(settings=["seed=3"])
    command = taken[0][4]
    assert "TAMIS_LISTEN_TOKEN" not in command.environment
    return list(command.of("alertmanager:0a1b", "alertmanager:0a1b"))[2:]


@pytest.mark.parametrize("trigger", ["nightly", "job", "terraform", "crontab", "listener"])
def test_a_trigger_ends_in_the_same_function(trigger, monkeypatch, tmp_path):
    if trigger == "listener":
        words = listener(monkeypatch, tmp_path)
    else:
        words = {"nightly": nightly, "job": job, "terraform": terraform, "crontab": crontab}[
            trigger
        ]()
    assert words[0] == "monitor"
    command = typer.main.get_command(app).commands["monitor"]
    with command.make_context("monitor", words[1:]) as context:
        assert context.params["retrain_on_drift"] is True
        found = Trigger.parse(context.params["trigger"])
    kinds = {"nightly": "github", "crontab": "cron", "listener": "alertmanager"}
    assert found.kind == kinds.get(trigger, "schedule")
