"""What a service process is told through its environment; read once, when it starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tamis.config import validate
from tamis.errors import UsageError
from tamis.serving.keys import ApiKeys, KeyRing, parse_keys
from tamis.serving.model import ServedModel, read_served
from tamis.serving.settings import ServeSettings

MODEL = "TAMIS_SERVE_MODEL"
SETTINGS = "TAMIS_SERVE_SETTINGS"
KEYS = "TAMIS_SERVE_KEYS"
KEYS_FILE = "TAMIS_SERVE_KEYS_FILE"
LOG = "TAMIS_SERVE_LOG"
HEALTH_ROUTE = "AIP_HEALTH_ROUTE"
PREDICT_ROUTE = "AIP_PREDICT_ROUTE"
STORAGE = "AIP_STORAGE_URI"
BAKED = Path(__file__).resolve().parents[2] / "served"
"""Where a package holds its model: ``/app/served`` in an image."""
_VERSION = re.compile(r"\d+-[0-9a-f]{12}")


@dataclass(frozen=True)
class Environment:
    """How one process serves.

    Attributes:
        folder: Of the served model.
        served: What it holds.
        settings: Its settings, with those of the environment laid over them.
        keys: Who may ask.
        log: Folder of the request log; None keeps none.
        routes: Paths that Vertex AI asks for, and the routes they stand for.
    """

    folder: Path
    served: ServedModel
    settings: ServeSettings
    keys: KeyRing
    log: Path | None
    routes: Mapping[str, str]


def read_environment(variables: Mapping[str, str]) -> Environment:
    """All that a process needs to know.

    Raises:
        UsageError: A variable is missing or wrong, or there is no key though keys are asked for.
        ModelError: The folder holds no served model.
    """
    folder = _folder(variables)
    served = read_served(folder)
    _require_same(served, variables.get(STORAGE, ""))
    settings = _settings(served.settings, variables.get(SETTINGS, ""))
    file = variables.get(KEYS_FILE)
    fixed = parse_keys(variables[KEYS], KEYS) if variables.get(KEYS) else ApiKeys()
    keys = KeyRing(fixed, Path(file) if file else None)
    if settings.auth == "keys" and not len(keys):
        raise UsageError(
            f"{KEYS_FILE}: given no key in force; allowed: a file from `python run.py keys create`,"
            f" the same in {KEYS}, or serve.auth: none where something else guards the service"
        )
    log = variables.get(LOG)
    routes = {
        variables[name]: route
        for name, route in ((HEALTH_ROUTE, "/readyz"), (PREDICT_ROUTE, "/predict"))
        if variables.get(name)
    }
    return Environment(folder, served, settings, keys, Path(log) if log else None, routes)


def _folder(variables: Mapping[str, str]) -> Path:
    named = variables.get(MODEL)
    if named:
        return Path(named)
    if BAKED.is_dir():
        return BAKED
    raise UsageError(f"{MODEL}: given nothing; allowed: a folder that `run.py serve` made")


def _require_same(served: ServedModel, uploaded: str) -> None:
    """Refuse to answer for a version that Vertex AI believes to be another one.

    Raises:
        UsageError: The model that was uploaded is not the one that the image holds.
    """
    name = uploaded.rstrip("/").rpartition("/")[2]
    ours = f"{served.version}-{served.digest[:12]}"
    if _VERSION.fullmatch(name) and name != ours:
        raise UsageError(
            f"{STORAGE}: given version {name}; allowed: {ours}, which this image holds; set the "
            "stack's serving.image to the image of the package of that version"
        )


def _settings(given: ServeSettings, text: str) -> ServeSettings:
    """Settings with others laid over them, key by key."""
    if not text.strip():
        return given
    try:
        over = yaml.safe_load(text)
    except yaml.YAMLError:
        over = None
    if not isinstance(over, dict):
        raise UsageError(f"{SETTINGS}: given no mapping; allowed: YAML such as {{threads: 2}}")
    return validate(ServeSettings, _laid_over(given.model_dump(mode="json"), over), SETTINGS)


def _laid_over(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            value = _laid_over(below, value)
        merged[key] = value
    return merged
