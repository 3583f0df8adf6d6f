"""A ZenML session on a stack.

A session works on a private copy of the ZenML configuration, so that the stack that the user
has active is never changed, not even for a moment and not by a run that is killed.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployment.stacks import PROJECT, LocalStack, Stack, home_folder, load_stack
from deployment.vertex.settings import VertexStack
from tamis.errors import StackError


@dataclass(frozen=True)
class Session:
    """An open session on a stack.

    Attributes:
        name: Name of the stack file.
        stack: Its settings.
    """

    name: str
    stack: Stack

    @property
    def remote(self) -> bool:
        """Whether steps run on other machines."""
        return not isinstance(self.stack, LocalStack)

    @property
    def vertex(self) -> VertexStack:
        """The settings of a stack on Vertex AI.

        Raises:
            StackError: The stack is on this machine.
        """
        if isinstance(self.stack, LocalStack):
            raise StackError(f"--stack: given {self.name!r}; allowed: a stack on Vertex AI")
        return self.stack

    @property
    def home(self) -> Path:
        """Folder on this machine for this stack's files."""
        if isinstance(self.stack, LocalStack):
            return self.stack.folder
        return home_folder() / "stacks" / self.name

    @property
    def scratch(self) -> str:
        """Folder for the files of a step, on the machine that runs it."""
        return str(self.home) if isinstance(self.stack, LocalStack) else self.stack.scratch

    @property
    def shared(self) -> str:
        """Folder or URL that all steps see, and this machine too."""
        return str(self.home) if isinstance(self.stack, LocalStack) else self.stack.bucket

    @property
    def ledger(self) -> str:
        """URL of the promotion ledger's folder."""
        return f"{self.shared}/ledger"

    @property
    def outputs(self) -> str:
        """Folder or URL below which filters write unless told otherwise."""
        return f"{self.shared}/output"


@contextmanager
def open_session(name: str, experiments: tuple[str, ...] = ()) -> Iterator[Session]:
    """Run ZenML on a stack for the length of a ``with`` block.

    Must be entered before ZenML is imported anywhere in the process. A local stack is made if
    it is not there yet; a remote one has to be (``stack up``).

    Args:
        name: Name of the stack.
        experiments: MLflow experiments that the block logs to.

    Raises:
        StackError: There is no such stack, its server does not answer, or it is not registered.
        ConfigError: Its file is wrong.
    """
    stack = load_stack(name)
    with private_zenml(stack) as (private, base), ExitStack() as during:
        if isinstance(stack, LocalStack):
            _begin_local(name, stack, private, base, experiments)
        else:
            from deployment.vertex import remote

            during.enter_context(remote.begin(name, stack, experiments))
        warnings.filterwarnings("ignore", category=FutureWarning)  # imports have reset it
        yield Session(name=name, stack=stack)


@contextmanager
def private_zenml(stack: Stack) -> Iterator[tuple[Path, Path]]:
    """A copy of the ZenML configuration that a stack starts from, used in this block.

    Yields:
        The copy's folder and the original's.
    """
    base = _zenml_folder(stack)
    private = Path(tempfile.mkdtemp(prefix="tamis-zenml-"))
    before = dict(os.environ)
    try:
        for file in ("config.yaml", "credentials.yaml"):
            if (base / file).is_file():
                shutil.copy2(base / file, private / file)
        _environment(private, base)
        yield private, base
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(private, ignore_errors=True)


def _zenml_folder(stack: Stack) -> Path:
    """The ZenML configuration that a session starts from: for a remote stack the user's own."""
    if isinstance(stack, LocalStack):
        (stack.zenml_config / "local_stores").mkdir(parents=True, exist_ok=True)
        return stack.zenml_config
    given = os.environ.get("ZENML_CONFIG_PATH")
    if given:
        return Path(given).resolve()
    import click

    return Path(click.get_app_dir("zenml"))


def _environment(private: Path, base: Path) -> None:
    os.environ.pop("ZENML_ACTIVE_STACK_ID", None)
    os.environ["ZENML_CONFIG_PATH"] = str(private)
    os.environ["ZENML_LOCAL_STORES_PATH"] = str(base / "local_stores")
    os.environ["ZENML_REPOSITORY_PATH"] = str(private)
    os.environ.setdefault("ZENML_ANALYTICS_OPT_IN", "false")
    os.environ.setdefault("ZENML_LOGGING_VERBOSITY", "WARN")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("ZENML_ENABLE_RICH_TRACEBACK", "false")
    # Of libraries, about their own future; also in the processes that sift.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::DeprecationWarning")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _begin_local(
    name: str, stack: LocalStack, private: Path, base: Path, experiments: tuple[str, ...]
) -> None:
    """Start ZenML; where there was no configuration yet, keep the one that it makes.

    It holds the id of the local user, which is part of ZenML's cache keys.
    """
    from zenml.client import Client

    from deployment import components

    logging.getLogger("zenml").setLevel(logging.ERROR)
    _ = Client().zen_store  # which writes the configuration
    if not (base / "config.yaml").is_file():
        shutil.copy2(private / "config.yaml", base / "config.yaml")
    components.begin(PROJECT)
    components.register(name, components.of_local(stack))
    components.activate(name)
    if not experiments:
        return
    from deployment.registry import Registry, ensure_experiment

    client = Registry().client
    for experiment in experiments:  # whose files would go to the working folder otherwise
        ensure_experiment(client, experiment, stack.folder / "mlruns" / experiment)
