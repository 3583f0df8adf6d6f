"""python run.py promote, rollback: which version is champion."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName


def promote(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    version: Annotated[
        str | None, typer.Option("--version", help="Model version; the challenger by default.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote a version that the gate refused.")
    ] = False,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Make a version champion; one that the gate refused is not promoted (exit code 3)."""
    from cli.plan import console, prepare, show_plan
    from cli.result import Clock, DecisionOut, Result, write

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment import ledger
        from deployment.registry import Registry
        from tamis.errors import UsageError

        registry = Registry()
        chosen = (
            registry.get(loaded.name, version)
            if version
            else registry.with_alias(loaded.name, "challenger")
        )
        if chosen is None:
            raise UsageError(f"{loaded.name}: there is no challenger; name a version: --version N")
        passed = chosen.tags.get("gate") == "passed"
        reason = f"gate {chosen.tags.get('gate', 'not run')}" + (", forced" if force else "")
        outcome = Result(
            verb="promote",
            task=loaded.name,
            stack=stack,
            model_version=chosen.version,
            alias="champion",
            decision=DecisionOut(passed=passed, reasons=(reason,)),
        )
        if dry_run:
            show_plan(f"promote {loaded.name} version {chosen.version}", [("reason", reason)])
            write(outcome.model_copy(update={"status": "planned", "alias": None}), result)
            return
        if not passed and not force:
            console.print(
                f"[red]✗[/] version {chosen.version} was refused by the gate; --force promotes it"
            )
            write(outcome.model_copy(update={"status": "refused", "alias": None}), result)
            raise typer.Exit(3)
        book = ledger.Ledger(session.ledger, loaded.name)
        entry = ledger.promote(registry, book, loaded.name, chosen.version, (reason,), "promote")
        console.print(
            f"[green]✓[/] {loaded.name} version {chosen.version} is champion "
            f"(before: {entry.previous or 'none'})"
        )
    write(outcome.model_copy(update={"seconds": clock.seconds()}), result)


def rollback(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Make the champion before this one champion again."""
    from cli.plan import console, prepare, show_plan
    from cli.result import Clock, Result, write

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment import ledger
        from deployment.registry import Registry

        registry = Registry()
        book = ledger.Ledger(session.ledger, loaded.name)
        if dry_run:
            champion = registry.champion(loaded.name).version
            before = ledger.previous_champion(book.entries(), champion)
            show_plan(f"rollback {loaded.name}", [("champion", champion), ("to", before or "none")])
            write(Result(verb="rollback", task=loaded.name, stack=stack, status="planned"), result)
            return
        entry = ledger.rollback(registry, book, loaded.name, "rollback")
        console.print(
            f"[green]✓[/] {loaded.name} version {entry.champion} is champion again "
            f"(before: {entry.previous})"
        )
    write(
        Result(
            verb="rollback",
            task=loaded.name,
            stack=stack,
            model_version=entry.champion,
            alias="champion",
            seconds=clock.seconds(),
        ),
        result,
    )
