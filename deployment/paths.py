"""Which paths mean the same on every machine."""

from __future__ import annotations

from collections.abc import Iterable

from tamis.errors import UsageError
from tamis.task import FilesSource, Task


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

    Raises:
        UsageError: A source does.
    """
    for number, source in enumerate(task.sources):
        if isinstance(source, FilesSource):
            require_urls(f"{task.name}: sources.{number}.path", _paths(source))
    if isinstance(task.retrain.window, FilesSource):
        require_urls(f"{task.name}: retrain.window.path", _paths(task.retrain.window))


def _paths(source: FilesSource) -> tuple[str, ...]:
    return (source.path,) if isinstance(source.path, str) else source.path
