"""Which paths mean the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tamis.errors import UsageError
from tamis.task import FilesSource, HubSource, Source, Task


def is_url(path: str) -> bool:
    """Whether a path names a place that other machines see."""
    protocol, separator, _ = path.removeprefix("@").partition("://")
    return bool(separator) and protocol not in ("file", "local", "memory")


def require_urls(where: str, paths: Iterable[str]) -> None:
    """Refuse paths of this machine for work that happens on another.

    Raises:
        UsageError: One is of this machine.
    """
    for path in paths:
        if not is_url(path):
            raise UsageError(
                f"{where}: given {path!r}, which lies on this machine; allowed with a stack on "
                "Vertex AI: URLs such as gs://bucket/folder"
            )


def require_shared_sources(task: Task) -> None:
    """Refuse a task whose documents lie on this machine, likewise.

    A backbone at a path is not refused: it may be in the image.

    Raises:
        UsageError: They do.
    """
    for number, source in enumerate(task.sources):
        _require_shared(f"{task.name}: sources.{number}", source)
    if task.retrain.window is not None:
        _require_shared(f"{task.name}: retrain.window", task.retrain.window)


def _require_shared(where: str, source: Source) -> None:
    if isinstance(source, FilesSource):
        paths = (source.path,) if isinstance(source.path, str) else source.path
        require_urls(f"{where}.path", paths)
    elif isinstance(source, HubSource) and Path(source.dataset).is_dir():
        require_urls(f"{where}.dataset", [source.dataset])
