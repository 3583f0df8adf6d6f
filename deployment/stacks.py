"""Stacks: their files, and a ZenML session on one of them.

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tamis.config import Strict, read_yaml, validate
from tamis.errors import StackError

PROJECT = Path(__file__).resolve().parent.parent
STACKS = PROJECT / "configs" / "stacks"


class LocalStack(Strict):
    """A stack on this machine."""

    kind: Literal["local"]
    home: str = ".tamis"

    @property
    def folder(self) -> Path:
        """Where everything of this stack lives; ``TAMIS_HOME`` wins over the file."""
        return (PROJECT / os.environ.get("TAMIS_HOME", self.home)).resolve()

    @property
    def tracking_uri(self) -> str:
        """Address of the MLflow store."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def owns_zenml(self) -> bool:
        """Whether the ZenML configuration is ours alone, not one that the user named."""
        return "ZENML_CONFIG_PATH" not in os.environ

    @property
    def zenml_config(self) -> Path:
        """ZenML configuration that the sessions start from."""
        given = os.environ.get("ZENML_CONFIG_PATH")
        return Path(given).resolve() if given else self.folder / "zenml"


@dataclass(frozen=True)
class Session:
    """An open session on a stack.

    Attributes:
        name: Name of the stack file.
        stack: Its settings.
    """

    name: str
    stack: LocalStack

    @property
    def home(self) -> Path:
        """Folder for this stack's local files."""
        return self.stack.folder

    @property
    def ledger(self) -> str:
        """URL of the promotion ledger's folder."""
        return str(self.home / "ledger")


def load_stack(name: str) -> LocalStack:
    """Settings of a stack by name.

    Raises:
        StackError: There is no such stack, or it is not configured.
        ConfigError: Its file is wrong.
    """
    path = STACKS / f"{Path(name).name}.yaml"
    if name == "vertex" and not path.is_file():
        raise StackError(
            "--stack vertex: not configured: configs/stacks/vertex.yaml does not exist; "
            "use --stack local"
        )
    if not path.is_file() or path.stem != name:
        known = ", ".join(sorted(file.stem for file in STACKS.glob("*.yaml")))
        raise StackError(f"--stack: given {name!r}; allowed: {known}, vertex")
    shown = f"configs/stacks/{path.name}"
    return validate(LocalStack, read_yaml(path, shown), shown)


@contextmanager
def open_session(name: str, experiments: tuple[str, ...] = ()) -> Iterator[Session]:
    """Run ZenML on a stack for the length of a ``with`` block.

    Must be entered before ZenML is imported anywhere in the process.

    Args:
        name: Name of the stack.
        experiments: MLflow experiments that the block logs to.

    Raises:
        StackError: See ``load_stack``; or ZenML is imported already.
    """
    stack = load_stack(name)
    base = stack.zenml_config
    (base / "local_stores").mkdir(parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix="tamis-zenml-"))
    before = dict(os.environ)
    try:
        for file in ("config.yaml", "credentials.yaml"):
            if (base / file).is_file():
                shutil.copy2(base / file, private / file)
        _environment(private, base)
        _begin(private, base)
        _register(name, stack)
        _prepare_tracking(stack, experiments)
        warnings.filterwarnings("ignore", category=FutureWarning)  # imports have reset it
        yield Session(name=name, stack=stack)
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(private, ignore_errors=True)


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


def _begin(private: Path, base: Path) -> None:
    """Start ZenML; where there was no configuration yet, keep the one that it makes.

    It holds the id of the local user, which is part of ZenML's cache keys.
    """
    from zenml.client import Client

    logging.getLogger("zenml").setLevel(logging.ERROR)
    _ = Client().zen_store  # which writes the configuration
    if not (base / "config.yaml").is_file():
        shutil.copy2(private / "config.yaml", base / "config.yaml")


def _register(name: str, stack: LocalStack) -> None:
    """Make the stack's components what the file says, and the stack active in this session."""
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind
    from zenml.utils import source_utils

    source_utils.set_custom_source_root(str(PROJECT))
    client = Client()
    wanted: dict[Any, tuple[str, dict[str, Any]]] = {
        Kind.ORCHESTRATOR: ("local", {}),
        Kind.ARTIFACT_STORE: ("local", {"path": str(stack.folder / "artifacts")}),
        Kind.EXPERIMENT_TRACKER: ("mlflow", {"tracking_uri": stack.tracking_uri}),
        Kind.MODEL_REGISTRY: ("mlflow", {}),
    }
    stack_name = f"tamis-{name}"
    for kind, (flavor, settings) in wanted.items():
        found = client.list_stack_components(name=stack_name, type=kind).items
        if not found:
            client.create_stack_component(stack_name, flavor, kind, settings)
        elif any(found[0].configuration.get(key) != value for key, value in settings.items()):
            client.update_stack_component(found[0].id, kind, configuration=settings)
    if not client.list_stacks(name=stack_name).items:
        client.create_stack(stack_name, dict.fromkeys(wanted, stack_name))
    client.activate_stack(stack_name)


def _prepare_tracking(stack: LocalStack, experiments: tuple[str, ...]) -> None:
    """Experiments keep their files under the stack's folder, not in the working folder."""
    if not experiments:
        return
    from deployment.registry import ensure_experiment

    for experiment in experiments:
        ensure_experiment(stack.tracking_uri, experiment, stack.folder / "mlruns" / experiment)
