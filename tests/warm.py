"""Python processes that start warm: forks of one that has imported other people's libraries.

Such a process has its own working folder, environment, output, and exit; what is ours (``cli``,
``deployment``, ``tamis`` and so on) it imports itself. Forks share the seed of hashes: where a
test is about two processes that differ in it, or about the start itself, let it start real ones.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path

LIBRARIES = (
    "zenml.client", "zenml.zen_stores.sql_zen_store", "zenml.pipelines.pipeline_definition",
    "zenml.config.compiler", "zenml.orchestrators.local.local_orchestrator",
    "zenml.orchestrators.step_runner", "zenml.stack.flavor_registry", "zenml.log_stores",
    "zenml.integrations.registry", "zenml.integrations.gcp.service_connectors",
    "zenml.integrations.gcp.flavors", "zenml.integrations.pytorch.materializers",
    "zenml.integrations.mlflow.model_registries", "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.pyfunc.backend", "torch",
    "torch.distributed.tensor", "accelerate", "transformers", "transformers.modeling_utils",
    "sklearn.linear_model", "sklearn.pipeline", "sklearn.feature_extraction.text", "scipy.stats",
    "pandas", "matplotlib.pyplot", "pyarrow.parquet", "gensim.corpora.wikicorpus", "datasketch",
)  # fmt: skip
QUIET = {
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_LOGGING_VERBOSITY": "WARN",
    "ZENML_ENABLE_RICH_TRACEBACK": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
}
"""What libraries read when they are imported, as a session sets it."""

NEW_HOME = """
from deployment.session import private_zenml
from deployment.stacks import load_stack

stack = load_stack("local")
with private_zenml(stack):
    from mlflow import MlflowClient
    from zenml.client import Client

    _ = Client().zen_store
    MlflowClient(stack.tracking_uri).search_experiments()
"""
"""Make the two empty databases of a home folder, which takes seconds each time."""

PROJECT = Path(__file__).resolve().parent.parent

_server: subprocess.Popen | None = None
_furnished: tempfile.TemporaryDirectory | None = None


def python(*arguments, cwd, env, given="", timeout=500):
    """Like ``subprocess.run([sys.executable, *arguments])`` with captured text, but warm.

    Args:
        arguments: A script and its arguments, or ``-c``, code and arguments.
        cwd: Working folder.
        env: The whole environment.
        given: What it reads from its standard input.
        timeout: Seconds after which it is killed and ``TimeoutExpired`` is raised.
    """
    arguments = [*map(str, arguments)]
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        files = {name: str(Path(folder) / name) for name in ("in", "out", "err")}
        Path(files["in"]).write_text(given, encoding="utf-8")
        asked = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), **files}
        code = _ask(json.dumps(asked), arguments, timeout)
        out, err = (Path(files[name]).read_text(encoding="utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess(arguments, code, out, err)


def furnish(home):
    """Give a new home folder empty databases, as its first run would make them."""
    global _furnished
    if (Path(home) / "zenml").exists() or (Path(home) / "mlflow.db").exists():
        return
    if _furnished is None:
        _furnished = tempfile.TemporaryDirectory(prefix="furnished-")
        env = {**os.environ, **QUIET, "TAMIS_HOME": _furnished.name, "PYTHONPATH": str(PROJECT)}
        done = python("-c", NEW_HOME, cwd=_furnished.name, env=env)
        assert done.returncode == 0, done.stderr
    shutil.copytree(_furnished.name, home, dirs_exist_ok=True)


def _ask(line, arguments, timeout):
    global _server
    if _server is None:
        _server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **QUIET},
            start_new_session=True,
        )
        atexit.register(_end, _server)
    done = False
    try:
        _server.stdin.write(line.encode() + b"\n")
        _server.stdin.flush()
        if not select.select([_server.stdout], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(arguments, timeout)
        code = json.loads(_server.stdout.readline())
        done = True
        return code
    finally:
        if not done:  # also where pytest interrupts
            _end(_server)
            _server = None


def _end(server):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    with server:
        pass


def _serve():
    """Answer each line with the exit code of a fork that has done what it asks for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[0] = os.devnull  # not this folder
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            answers.close()
            return json.loads(line)
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()
    return None


def _be(asked):
    """Become the process that was asked for, as far as a fork can."""
    for number, name in enumerate(("in", "out", "err")):
        descriptor = os.open(asked[name], os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    kind, *more = asked["arguments"]
    paths = [path for path in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    start = "" if kind == "-c" else str(Path(kind).parent)
    sys.path[:1] = [start, *paths]
    if kind != "-c":
        sys.argv = [kind, *more]
        runpy.run_path(kind, run_name="__main__")
        return
    code, *more = more
    sys.argv = ["-c", *more]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(compile(code, "<string>", "exec"), vars(main))


if __name__ == "__main__":
    found = _serve()
    if found is not None:
        _be(found)
