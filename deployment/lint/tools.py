"""Programs that lint, and what comes of asking them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


class NotInstalled(Exception):
    """A program that a check needs is not there; its text says which, and where it comes from."""


def program(name: str, source: str) -> str:
    """Where a program is: beside this Python, or on the path.

    Raises:
        NotInstalled: It is nowhere.
    """
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name)
    if found is None:
        raise NotInstalled(f"{name} is not installed; it comes with {source}")
    return found


def output(command: Sequence[str], cwd: Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a program.

    Raises:
        NotInstalled: It took longer than two minutes.
    """
    try:
        done = subprocess.run(
            list(command), cwd=cwd, capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{Path(command[0]).name} did not end within 120 s") from None
    return done.returncode, done.stdout, done.stderr


def answer(command: Sequence[str], cwd: Path) -> Any:
    """The JSON that a program prints, whatever its exit status.

    Raises:
        NotInstalled: It printed none, so it did not look at anything.
    """
    status, text, problems = output(command, cwd)
    try:
        return json.loads(text)
    except ValueError:
        said = (problems or text).strip().splitlines() or ["nothing"]
        name = Path(command[0]).name
        raise NotInstalled(f"{name} did not run (exit {status}): {said[-1]}") from None


def documents(text: str, where: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The mappings in a YAML text, and what is wrong with it."""
    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        return [], [f"{where}: it is no YAML: {' '.join(str(error).split())}"]
    if not all(isinstance(document, dict) for document in found):
        return [], [f"{where}: given something other than a mapping"]
    return found, []


def relative(path: Path, root: Path) -> str:
    """How a file is named in a finding."""
    return path.relative_to(root).as_posix()
