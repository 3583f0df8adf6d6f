"""Which files of this project a service needs: what its module imports, and what that imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OURS = ("cli", "deployment", "materializers", "pipelines", "steps", "tamis")
"""Top-level packages of this project."""
SERVICE = "deployment.service"
_NOT_SERVED = ("tamis.monitoring.windows", "tamis.monitoring.window_files", "tamis.corpus.store")
"""Modules that functions import which no service calls: they read windows of the request log."""
_BESIDE = ("deployment/serving",)
"""Folders whose other files (the page) are needed, too."""


@dataclass
class Sources:
    """What a module of this project needs.

    Attributes:
        files: Files of this project, below its root.
        always: Packages of others that are imported as soon as the module is.
        with_modules: Those that a module imports which some function imports.
        in_functions: Those that some function imports itself.
    """

    files: tuple[str, ...]
    always: frozenset[str]
    with_modules: frozenset[str]
    in_functions: frozenset[str]


def sources_of(root: Path, module: str = SERVICE) -> Sources:
    """Follow the imports of a module through this project.

    Imports within functions are followed, those for type checkers are not.

    Args:
        root: Of the project.
        module: Where to begin.

    Raises:
        FileNotFoundError: There is no such module.
    """
    if _file(root, module) is None:
        raise FileNotFoundError(f"{root}: there is no module {module}")
    always: set[str] = set()
    _follow(root, module, deep=False, at_top=always, below=set())
    top: set[str] = set()
    below: set[str] = set()
    files = _follow(root, module, deep=True, at_top=top, below=below)
    for folder in _BESIDE:
        found = (file for file in (root / folder).rglob("*") if file.is_file())
        files |= {file for file in found if file.suffix not in (".py", ".pyc", ".md")}
    names = sorted(file.relative_to(root).as_posix() for file in files)
    visible = tuple(name for name in names if not any(p.startswith(".") for p in name.split("/")))
    return Sources(visible, frozenset(always), frozenset(top - always), frozenset(below - always))


def _follow(root: Path, module: str, deep: bool, at_top: set[str], below: set[str]) -> set[Path]:
    """Files of ours that are reached.

    Args:
        root: Of the project.
        module: Where to begin.
        deep: Whether imports within functions are followed.
        at_top: Gets the packages of others that modules import.
        below: Gets those that functions import.
    """
    seen: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(root, name)
        if name in seen or file is None:
            continue
        seen[name] = file
        waiting += [name.rpartition(".")[0]] if "." in name else []
        for imported, within in _imports(ast.parse(file.read_text("utf-8"))):
            top = imported.split(".")[0]
            if within and (not deep or imported.startswith(_NOT_SERVED)):
                continue
            if top in OURS:
                waiting.append(imported)
            elif top not in sys.stdlib_module_names:
                (below if within else at_top).add(top)
    return set(seen.values())


def _file(root: Path, module: str) -> Path | None:
    """The file of a module or of a package; None where the name is one in a module."""
    path = root.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imports(node: ast.AST, within: bool = False) -> Iterator[tuple[str, bool]]:
    """Full names of what is imported, and whether by a function.

    ``from a import b`` names both ``a`` and ``a.b``, of which either may be a module.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _imports(other, within)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, True)
        elif isinstance(child, ast.Import):
            yield from ((alias.name, within) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            yield child.module, within
            yield from ((f"{child.module}.{alias.name}", within) for alias in child.names)
        else:
            yield from _imports(child, within)
