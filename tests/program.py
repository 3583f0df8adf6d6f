"""Run the command line as a person does: a process, a home folder of its own, an exit code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests import warm

PROJECT = Path(__file__).resolve().parent.parent

SMALL_TASK = """\
name: small
target: {kind: ordinal, minimum: 0, maximum: 5, keep_at_least: 2}
sources: [{kind: packages, genres: [wikipedia, licence]}]
text: {max_tokens: 32}
split: {folds: 0}
model: {frozen: {layers: [1, 2], heads: [ridge]}}
gate: {floor: 0.1, beat: [median]}
retrain:
  window: {kind: packages, genres: [news, readme]}
  old_margin: 0.3
"""
"""The real encoder, but one layer or two of 32 tokens, so that a run takes seconds."""


@dataclass
class Outcome:
    """What a run left: exit code, both outputs, and the result document if it wrote one."""

    code: int
    out: str
    err: str
    result: dict


def run(home, *arguments, project=PROJECT, **environment):
    """Run ``run.py`` with a home folder; every test has its own."""
    return _run(_start, home, arguments, project, environment)


def run_warm(home, *arguments, **environment):
    """Like ``run``, in a process that starts warm; a new home has its databases already."""
    warm.furnish(home)
    return _run(warm.python, home, arguments, PROJECT, environment)


def _start(*arguments, cwd, env):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def _run(python, home, arguments, project, environment):
    home = Path(home)
    home.mkdir(parents=True, exist_ok=True)
    file = home / "result.json"
    file.unlink(missing_ok=True)
    wants_result = arguments[0] not in ("stack", "--help") and "--help" not in arguments
    command = [str(Path(project) / "run.py"), *map(str, arguments)]
    if wants_result and "--result" not in arguments:
        command += ["--result", str(file)]
    variables = {**os.environ, "TAMIS_HOME": str(home), "COLUMNS": "200", **environment}
    done = python(*command, cwd=home, env=variables)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return Outcome(done.returncode, done.stdout, done.stderr, json.loads(text) if text else {})


def small_task(folder, text=SMALL_TASK):
    """Write the small task into a folder."""
    path = Path(folder) / "small.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
