"""How a service process is started: its command line and its environment."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from deployment.serving import environment as names

ROOT = Path(__file__).resolve().parents[2]
SERVICE = "deployment.service:ScoreService"


def command(port: int, host: str = "127.0.0.1", processes: int = 1) -> list[str]:
    """The command that serves; run it in ``ROOT`` with ``environment``.

    Args:
        port: To listen on.
        host: Address to listen on.
        processes: Worker processes.
    """
    return [
        sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(port),
        "--api-workers", str(processes),
    ]  # fmt: skip


def environment(
    folder: Path,
    *,
    log: Path | None = None,
    keys_file: Path | None = None,
    settings: Mapping[str, object] | None = None,
    home: Path | None = None,
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a process.

    Args:
        folder: Of the served model.
        log: Folder of the request log; None keeps none.
        keys_file: With the hashes of the keys.
        settings: Laid over those of the served model.
        home: Folder for BentoML's own files, of this process alone; a temporary one by default.
        base: What else it sees; this process's environment by default.
    """
    found = dict(os.environ if base is None else base)
    for name in (names.MODEL, names.LOG, names.KEYS, names.KEYS_FILE, names.SETTINGS):
        found.pop(name, None)
    found |= _QUIET | {names.MODEL: str(folder)}
    # BentoML empties the folder of figures below its home when it starts: each process has its own.
    temporary = Path(tempfile.gettempdir()) / f"tamis-serve-{uuid.uuid4().hex}"
    found["BENTOML_HOME"] = str(home or temporary)
    if log is not None:
        found[names.LOG] = str(log)
    if keys_file is not None:
        found[names.KEYS_FILE] = str(keys_file)
    if settings:
        found[names.SETTINGS] = json.dumps(settings)
    return found


_QUIET = {
    "BENTOML_DO_NOT_TRACK": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONPATH": str(ROOT),
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}
