"""A package is tried before it is handed over: the service is started from it and scores.

The process sees a virtual environment with the packages of the lock file alone, made of links to
those installed here, so that one that is missing in the lock file is missing there, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deployment.packaging.bento import SERVED, SERVICE
from deployment.packaging.closure import Pin
from tamis.errors import EngineError
from tamis.serving.keys import ApiKey, ApiKeys, hash_of
from tamis.serving.model import Probe, read_served

SECONDS = 180.0
"""For the service to be ready."""
_SAME = 1e-4
"""Largest difference of a score, as a share of the scale: of the same model on the same machine."""
_EVERY = 0.2
_TOLD = 1_500
"""Characters of the service's log that are kept in an error."""


def link_environment(pins: Sequence[Pin], folder: Path) -> Path:
    """A virtual environment of links to installed packages.

    Args:
        pins: The packages; all are installed here.
        folder: For the environment.

    Returns:
        Its Python.
    """
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin").mkdir()
    home = Path(sys.base_prefix) / "bin"
    (folder / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\n", "utf-8"
    )
    python = folder / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    for pin in pins:
        found = metadata.distribution(pin.key)
        for file in found.files or ():
            top = file.parts[0]
            if top in ("..", "__pycache__"):
                continue
            link = site / top
            # A namespace that several packages share is made of their files, one by one.
            if len(file.parts) > 1 and not _alone(top):
                link = site.joinpath(*file.parts)
                link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(link.relative_to(site)))))
    return python


def _alone(top: str) -> bool:
    """Whether a folder of site-packages belongs to one package only."""
    return top.endswith((".dist-info", ".libs")) or len(_owners().get(top, ())) < 2


_known: dict[str, list[str]] = {}


def _owners() -> dict[str, list[str]]:
    if not _known:
        _known.update({k: sorted(set(v)) for k, v in metadata.packages_distributions().items()})
    return _known


def try_bento(bento: Path, pins: Sequence[Pin], seconds: float = SECONDS) -> None:
    """Start the service of a Bento with nothing but the packages of its lock file, and ask it.

    Args:
        bento: The Bento.
        pins: Packages of its lock file.
        seconds: For it to be ready.

    Raises:
        EngineError: It does not start, or scores otherwise than when the model was prepared.
    """
    served = read_served(bento / "src" / SERVED)
    with TemporaryDirectory(prefix="tamis-trial-") as scratch:
        folder = Path(scratch)
        python = link_environment(pins, folder / "venv")
        key = secrets.token_urlsafe(32)
        keys = ApiKeys(keys=(ApiKey(name="trial", hash=hash_of(key)),))
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": scratch,
            "TMPDIR": scratch,
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "TAMIS_SERVE_MODEL": str(bento / "src" / SERVED),
            "TAMIS_SERVE_KEYS": keys.model_dump_json(),
        }
        with _service(python, bento / "src", environment, folder / "log") as (process, port):
            _wait(process, port, folder / "log", seconds)
            low, high = served.scale
            for number, probe in enumerate(served.probes):
                _compare(port, key, probe, _SAME * (high - low), explain=number == 0)


@contextlib.contextmanager
def _service(
    python: Path, source: Path, environment: dict[str, str], log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [str(python), "-m", "bentoml", "serve", SERVICE, "--host", "127.0.0.1",
               "--port", str(port), "--api-workers", "1"]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=source, env=environment, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield process, port
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            status, _ = _ask(f"http://127.0.0.1:{port}/readyz")
            if status == 200:
                return
        time.sleep(_EVERY)
    said = log.read_text("utf-8", "replace").strip()[-_TOLD:]
    raise EngineError(f"the service of the package does not start: {said}")


def _compare(port: int, key: str, probe: Probe, allowed: float, explain: bool) -> None:
    body = {"documents": [{"text": probe.text}], "explain": explain}
    status, answer = _ask(f"http://127.0.0.1:{port}/score", body, key)
    if status != 200:
        raise EngineError(f"the service of the package answers {status}: {answer}")
    score = float(answer["documents"][0]["score"])
    if not abs(score - probe.score) <= allowed:
        raise EngineError(
            f"the service of the package scores a probe {score:.6f}, where {probe.score:.6f} is "
            "right"
        )


def _ask(url: str, body: object = None, key: str = "") -> tuple[int, Any]:
    """Status and body of an answer; the body of another than 200 as text."""
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)  # noqa: S310  # of this machine
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            content = answer.read()
            return answer.status, json.loads(content) if body is not None else content
    except urllib.error.HTTPError as error:
        return error.code, error.read(500).decode("utf-8", "replace")
