"""python run.py estimate: documents, hours, tokens and cost of a filter, before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.filter import check_threshold
from cli.options import (
    EncoderOnly,
    ModelVersion,
    ResultFile,
    Settings,
    StackName,
    TaskName,
    Threshold,
)

if TYPE_CHECKING:
    from tamis.scoring.estimate import Estimate
    from tamis.scoring.prices import Prices


def estimate(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="As for filter. Repeatable."),
    ] = None,
    version: ModelVersion = None,
    threshold: Threshold = None,
    encoder_only: EncoderOnly = False,
    documents: Annotated[
        int, typer.Option("--documents", min=100, help="Documents to sample.")
    ] = 2_000,
    workers: Annotated[
        int, typer.Option("--workers", "-j", min=0, help="Cores to count on; 0: those here.")
    ] = 0,
    machine: Annotated[
        str | None,
        typer.Option("--machine", help="A machine of configs/prices.yaml, for hours and cost."),
    ] = None,
    settings: Settings = [],  # noqa: B006
    result: ResultFile = None,
) -> None:
    """Say before a filter what it will take and give, from a sample."""
    from cli.plan import prepare
    from cli.result import Clock, IntervalOut, Result, write
    from tamis.scoring.prices import load_prices

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    check_threshold(threshold, loaded.target.scale)
    prices = load_prices()
    _check_machine(machine, prices)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment import filtering
        from deployment.registry import Registry
        from tamis.scoring.estimate import estimate as run

        registry = Registry()
        chosen = registry.get(loaded.name, version) if version else registry.champion(loaded.name)
        request = filtering.FilterRequest(
            inputs=tuple(inputs or ["packages"]),
            output="",
            version=chosen.version,
            threshold=threshold,
            workers=workers,
            encoder_only=encoder_only,
        )
        shards = filtering.shards_of(request, session.home)
        plan, scoring = filtering.plan_of(loaded, request, session.home)
        found = run(plan, shards, documents, request.workers, loaded.seed)
    _show(found, prices, machine)
    _say(scoring.sentence)
    figures = {"documents": found.documents, "kept": found.kept, "tokens_kept": found.tokens_kept}
    outcome = Result(
        verb="estimate",
        task=loaded.name,
        stack=stack,
        model_version=chosen.version,
        estimate={
            name: IntervalOut(value=f.value, low=f.low, high=f.high, n=f.n)
            for name, f in figures.items()
        },
        cost=_cost(found, prices, machine),
        seconds=clock.seconds(),
    )
    write(outcome, result)


def _say(sentence: str) -> None:
    from cli.plan import console

    console.print(f"  {sentence}", soft_wrap=True)


def _without_gpus(prices: Prices) -> list[str]:
    return [name for name, machine in prices.machines.items() if not machine.accelerated]


def _check_machine(machine: str | None, prices: Prices) -> None:
    from tamis.errors import UsageError

    if machine is not None and machine not in prices.machines:
        known = ", ".join(prices.machines)
        raise UsageError(
            f"--machine: given {machine!r}; allowed: one of configs/prices.yaml: {known}"
        )


def _cost(found: Estimate, prices: Prices, machine: str | None) -> dict[str, float]:
    cost = {"cpu_seconds": found.cpu_seconds, "hours_here": found.hours}
    if machine is not None:
        hours, price = found.on(prices.machines[machine])
        cost |= {"hours": hours, prices.currency: price}
        for stage, bill in _bills(found, prices, machine).items():
            cost[f"{stage}, {prices.currency}"] = bill
    return cost


def _bills(found: Estimate, prices: Prices, machine: str) -> dict[str, float]:
    """What each stage costs on a machine."""
    on = prices.machines[machine]
    return {name: on.bill(stage.cpu_seconds)[1] for name, stage in found.stages.items()}


def _show(found: Estimate, prices: Prices, machine: str | None) -> None:
    from rich.table import Table

    from cli.plan import console

    console.print(
        f"\n[bold]Estimate[/] from {found.sampled_documents:,} documents of "
        f"{found.sampled_shards:,} shards, for {found.shards:,} shards, "
        f"{found.bytes / 1e6:,.1f} MB"
    )
    for name, figure in (
        ("documents", found.documents),
        ("kept documents", found.kept),
        ("kept tokens", found.tokens_kept),
    ):
        console.print(
            f"  {name:<15} {figure.value:>16,.0f}  [dim]95%: {figure.low:,.0f} to "
            f"{figure.high:,.0f}[/]"
        )
    chosen = [machine] if machine else _without_gpus(prices)
    bills = _bills(found, prices, chosen[0]) if chosen else {}
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    heads = ["documents", "taken out", "CPU-hours", "us/document", prices.currency]
    table.add_column("  stage", style="dim", no_wrap=True)
    for name in heads if chosen else heads[:-1]:
        table.add_column(name, justify="right", style="dim")
    for name, stage in found.stages.items():
        table.add_row(
            f"  {name}",
            f"{stage.documents:,}" if stage.documents else "",
            f"{stage.removed:,}" if stage.removed else "",
            f"{stage.cpu_seconds / 3600:,.4f}",
            f"{stage.microseconds:,.0f}" if stage.documents else "",
            *([f"{bills[name]:,.4f}"] if chosen else []),
        )
    console.print(table)
    if chosen:
        console.print(f"  [dim]{prices.currency} of a stage: on {chosen[0]}[/]")
    console.print(
        f"  {found.cpu_seconds / 3600:,.2f} CPU-hours: {found.hours:,.2f} hours with "
        f"{found.workers} cores of this machine"
    )
    for name in chosen:
        hours, price = found.on(prices.machines[name])
        console.print(f"  {name:<15} {hours:>10,.4f} hours {price:>12,.4f} {prices.currency}")
    console.print(
        "  [dim]Duplicates grow with the corpus: fewer are kept than a sample says. "
        "A core is counted as one of this machine (configs/prices.yaml: speed).[/]"
    )
