"""python run.py data: the versions of labelled documents that were ingested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli.options import ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from deployment.data_versions import Catalogue, DataVersion, TrainedModel
    from tamis.corpus.data_diff import Change, DataDiff
    from tamis.task import Task

app = typer.Typer(
    help="Versions of the labelled documents that were ingested.", no_args_is_help=True
)
_NAMES = "the beginning of a fingerprint, champion (what it was trained on), or latest"
VersionName = Annotated[str, typer.Argument(metavar="V", help=f"A version: {_NAMES}.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write everything that was found to this file.")
]
_SHOWN = 3


@app.command("list")
def list_(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    settings: Settings = [],  # noqa: B006
    json: JsonFile = None,
    result: ResultFile = None,
) -> None:
    """List the versions, the newest first, and the models trained on each."""
    from cli.plan import console

    with _opened(task, stack, settings, result, json=json) as (_, found):
        pass
    if found.versions:
        console.print(_versions(found))
    else:
        console.print(f"{found.task}: no version yet; `python run.py train --task {task}`")
    for fingerprint, models in found.gone.items():
        console.print(
            f"[yellow]![/] {fingerprint[:12]}: {_models(models)} was trained on it; its documents "
            "were deleted"
        )
    for each in found.unreadable:
        console.print(f"[yellow]![/] {each.at:%Y-%m-%d %H:%M} {each.kind} {each.id[:8]}: ", end="")
        console.print(f"unreadable ({each.reason})", markup=False, soft_wrap=True)
    counts = {
        "versions": len(found.versions),
        "artifacts": sum(len(each.artifacts) for each in found.versions),
        "gone": len(found.gone),
        "unreadable": len(found.unreadable),
    }
    _finish("data list", found, stack, counts, result, json, found)


@app.command("show")
def show(
    version: VersionName,
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    settings: Settings = [],  # noqa: B006
    json: JsonFile = None,
    result: ResultFile = None,
) -> None:
    """Show one version: its documents by source, its artifacts, its models."""
    from cli.plan import console

    with _opened(task, stack, settings, result, json=json) as (_, found):
        chosen = found.find(version, "V")
    facts = chosen.facts
    console.print(f"[bold]{chosen.name}[/] [dim]{chosen.fingerprint}[/]", soft_wrap=True)
    lines = (
        ("task", facts.task),
        ("documents", f"{facts.documents:,}, {facts.labelled:,} with a label"),
        ("labels by", _plain(facts.labels_by, 400)),
        ("models", _models(chosen.models) or "none"),
        ("retrain", f"python run.py train --task {task} --data {chosen.name}"),
    )
    for name, told in lines:
        console.print(f"  [dim]{name:<10}[/] ", end="")
        console.print(told, markup=False, soft_wrap=True)
    if chosen.forms > 1:
        _warn_of_forms(chosen)
    sources = Table("source", title="\nSources", title_justify="left", box=None, pad_edge=False)
    sources.add_column("documents", justify="right")
    for source, count in sorted(facts.sources.items(), key=lambda item: -item[1]):
        sources.add_row(_cell(source, 80), f"{count:,}")
    console.print(sources)
    kept = Table(title="\nArtifacts", title_justify="left", box=None, pad_edge=False)
    for column in ("artifact", "ingested", "as", "content"):
        kept.add_column(column, no_wrap=True)
    for each in reversed(chosen.artifacts):
        kept.add_row(each.id[:8], f"{each.at:%Y-%m-%d %H:%M}", each.kind, each.content[:12])
    console.print(kept)
    counts = {
        "documents": facts.documents,
        "labelled": facts.labelled,
        "artifacts": len(chosen.artifacts),
        "models": len(chosen.models),
    }
    _finish("data show", found, stack, counts, result, json, chosen)


@app.command("diff")
def diff(
    old: Annotated[str, typer.Argument(metavar="A", help=f"The version before: {_NAMES}.")],
    new: Annotated[str, typer.Argument(metavar="B", help="The version after.")] = "latest",
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    settings: Settings = [],  # noqa: B006
    html: Annotated[Path | None, typer.Option("--html", help="Write a page to this file.")] = None,
    json: JsonFile = None,
    result: ResultFile = None,
) -> None:
    """Say what was added, removed, relabelled and rewritten between two versions."""
    from cli.plan import console

    with _opened(task, stack, settings, result, json=json, html=html) as (loaded, found):
        before, after = found.find(old, "A"), found.find(new, "B")
        from deployment import data_versions
        from deployment.data_export import put
        from tamis.corpus import data_diff

        compared = data_diff.diff(
            data_versions.load(before), data_versions.load(after), loaded.target
        )
    _show(compared)
    outputs = {}
    if html is not None:
        page = compared.to_html()
        put(html, lambda file: file.write_text(page, encoding="utf-8"), "--html")
        console.print(f"  look at it: {html}", markup=False, soft_wrap=True)
        outputs["html"] = str(html)
    counts = {"both": compared.both, "unchanged": compared.unchanged}
    for name, change in compared.changes().items():
        counts[name] = change.documents
        counts |= {f"{name}: {source}": n for source, n in change.sources.items()}
    _finish("data diff", found, stack, counts, result, json, compared, outputs)


@app.command("export")
def export(
    version: VersionName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .parquet, .jsonl or .csv file.")],
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    settings: Settings = [],  # noqa: B006
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    result: ResultFile = None,
) -> None:
    """Write a version's documents to a file that a task's files source can read."""
    from cli.plan import console
    from deployment.data_export import check_target
    from deployment.data_export import export as write_out

    check_target(file, force)
    with _opened(task, stack, settings, result) as (loaded, found):
        from deployment import data_versions

        documents = data_versions.load(found.find(version, "V"))
        write_out(documents, file, loaded.target)
    console.print(f"[green]✓[/] {len(documents):,} documents: ", end="")
    console.print(str(file), markup=False, soft_wrap=True)
    counts = {"documents": documents.info.documents, "labelled": documents.info.labelled}
    _finish("data export", found, stack, counts, result, outputs={"file": str(file)})


def artifact_of(task: Task, given: str) -> str:
    """Id of the artifact with a version's documents, fit to be trained on.

    Args:
        task: The task.
        given: The version, as the user named it.

    Raises:
        UsageError: There is no such version, it was deleted, or none of its documents has a label.
    """
    from cli.plan import console
    from deployment.data_versions import catalogue, present
    from tamis.errors import UsageError

    chosen = catalogue(task.name).find(given, "--data")
    if not chosen.facts.labelled:
        raise UsageError(
            f"--data: given {given!r}, of which no document has a label; allowed: a version with "
            "labels, as `python run.py data list` shows them"
        )
    kept = present(chosen)
    if chosen.forms > 1:
        _warn_of_forms(chosen)
    console.print(f"documents: version {chosen.name}, as ingested on {kept.at:%Y-%m-%d %H:%M}")
    return kept.id


@contextmanager
def _opened(
    task: str, stack: str, settings: list[str], result: Path | None, **files: Path | None
) -> Iterator[tuple[Task, Catalogue]]:
    """The task and its versions, in a session on the stack, once the files can be written."""
    from cli.plan import prepare
    from deployment.data_export import check_folder

    loaded = prepare(task, stack, settings, result)
    for option, file in files.items():
        check_folder(file, f"--{option}")
    from deployment.session import open_session

    with open_session(stack):
        from deployment.data_versions import catalogue

        yield loaded, catalogue(loaded.name)


def _finish(
    verb: str,
    found: Catalogue,
    stack: str,
    counts: dict[str, int],
    result: Path | None,
    json: Path | None = None,
    all_of_it: Any = None,
    outputs: dict[str, str] | None = None,
) -> None:
    from cli.result import Result, write
    from deployment.data_export import put

    outputs = dict(outputs or {})
    if json is not None:
        text = all_of_it.model_dump_json(indent=1) + "\n"
        put(json, lambda file: file.write_text(text, encoding="utf-8"), "--json")
        outputs["json"] = str(json)
    write(Result(verb=verb, task=found.task, stack=stack, counts=counts, outputs=outputs), result)


def _versions(found: Catalogue) -> Table:
    table = Table(
        title=f"Documents of {found.task}", title_justify="left", box=None, pad_edge=False
    )
    for column in ("version", "ingested", "documents", "labelled", "sources", "labels by",
                   "models"):  # fmt: skip
        table.add_column(
            column,
            justify="right" if column in ("documents", "labelled") else "left",
            no_wrap=column in ("version", "ingested", "documents", "labelled"),
            overflow="fold",
        )
    for each in found.versions:
        facts = each.facts
        others = [kind for kind in each.kinds if kind != "documents"]
        table.add_row(
            "\n".join((each.name, *(f"[dim]{kind}[/]" for kind in others))),
            _dates(each),
            f"{facts.documents:,}",
            f"{facts.labelled:,}",
            _sources(facts.sources),
            _cell(facts.labels_by, 40),
            _models(each.models),
        )
    return table


def _dates(version: DataVersion) -> str:
    first, last = (f"{at:%Y-%m-%d %H:%M}" for at in (version.first, version.last))
    times = len(version.artifacts)
    return first if times == 1 else f"{first}\n{last}\n[dim]{times} times[/]"


def _sources(sources: dict[str, int]) -> str:
    largest = sorted(sources.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{_cell(source, 30)} {count:,}" for source, count in largest[:_SHOWN]]
    more = len(sources) - _SHOWN
    return ", ".join([*told, f"{more:,} more"] if more > 0 else told)


def _models(models: tuple[TrainedModel, ...]) -> str:
    return ", ".join(" ".join((each.version, *each.aliases)) for each in models)


def _warn_of_forms(version: DataVersion) -> None:
    from cli.plan import console

    console.print(
        f"[yellow]![/] these documents were ingested in {version.forms} forms (another order, "
        f"other groups or sources); the newest is taken, `{version.name}@ARTIFACT` takes another",
        soft_wrap=True,
    )


def _show(found: DataDiff) -> None:
    from cli.plan import console

    table = Table(box=None, pad_edge=False)
    for column in ("", "documents", "sources", "such as"):
        table.add_column(column, justify="right" if column == "documents" else "left")
    table.add_row("before", f"{found.old.documents:,}", _sources(found.old.sources), "")
    table.add_row("after", f"{found.new.documents:,}", _sources(found.new.sources), "")
    table.add_row("unchanged", f"{found.unchanged:,}", "", "")
    for name, change in found.changes().items():
        table.add_row(name, f"{change.documents:,}", _sources(change.sources), _examples(change))
    console.print(table)
    relabelled = found.relabelled
    moves = ", ".join(
        f"{_cell(each.old, 30)} → {_cell(each.new, 30)} ({each.documents:,})"
        for each in relabelled.transitions[: 2 * _SHOWN]
    )
    if moves:
        console.print(f"labels: {moves}", soft_wrap=True)
    if relabelled.mean_change is not None:
        console.print(
            f"mean change {relabelled.mean_change:+.3f}, mean size {relabelled.mean_size:.3f}"
        )


def _examples(change: Change) -> str:
    told = []
    for each in change.examples[:_SHOWN]:
        moved = f" ({_cell(each.old, 40)} → {_cell(each.new, 40)})" if each.old and each.new else ""
        told.append(_cell(each.id, 60) + moved)
    return ", ".join(told)


def _plain(text: str, length: int) -> str:
    """A text in which nothing acts on the terminal."""
    from tamis.scoring.inspection.plain import one_line

    return one_line(text, length)


def _cell(text: str, length: int) -> str:
    """Likewise, in a table: its brackets are no markup."""
    from rich.markup import escape

    return escape(_plain(text, length))
