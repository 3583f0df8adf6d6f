"""Start Ray on this machine, or join a cluster; and leave nothing behind.

A local Ray listens on the loopback interface only, asks for a random token, and ends with this
process, however that ends.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

import tamis
from tamis.engine.ray_watch import MARK
from tamis.errors import EngineError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # A task that died is counted and named by us; Ray would print a page of advice to stdout.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|Worker exit type",
    # Else `uv run` makes Ray upload the working directory.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # A call after the end shall fail, and not start another Ray with settings of its own.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""Of every session; what the user has set stays."""

LOCAL = {
    # Nothing reads the metrics, and their agent takes a second to start.
    "RAY_enable_metrics_collection": "0",
    # The name misleads: off, the node's address is 127.0.0.1 and Ray listens there only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # With a token of our own Ray writes none into the home directory.
    "RAY_AUTH_MODE": "token",
}
"""Of a Ray that we start."""

_STORE_BYTES = 256 * 2**20
"""Tasks pass token ids and scores of a few blocks; the model is not in there."""
_LONGEST_FOLDER = 16
"""Ray puts Unix sockets up to 65 characters below its folder, whose name has 21; the system
allows 107 in all, or 103."""


def package_folder() -> Path:
    """The sources of tamis, all that workers of a cluster are sent of this machine."""
    return Path(tamis.__file__).parent


class RaySession:
    """A connection to Ray; ``start`` or ``join`` it, then ``stop`` it."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._before: dict[str, str | None] = {}
        self._on_term: Any = None
        self._connected = False

    def start(self, cpus: int) -> None:
        """Start a Ray of this process's own, with so many logical CPUs and all GPUs.

        Raises:
            EngineError: It does not start, or this process is connected to a Ray already.
        """
        _require_none()
        self._set(QUIET | LOCAL | {"RAY_AUTH_TOKEN": _token()})
        self._folder = _short_folder()
        try:
            # Before Ray: this process may be killed while that starts.
            self._watch = _watch(self._folder)
            os.environ[MARK] = str(self._folder)
            self._init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                # One below: Ray opens its own to all users.
                _temp_dir=str(self._folder / "r"),
            )
        except BaseException:
            self.stop()
            raise
        finally:
            os.environ.pop(MARK, None)  # processes that others start are not Ray's

    def join(self, address: str) -> None:
        """Join a running cluster, in a namespace of our own; workers are sent our sources only.

        Args:
            address: ``host:port``, ``ray://host:port`` or ``auto``.

        Raises:
            EngineError: There is none, or this process is connected to a Ray already.
        """
        _require_none()
        self._set(QUIET)
        environment = {"TOKENIZERS_PARALLELISM": "false"}
        try:
            self._init(
                address=address,
                namespace=f"tamis-{uuid.uuid4().hex}",
                runtime_env={
                    "py_modules": [str(package_folder())],
                    "excludes": ["__pycache__", "*.pyc"],
                    "env_vars": environment,
                },
            )
        except BaseException:
            self.stop()
            raise

    def _init(self, **settings: Any) -> None:
        import ray

        main = threading.current_thread() is threading.main_thread()
        self._on_term = signal.getsignal(signal.SIGTERM) if main else None
        self._connected = True  # or half so, if this fails
        try:
            ray.init(
                log_to_driver=False,
                logging_level=logging.ERROR,
                _skip_env_hook=True,
                **settings,
            )
        except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
            what = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(f"Ray {settings['address']}: {what}") from error

    def stop(self) -> None:
        """Leave the cluster, or end the Ray that was started, with all of its processes."""
        try:
            if self._connected:
                import ray

                ray.shutdown(wait_for_processes=True)
        finally:
            self._connected = False
            if self._watch is not None:
                self._watch.communicate()  # it ends whatever is left
                self._watch = None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
            if self._on_term is not None:
                signal.signal(signal.SIGTERM, self._on_term)
                self._on_term = None
            for name, value in self._before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            self._before = {}

    def _set(self, environment: dict[str, str]) -> None:
        """Set variables that are not set; Ray has no other way to be told these things."""
        for name, value in environment.items():
            self._before[name] = os.environ.get(name)
            os.environ.setdefault(name, value)


def _require_none() -> None:
    """Do nothing unless this process is connected to a Ray.

    Raises:
        EngineError: It is.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        raise EngineError("this process is connected to a Ray already")


@functools.cache
def _token() -> str:
    """One for each process: Ray reads the token once and never again."""
    return secrets.token_hex(32)


def _short_folder() -> Path:
    short = len(tempfile.gettempdir()) <= _LONGEST_FOLDER
    return Path(tempfile.mkdtemp(prefix="tamis-ray-", dir=None if short else "/tmp"))  # noqa: S108


def _watch(folder: Path) -> subprocess.Popen[bytes]:
    """A process that outlives this one by moments, to end the Ray of a folder."""
    script = Path(__file__).with_name("ray_watch.py")
    return subprocess.Popen(
        [sys.executable, "-P", str(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
