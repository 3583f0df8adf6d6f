"""Prometheus' rules with their unit tests, Alertmanager's routes, Grafana's dashboards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deployment.lint.tools import NotInstalled, output, program, relative

MONITORING = "deployment/monitoring"
PROMETHEUS = f"{MONITORING}/prometheus/prometheus.yml"
ALERTMANAGER = f"{MONITORING}/alertmanager/alertmanager.yml"
DASHBOARDS = f"{MONITORING}/grafana/dashboards"
TESTS = "tests/deployment/monitoring/rules"
_SKIPPED = ("Checking", "Unit Testing", "SUCCESS")


def rule_findings(root: Path) -> Iterator[str]:
    """What promtool finds in Prometheus' configuration and rules.

    Raises:
        NotInstalled: There is no promtool.
    """
    promtool = program("promtool", "Debian's package prometheus")
    yield from _said([promtool, "check", "config", PROMETHEUS], PROMETHEUS, root)


def rule_test_findings(root: Path) -> Iterator[str]:
    """Where an alert rings, or does not, other than its unit tests say.

    Raises:
        NotInstalled: There is no promtool.
    """
    promtool = program("promtool", "Debian's package prometheus")
    for file in sorted((root / TESTS).glob("*.test.yml")):
        named = relative(file, root)
        yield from _said([promtool, "test", "rules", named], named, root)


def route_findings(root: Path) -> Iterator[str]:
    """What amtool finds in Alertmanager's configuration.

    Raises:
        NotInstalled: There is no amtool.
    """
    amtool = program("amtool", "Debian's package prometheus-alertmanager")
    yield from _said([amtool, "check-config", ALERTMANAGER], ALERTMANAGER, root)


def _said(command: list[str], where: str, root: Path) -> Iterator[str]:
    status, text, problems = output(command, root)
    if not status:
        return
    told = []
    for line in f"{text}\n{problems}".splitlines():
        before, failed, after = line.partition("FAILED:")
        said = after.strip() if failed else before.strip()
        if said and (failed or not said.startswith(_SKIPPED)):
            told.append(said)
    yield f"{where}: {' '.join(told) or f'exit {status}'}"


def dashboard_findings(root: Path) -> Iterator[str]:
    """Dashboards that are not what the code makes.

    Raises:
        NotInstalled: There is no grafana-foundation-sdk.
    """
    from deployment.monitoring.dashboards import rendered
    from deployment.monitoring.pages import PAGES

    for name, page in PAGES.items():
        file = root / DASHBOARDS / f"{name}.json"
        try:
            made = rendered(page)
        except ImportError:
            raise NotInstalled("grafana-foundation-sdk of requirements.txt is missing") from None
        if not file.is_file() or file.read_text("utf-8") != made:
            yield (
                f"{relative(file, root)}: not what the code makes; "
                "run python -m deployment.monitoring.dashboards"
            )
