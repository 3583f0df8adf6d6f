"""python run.py status: versions, champion, ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from deployment.ledger import Entry
    from deployment.registry import Version


NEWEST = 5
"""Versions of which it is said in words why retraining refused them."""


def status(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Show a task's versions, its champion and how it became that."""
    from cli.plan import console, prepare
    from cli.result import Result, write

    loaded = prepare(task, stack, settings, result)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment.ledger import Ledger
        from deployment.registry import Registry

        registry = Registry()
        versions = registry.versions(loaded.name)
        champion = registry.with_alias(loaded.name, "champion")
        entries = Ledger(session.ledger, loaded.name).entries()
    if not versions:
        console.print(f"{loaded.name}: no version yet; `python run.py train --task {task}`")
    else:
        console.print(_versions(loaded.name, loaded.metric, versions))
        for version in versions[:NEWEST]:
            if why := version.tags.get("refused"):
                told = f"version {version.version} was refused: {why}"
                console.print(told, markup=False, style="dim", soft_wrap=True)
        console.print(_ledger(entries))
    last = entries[-1].champion if entries else None
    if champion is not None and champion.version != last:
        console.print(
            f"[yellow]![/] the registry says version {champion.version} is champion, the ledger "
            f"says {last or 'none'}; `promote --version N` makes them agree"
        )
    write(
        Result(
            verb="status",
            task=loaded.name,
            stack=stack,
            model_version=champion.version if champion else None,
            alias="champion" if champion else None,
            counts={"versions": len(versions), "ledger": len(entries)},
        ),
        result,
    )


def _versions(name: str, metric: str, versions: list[Version]) -> Table:
    table = Table(title=f"Versions of {name}", title_justify="left", box=None, pad_edge=False)
    for column in ("version", "alias", "gate", metric, "threshold", "cascade", "data", "code"):
        table.add_column(column)
    for version in versions:
        tags = version.tags
        table.add_row(
            version.version,
            ", ".join(version.aliases),
            tags.get("gate", ""),
            tags.get(metric, ""),
            tags.get("threshold", ""),
            _cascade(tags),
            tags.get("data_fingerprint", "")[:10],
            tags.get("code_version", ""),
        )
    return table


def _cascade(tags: dict[str, str]) -> str:
    if "cascade" not in tags:
        return ""
    if tags.get("cascade_promised") != "true":
        return "no band"
    return f"at {tags.get('cascade_threshold', '')}"


def _ledger(entries: list[Entry]) -> Table:
    table = Table(title="\nLedger", title_justify="left", box=None, pad_edge=False)
    for column in ("", "at", "what", "version", "champion", "by"):
        table.add_column(column)
    for entry in entries:
        table.add_row(
            str(entry.number), entry.at, entry.action, entry.version, entry.champion or "", entry.by
        )
    return table
