"""The Bento of a served model: code and model in one folder that `bentoml serve` starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tamis.errors import EngineError

SERVICE = "deployment.service:ScoreService"
SERVED = "served"
"""Folder of the model beside the code; in an image it is ``/app/served``."""
_CREATED = re.compile(r"^creation_time: .*$", re.MULTILINE)
_TOLD = 1_500
"""Characters of BentoML's words that are kept."""


def build_bento(
    root: Path,
    files: Iterable[str],
    served: Path,
    requirements: str,
    image: str,
    tag: str,
    labels: Mapping[str, str],
    at: str,
    target: Path,
) -> None:
    """Build a Bento in a process of its own, from copies of what belongs in it.

    Args:
        root: Of the project.
        files: Its files that the service needs.
        served: Folder of the served model.
        requirements: Pins, one a line.
        image: Base image.
        tag: ``name:version``.
        labels: Kept with the Bento.
        at: Its time of creation, ISO 8601; BentoML's clock would make another Bento each time.
        target: Where the Bento goes; must not exist.

    Raises:
        EngineError: BentoML refuses; its last words are told.
    """
    name, _, version = tag.partition(":")
    with TemporaryDirectory(prefix="tamis-bento-") as scratch:
        context, home = Path(scratch) / "context", Path(scratch) / "home"
        for file in files:
            copy = context / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, copy)
        shutil.copytree(served, context / SERVED, copy_function=shutil.copyfile)
        (context / "requirements.txt").write_text(requirements, "utf-8")
        (context / "bentofile.yaml").write_text(
            yaml.safe_dump(_bentofile(name, image, labels)), "utf-8"
        )
        command = [
            sys.executable,
            "-m",
            "bentoml",
            "build",
            "--version",
            version,
            "--output",
            "tag",
        ]
        done = subprocess.run(
            command,
            cwd=context,
            env=_environment(home),
            capture_output=True,
            text=True,
            check=False,
        )
        made = home / "bentos" / name / version
        if done.returncode or not made.is_dir():
            raise EngineError(f"bentoml build: {(done.stderr or done.stdout).strip()[-_TOLD:]}")
        _settle(made, at)
        shutil.copytree(made, target, copy_function=shutil.copyfile)


def _bentofile(name: str, image: str, labels: Mapping[str, str]) -> dict[str, object]:
    return {
        "service": SERVICE,
        "name": name,
        "description": f"Service of the model of {name}; TAMIS_SERVE_MODEL names its folder.\n",
        "labels": dict(labels),
        "include": ["deployment/**", "tamis/**", f"{SERVED}/**"],
        "python": {"requirements_txt": "requirements.txt", "lock_packages": False},
        "docker": {"base_image": image},
        "envs": [{"name": "TAMIS_SERVE_MODEL", "value": f"/home/bentoml/bento/src/{SERVED}"}],
    }


def _environment(home: Path) -> dict[str, str]:
    """No setting of the person who packs gets into a package."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "true",
        "DO_NOT_TRACK": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore",
    }


def _settle(bento: Path, at: str) -> None:
    """Take out what differs from one build to the next."""
    path = bento / "bento.yaml"
    text, replaced = _CREATED.subn(f"creation_time: '{at}'", path.read_text("utf-8"))
    if replaced != 1:
        raise EngineError(f"{path.name}: BentoML wrote no creation_time")
    path.write_text(text, "utf-8")
    for folder in sorted(bento.rglob("__pycache__")):
        shutil.rmtree(folder)
