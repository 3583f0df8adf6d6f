"""Rules, routes and dashboards: every alert is tested, explained and made of what is exported."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import prometheus_client
import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry

from cli.app import app
from deployment.lint import monitoring as lint
from deployment.lint.tools import NotInstalled
from deployment.monitoring.gauges import ERRORS, GAUGES, RETRAINS
from deployment.monitoring.pages import PAGES, expressions
from deployment.serving.metrics import Metrics
from tamis.monitoring.settings import MonitorSettings
from tamis.serving.model import ReferenceScores, ServedModel

PROJECT = Path(__file__).resolve().parents[3]
MONITORING = PROJECT / "deployment/monitoring"
RULES = [
    rule
    for file in sorted((MONITORING / "prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
FOREIGN = {"up", "ALERTS", "prometheus_rule_evaluation_failures_total",
           "alertmanager_notifications_failed_total"}  # fmt: skip
FUNCTIONS = {"and", "or", "unless", "by", "on", "ignoring", "group_left", "bool"}


def findings(check, root=PROJECT):
    try:
        return list(check(root))
    except NotInstalled as reason:
        pytest.skip(str(reason))


CHECKS = (
    lint.rule_findings, lint.rule_test_findings, lint.route_findings, lint.dashboard_findings,
)  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_is_wrong_with_them(check):
    assert findings(check) == []


SPOILT = {
    "an expression that is none": (
        lint.rule_findings, "prometheus/rules/service.yml", "> 0.8", ">> 0.8", "service.yml"),
    "an unknown key": (
        lint.rule_findings, "prometheus/prometheus.yml", "metrics_path", "metric_path", "metric_p"),
    "a limit that moved": (
        lint.rule_test_findings, "prometheus/rules/service.yml", "ratio5m > 0.01",
        "ratio5m > 0.001", "TamisErrors"),
    "a receiver that is not there": (
        lint.route_findings, "alertmanager/alertmanager.yml", "receiver: monitor",
        "receiver: moniter", "moniter"),
    "a dashboard by hand": (
        lint.dashboard_findings, "grafana/dashboards/model.json", "Kept share", "My share",
        "not what the code makes"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", SPOILT)
def test_a_mistake_is_found(mistake, tmp_path):
    check, name, old, new, told = SPOILT[mistake]
    folder = tmp_path / "deployment/monitoring"
    shutil.copytree(MONITORING, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    tests = tmp_path / lint.TESTS
    tests.mkdir(parents=True)
    shutil.copy(PROJECT / lint.TESTS / "service.test.yml", tests)
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    found = findings(check, tmp_path)
    assert len(found) == 1
    assert told in found[0]


def unit_cases():
    """Of each alert, the labels that its tests expect; none where it is not to ring."""
    for file in sorted((PROJECT / lint.TESTS).glob("*.test.yml")):
        for one in yaml.safe_load(file.read_text())["tests"]:
            for case in one["alert_rule_test"]:
                expected = [alert["exp_labels"] for alert in case.get("exp_alerts", ())]
                yield case["alertname"], expected


def test_every_alert_is_tested_both_ways_and_names_its_task():
    cases = {(name, bool(expected)) for name, expected in unit_cases()}
    assert cases == {(name, rings) for name in ALERTS for rings in (True, False)}
    assert all(labels["task"] for _, expected in unit_cases() for labels in expected)


def test_every_alert_says_who_what_and_where_to_read_on():
    anchors = set(
        re.findall(r"^### (\w+)$", (PROJECT / "docs/runbook.md").read_text(), re.MULTILINE)
    )
    assert anchors == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_commands_of_the_runbook_are_there():
    known = typer.main.get_command(app).commands
    text = (PROJECT / "docs/runbook.md").read_text()
    calls = re.findall(r"python run\.py ([a-z][^`#\n]*)", text)
    asked = 0
    for words in map(str.split, calls):
        command = known.get(words[0])
        if words[0] == "requests":
            command = command.commands[words[1]]
        if command is None:
            assert words[0] == "listen", words[0]
            continue
        options = {word for word in words if word.startswith("--")}
        assert options <= {name for one in command.params for name in one.opts}, words
        asked += 1
    assert asked > 20


def test_what_calls_for_the_monitor_does_so():
    called = {name for name, rule in ALERTS.items() if rule["labels"].get("action") == "monitor"}
    assert called == {
        "TamisScoreShift", "TamisKeptShareShift", "TamisDrift", "TamisPerformance",
        "TamisMonitoringStale",
    }  # fmt: skip


def test_limits_are_those_that_the_monitor_has():
    settings = MonitorSettings()
    for name, limit in {
        "TamisErrors": settings.health.errors,
        "TamisTurnedAway": settings.health.rejected,
        "TamisLatency": settings.health.p95_seconds,
        "TamisLogDrops": settings.quality.dropped,
    }.items():
        stated = re.search(r"> ([\d.]+)", ALERTS[name]["expr"])[1]
        assert float(stated) == limit, name


def metrics_of(expression):
    """The names of series in an expression of PromQL."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", plain)
    plain = re.sub(r"\b(?:by|on|ignoring|group_left|without)\s*\([^)]*\)", "", plain)
    names = re.findall(r"(?<![\w:])[a-zA-Z_][\w:]*(?![\w:]*\s*\()", plain)
    return {name for name in names if name not in FUNCTIONS}


