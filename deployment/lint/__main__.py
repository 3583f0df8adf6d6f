"""Lint manifests, images, workflows and monitoring: `python -m deployment.lint [--complete]`.

With ``--complete`` a check whose program is missing is a finding; without, a notice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deployment.lint import containers, kubernetes, monitoring, workflows
from deployment.lint.tools import NotInstalled

CHECKS: dict[str, Callable[[Path], Iterator[str]]] = {
    "kubernetes": kubernetes.kubernetes_findings,
    "cloud run": kubernetes.cloud_run_findings,
    "dockerfiles": containers.dockerfile_findings,
    "compose schema": containers.compose_schema_findings,
    "compose": containers.compose_findings,
    "configuration": containers.configuration_findings,
    "github schema": workflows.schema_of_github_findings,
    "zizmor": workflows.zizmor_findings,
    "actionlint": workflows.actionlint_findings,
    "workflows": workflows.policy_findings,
    "prometheus": monitoring.rule_findings,
    "alerts": monitoring.rule_test_findings,
    "alertmanager": monitoring.route_findings,
    "dashboards": monitoring.dashboard_findings,
}
ROOT = Path(__file__).resolve().parents[2]


def lint(root: Path = ROOT) -> tuple[list[str], list[str]]:
    """Findings of every check, and why checks were skipped, one sentence each."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        results = pool.map(lambda check: _one(check, root), CHECKS.items())
        answers = list(results)
    findings = [finding for found, _ in answers for finding in found]
    return findings, [reason for _, reason in answers if reason]


def _one(check: tuple[str, Callable[[Path], Iterator[str]]], root: Path) -> tuple[list[str], str]:
    name, function = check
    try:
        return list(function(root)), ""
    except NotInstalled as reason:
        return [], f"{name}: not checked: {reason}"


def main(arguments: Sequence[str]) -> int:
    """Print what was found; 1 where anything was."""
    findings, skipped = lint()
    if "--complete" in arguments:
        findings, skipped = [*findings, *skipped], []
    for notice in skipped:
        print(f"notice: {notice}", file=sys.stderr)  # noqa: T201
    for finding in findings:
        print(finding, file=sys.stderr)  # noqa: T201
    if not findings:
        done = len(CHECKS) - len(skipped)
        print(f"Manifests, images, workflows, monitoring: {done} checks, no finding")  # noqa: T201
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
