"""python run.py inspect: look at documents of a filter's output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from cli.options import ResultFile

if TYPE_CHECKING:
    from tamis.scoring.inspection import Broken, Group, Inspection, Shown

console = Console(highlight=False)

_NAME = "inspect.html"
_LINES = 3
_STYLES = {"kept": "green", "dropped": "yellow", "duplicates": "blue", "quarantine": "red"}
_MARGIN = " " * 9


def inspect(
    output: Annotated[str, typer.Argument(metavar="DIR", help="Output of filter: folder or URL.")],
    n: Annotated[
        int, typer.Option("--n", "-n", min=1, max=1_000, help="Most documents of a group.")
    ] = 8,
    only: Annotated[
        str,
        typer.Option(
            "--only",
            help="Some groups: kept, near, dropped, duplicates, quarantined, or reasons; "
            "with commas between.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Other documents.")] = 0,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="The page; inspect.html in DIR, or here, by default."),
    ] = None,
    result: ResultFile = None,
) -> None:
    """Look at kept, dropped, near-threshold, duplicate and quarantined documents."""
    from cli.result import Clock, Result, check_writable, write

    clock = Clock()
    check_writable(result)
    page = html or _default_page(output)
    _check_page(page)
    from tamis.scoring.inspection import inspect_output
    from tamis.scoring.inspection.page import to_html

    names = [name.strip() for name in only.split(",") if name.strip()]
    found = inspect_output(output, n, seed, names)
    _write_page(page, to_html(found))
    write(
        Result(
            verb="inspect",
            stack="local",
            model_version=found.model or None,
            counts={
                **{name: int(number) for name, number in found.counts.model_dump().items()},
                "shards": found.shards,
                "shown": found.shown,
                "looked_at": found.looked_at,
            },
            outputs={"output": output, "html": str(page)},
            seconds=clock.seconds(),
        ),
        result,
    )
    show(found, console)
    _print(Text.assemble("\n  look at it: ", str(page)), console)


def _default_page(output: str) -> Path:
    """In the output, where that is a local folder to write to; else in the current folder."""
    from tamis.corpus.store import LocalStore, open_store

    store = open_store(output)
    if isinstance(store, LocalStore) and os.access(store.root, os.W_OK):
        return store.root / _NAME
    return Path(_NAME)


def _check_page(page: Path) -> None:
    """Find out before the work whether the page can be written after it.

    Raises:
        UsageError: The folder does not exist or is not writable, or the page is a folder.
    """
    from tamis.errors import UsageError

    if page.is_dir() or not os.access(page.absolute().parent, os.W_OK):
        raise UsageError(f"--html: given {str(page)!r}; allowed: a file that can be written")


def _write_page(page: Path, markup: str) -> None:
    """Put the page in place whole; a file of that name is replaced.

    Raises:
        UsageError: It cannot be written.
    """
    from tamis.errors import UsageError

    temporary = page.with_name(f".tmp-{os.getpid()}-{page.name}")
    try:
        temporary.write_text(markup, encoding="utf-8")
        temporary.replace(page)
    except OSError as error:
        raise UsageError(f"--html: {page} cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def show(found: Inspection, to: Console) -> None:
    """An inspection on a terminal; a text in it can neither style nor control that."""
    from tamis.scoring.inspection.plain import one_line

    style = "bold" if found.finished else "bold yellow"
    _print(Text.assemble((one_line(found.output, 200), "bold"), ", ", (found.state, style)), to)
    _print(Text(f"  {found.counts}"), to)
    if found.threshold is not None:
        scale = f"  kept from {found.threshold:g}, on a scale from {found.low:g} to {found.high:g}"
        model = f"; model {one_line(found.model, 100)}" if found.model else ""
        _print(Text(scale + model), to)
    for group in found.groups:
        _show_group(group, found.threshold, to)
    if not found.shown:
        _print(Text("\n  there is no document to show", "dim"), to)
    for path, problem in found.problems.items():
        told = f"  {one_line(path, 200)} cannot be read: {one_line(problem, 300)}"
        _print(Text(told, "red"), to)


def _show_group(group: Group, threshold: float | None, to: Console) -> None:
    from tamis.scoring.inspection.plain import one_line

    style = _STYLES[group.part]
    what = "near" if group.near else group.part
    name = one_line(group.name, 100)
    title = name if group.near or group.name == group.part else f"{_title(group.part)}: {name}"
    number = f"{group.shown:,} nearest" if what == "near" else f"{group.shown:,}"
    line = Text.assemble(
        "\n", (f"■ {title}", f"bold {style}"), (f"   {number} of {group.total:,}", "dim")
    )
    _print(line, to)
    for document in group.documents:
        _show_document(document, style, to)
    for row in group.broken:
        _show_broken(row, to)


def _title(part: str) -> str:
    return {"duplicates": "duplicate", "quarantine": "quarantined"}.get(part, part)


def _show_document(document: Shown, style: str, to: Console) -> None:
    from tamis.scoring.inspection.plain import one_line

    score = "       " if document.score is None else f"{document.score:7.3f}"
    parts = [one_line(document.source, 60), f"{one_line(document.shard, 80)}#{document.row}"]
    if document.language:
        parts.append(one_line(document.language, 12))
    if document.pii_found:
        parts.append(f"{document.pii_found:,} personal data")
    parts.append(f"id {one_line(document.id, 16)}")
    where = Text(" · ".join(part for part in parts if part), "dim")
    _indented(where, to, Text.assemble((score, f"bold {style}"), "  "))
    _excerpt(document.text or "(empty)", to)
    if document.duplicate_of is not None:
        same = "" if document.similarity is None else f" ({document.similarity:.0%} alike)"
        told = f"repeats {one_line(document.duplicate_of, 40)}{same}"
        if document.stays is not None:
            told += f": {one_line(document.stays.text, 400)}"
        _indented(Text(told, style), to, lines=1)


def _show_broken(row: Broken, to: Console) -> None:
    from tamis.scoring.inspection.plain import one_line

    where = f"{one_line(row.shard, 80)} · {one_line(row.place, 60)}"
    _indented(Text(where, "dim"), to, Text.assemble(("      ✗", "bold red"), "  "))
    if row.detail:
        _excerpt(row.detail, to)
    if row.raw.strip():
        _excerpt(row.raw, to, "dim")


def _excerpt(text: str, to: Console, style: str = "") -> None:
    """The beginning of a text in a few lines."""
    from tamis.scoring.inspection.plain import one_line

    _indented(Text(one_line(text, (_LINES + 1) * to.width), style), to, lines=_LINES)


def _indented(text: Text, to: Console, first: Text | None = None, lines: int = 100) -> None:
    """A text wrapped to the terminal's width beside a margin; what is over ``lines`` is cut."""
    width = max(to.width - len(_MARGIN), 20)
    wrapped = list(text.wrap(to, width))
    for number, line in enumerate(wrapped[:lines], start=1):
        line.rstrip()
        if number == lines < len(wrapped):
            line.truncate(width - 2)
            line.append(" …")
        margin = first if first is not None and number == 1 else _MARGIN
        _print(Text.assemble(margin, line), to)


def _print(text: Text, to: Console) -> None:
    # A terminal that knows few characters gets question marks, not an error.
    plain = text.plain.encode(to.encoding, "replace").decode(to.encoding)
    if plain != text.plain:
        text = Text(plain)
    to.print(text, markup=False, emoji=False, soft_wrap=True)