def samples(collector):
    """The names of everything that a metric may export."""
    kinds = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    for family in collector.collect():
        yield from (family.name + ending for ending in kinds[family.type])


@pytest.fixture(scope="module")
def exported():
    """What service, watcher and listener export."""
    from deployment.listening.metrics import Metrics as Listener

    reference = ReferenceScores(documents=2, kept=1, at_most=(1,) * 19 + (2,))
    served = ServedModel(
        task="toy", version="1", digest="0" * 64, backend="torch", threshold=2.5,
        scale=(0.0, 5.0), created="now", reference=reference,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        own = CollectorRegistry()
        for kind in ("Counter", "Gauge", "Histogram"):
            made = getattr(prometheus_client, kind)
            patch.setattr(
                prometheus_client, kind,
                lambda *given, _made=made, **named: _made(*given, registry=own, **named),
            )  # fmt: skip
        Metrics(served, 512)
    found = set(samples(own)) | set(GAUGES) | {f"{RETRAINS}_total", f"{ERRORS}_total"}
    return found | set(samples(Listener(Path("nowhere"))._registry))


def test_names_are_read_out_of_expressions():
    told = 'sum by (a, b) (rate(x_total{q=~"y|z"}[5m])) / on (a) group_left (c) k:v:r1h > bool 3e5'
    assert metrics_of(told) == {"x_total", "k:v:r1h"}


def test_rules_and_dashboards_are_made_of_what_is_exported_or_recorded(exported):
    every = [rule["expr"] for rule in RULES]
    every += [one for page in PAGES.values() for one in expressions(page)]
    used = {name for expression in every for name in metrics_of(expression)}
    assert len(used) > 40
    assert used <= exported | RECORDED | FOREIGN
    asked = {page.tasks for page in PAGES.values()}
    assert {re.search(r"\((\w+),", one)[1] for one in asked} <= exported
    assert used >= RECORDED, "each is used"
    unseen = {name for name in exported if name.startswith("tamis_") and "listen" not in name}
    endings = ("_count", "_sum")
    assert {n for n in unseen - used if not n.endswith(endings)} == set()


def test_expressions_of_dashboards_are_promql(tmp_path):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")
    every = [one for page in PAGES.values() for one in expressions(page)]
    rules = [
        {"record": f"x:{n}", "expr": one.replace("$__rate_interval", "5m").replace("$task", ".*")}
        for n, one in enumerate(every)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAGES)
def test_a_dashboard_is_one(name):
    made = json.loads((MONITORING / f"grafana/dashboards/{name}.json").read_text())
    panels = made["panels"]
    assert made["uid"] == f"tamis-{name}"
    assert made["schemaVersion"] >= 36
    assert [one["id"] for one in panels] == list(range(1, len(panels) + 1))
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] == "row":
            continue
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters))
        assert all(target["expr"] for target in panel["targets"])
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
    source = yaml.safe_load((MONITORING / "grafana/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["uid"] == "prometheus"


@pytest.mark.parametrize("name", PAGES)
def test_a_dashboard_is_of_grafanas_types(name):
    """Read into the types that Grafana publishes and written again, nothing is lost."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    made = json.loads((MONITORING / f"grafana/dashboards/{name}.json").read_text())
    again = models.Dashboard.from_json(json.loads(json.dumps(made)))
    assert json.loads(JSONEncoder().encode(again)) == made


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ({"severity": "warning", "action": "monitor"}, ["monitor", "people"]),
        ({"severity": "critical", "action": "monitor"}, ["monitor", "people-at-once"]),
        ({"severity": "critical"}, ["people-at-once"]),
        ({"severity": "warning"}, ["people"]),
        ({"severity": "info"}, ["people"]),
    ],
)
def test_alerts_go_where_they_belong(labels, receivers):
    if not shutil.which("amtool"):
        pytest.skip("amtool is not installed")
    given = [f"{name}={value}" for name, value in labels.items()]
    config = MONITORING / "alertmanager/alertmanager.yml"
    command = ["amtool", "config", "routes", "test", f"--config.file={config}", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0].split(",") == receivers


def test_no_secret_is_in_the_configuration():
    text = (MONITORING / "alertmanager/alertmanager.yml").read_text()
    assert not re.search(r"(?:password|credentials|api_url|token):", text)
    compose = yaml.safe_load((PROJECT / "deployment/docker-compose.yml").read_text())
    named = set(re.findall(r"/run/secrets/(\w+)", text))
    assert named == set(compose["services"]["alertmanager"]["secrets"])
    assert named <= set(compose["secrets"])
