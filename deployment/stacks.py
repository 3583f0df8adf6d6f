"""Stacks: the files that say where runs happen and where their results are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from deployment.vertex.settings import VertexStack
from tamis.config import Strict, read_yaml, validate
from tamis.errors import ConfigError, StackError

PROJECT = Path(__file__).resolve().parent.parent
STACKS = PROJECT / "configs" / "stacks"


class LocalStack(Strict):
    """A stack on this machine."""

    kind: Literal["local"]
    home: str = ".tamis"

    @property
    def folder(self) -> Path:
        """Where everything of this stack lives; ``TAMIS_HOME`` wins over the file."""
        return home_folder(self.home)

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


Stack = LocalStack | VertexStack


def home_folder(home: str = ".tamis") -> Path:
    """Folder for files on this machine: ``TAMIS_HOME``, or a folder of the project."""
    return (PROJECT / os.environ.get("TAMIS_HOME", home)).resolve()


def stack_file(name: str) -> Path:
    """The file of a stack; ``TAMIS_STACKS`` names another folder of such files.

    Raises:
        StackError: There is no such stack.
    """
    folder = Path(os.environ.get("TAMIS_STACKS") or STACKS)
    path = folder / f"{Path(name).name}.yaml"
    if not path.is_file() or path.stem != name:
        raise StackError(f"--stack: given {name!r}; allowed: {', '.join(stack_names()) or 'none'}")
    return path


def stack_names() -> list[str]:
    """The stacks that have a file."""
    folder = Path(os.environ.get("TAMIS_STACKS") or STACKS)
    return sorted(file.stem for file in folder.glob("*.yaml"))


def model_of(data: dict[str, Any], shown: str) -> type[LocalStack] | type[VertexStack]:
    """Which kind of stack a file describes.

    Raises:
        ConfigError: It does not say so.
    """
    kinds = {"local": LocalStack, "vertex": VertexStack}
    kind = data.get("kind", "nothing")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(shown, "kind", kind, "'local' or 'vertex'; this key is required")
    return kinds[kind]  # type: ignore[return-value]


def read_stack(name: str) -> tuple[dict[str, Any], str]:
    """The content of a stack's file, not checked yet, and what to call it.

    Raises:
        StackError: There is no such stack.
        ConfigError: It is not a mapping.
    """
    path = stack_file(name)
    shown = f"configs/stacks/{path.name}"
    return read_yaml(path, shown), shown


def load_stack(name: str) -> Stack:
    """Settings of a stack by name.

    Raises:
        StackError: There is no such stack.
        ConfigError: Its file is wrong, or has a placeholder in it.
    """
    data, shown = read_stack(name)
    found: Stack = validate(model_of(data, shown), data, shown)
    return found


def vertex_stack(name: str) -> VertexStack:
    """A stack that is on Vertex AI.

    Raises:
        StackError: It is not.
    """
    stack = load_stack(name)
    if not isinstance(stack, VertexStack):
        raise StackError(f"--stack: given {name!r}; allowed: a stack of kind vertex")
    return stack
