"""python run.py release: a version beside the champion, judged, promoted or taken back."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from rich.table import Table

    from cli.result import Result
    from deployment.registry import Registry, Version
    from deployment.releasing.journal import Journals
    from deployment.releasing.run import Controller, Outcome
    from deployment.releasing.trial import Progress
    from deployment.session import Session
    from tamis.task import Task


class StrategyName(StrEnum):
    """How a challenger is tried."""

    shadow = "shadow"
    canary = "canary"
    blue_green = "blue-green"


class Where(StrEnum):
    """Where versions serve."""

    local = "local"
    cloud_run = "cloud-run"
    kubernetes = "kubernetes"
    vertex = "vertex"


def release(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    strategy: Annotated[
        StrategyName, typer.Option("--strategy", help="How the version is tried.")
    ] = StrategyName.canary,
    target: Annotated[
        Where | None,
        typer.Option("--target", help="Where it serves; where the last release was, or local."),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Model version; the challenger by default.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Release a version that the gate refused.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Finish what was cut off; have traffic follow the ledger."),
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show what serves and the last releases.")
    ] = False,
    end: Annotated[
        bool, typer.Option("--end", help="On target local: take everything out of service.")
    ] = False,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Try a version beside the champion; promote it, or take it back (exit code 3)."""
    from cli.plan import console, prepare, show_plan
    from cli.result import Clock, Result, write
    from tamis.errors import UsageError

    clock = Clock()
    if resume + status + end + (version is not None) > 1:
        raise UsageError("release: allowed: one of --version, --resume, --status and --end")
    loaded = prepare(task, stack, settings, result)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment.registry import Registry

        registry = Registry()
        made = Made(loaded, session, registry, target.value if target else None)
        outcome = Result(verb="release", task=loaded.name, stack=stack)
        if status or end:
            if end:
                made.end()
            written = made.show(outcome)
            write(written.model_copy(update={"seconds": clock.seconds()}), result)
            return
        if resume:
            found = made.watched(lambda controller: controller.resume())
        else:
            chosen = made.choose(version)
            plan = made.spec(chosen, strategy.value, force)
            if dry_run or plan is None:
                lines: list[tuple[str, object]] = [
                    ("gate", chosen.tags.get("gate", "not run")),
                    ("target", made.target.name),
                    ("serves", made.target.state()),
                ]
                lines += [("phase", phase) for phase in made.phases(strategy.value)]
                if dry_run:
                    show_plan(f"release {loaded.name} version {chosen.version}", lines)
                    write(outcome.model_copy(update={"status": "planned"}), result)
                    return
                console.print(
                    f"[red]✗[/] version {chosen.version} was refused by the gate; "
                    "--force releases it"
                )
                write(outcome.model_copy(update={"status": "refused"}), result)
                raise typer.Exit(3)
            found = made.watched(lambda controller: controller.release(plan))
    write(told(found, outcome, made.journals, clock.seconds()), result)
    if found.end == "rolled back" and not (resume and found.decision is None):
        raise typer.Exit(3)


def told(found: Outcome, result: Result, journals: Journals, seconds: float) -> Result:
    """Print how it ended; the result document with it."""
    from cli.plan import console
    from cli.result import DecisionOut
    from deployment.ledger import reasons_of

    if found.decision is not None:
        for reason in found.decision.reasons:
            mark = "[green]✓[/]" if reason.passed else "[red]✗[/]"
            console.print(f"  {mark} {reason.check}: ", end="")
            console.print(reason.detail, markup=False, soft_wrap=True)
    mark = "[red]✗[/]" if found.end == "rolled back" and found.decision else "[green]✓[/]"
    said = {
        "promoted": f"version {found.version} is champion and serves",
        "rolled back": f"version {found.version} was taken back; version {found.champion} serves",
        "serves": f"version {found.champion} is champion and serves",
    }[found.end]
    console.print(f"{mark} {said}", soft_wrap=True)
    console.print(f"  [dim]traffic[/] {found.traffic}  {found.traffic.address or ''}")
    outputs = {"address": found.traffic.address} if found.traffic.address else {}
    if found.release is not None:
        outputs["journal"] = journals.get(found.release).folder
    return result.model_copy(
        update={
            "status": "refused" if found.decision and found.end == "rolled back" else "done",
            "model_version": found.champion,
            "alias": "champion",
            "decision": DecisionOut(
                passed=found.decision.passed, reasons=reasons_of(found.decision)
            )
            if found.decision
            else None,
            "outputs": outputs,
            "seconds": seconds,
        }
    )


class Made:
    """What the verbs work with."""

    def __init__(self, task: Task, session: Session, registry: Registry, where: str | None) -> None:
        from deployment.ledger import Ledger
        from deployment.releasing.journal import Journals
        from deployment.releasing.targets import make_target

        self._task, self._session, self._registry = task, session, registry
        self.journals = Journals(session.ledger, task.name)
        self.ledger = Ledger(session.ledger, task.name)
        last = self.journals.latest()
        unfinished = last.spec if last is not None and not last.closed else None
        name = unfinished.target if unfinished else where or (last.spec.target if last else "local")
        self._settings = unfinished.settings if unfinished else task.release
        self.target = make_target(name, task, session, self._settings)

    def choose(self, version: str | None) -> Version:
        """The version that is asked for: the challenger, or the champion where nothing serves."""
        from tamis.errors import UsageError

        name = self._task.name
        if version is not None:
            return self._registry.get(name, version)
        found = self._registry.with_alias(name, "challenger")
        if found is None and not self.target.state().shares:
            found = self._registry.champion(name)
        if found is None:
            raise UsageError(f"{name}: there is no challenger; name a version: --version N")
        return found

    def spec(self, chosen: Version, strategy: Any, force: bool) -> Any:
        """What the controller is asked for; None where the gate refused the version."""
        from deployment.releasing.journal import Spec

        champion = self._registry.with_alias(self._task.name, "champion")
        same = champion is not None and champion.version == chosen.version
        gate = chosen.tags.get("gate", "not run")
        if gate != "passed" and not force and not same:
            return None
        return Spec(
            kind="deploy" if same else "release",
            version=chosen.version,
            champion=champion.version if champion else None,
            target=self.target.name,
            strategy=strategy if strategy in self.target.strategies or not same else "canary",
            settings=self._settings,
            reasons=(f"gate {gate}" + (", forced" if force else ""),),
        )

    def phases(self, strategy: Any) -> list[str]:
        """The phases in words."""
        from deployment.releasing.plan import phases

        return [
            f"{phase.name}: {phase.min_requests} requests and {phase.min_seconds:g} s at least, "
            f"{phase.max_seconds:g} s at most"
            for phase in phases(strategy, self._settings)
        ]

    def watched(self, act: Any) -> Outcome:
        """Let the controller do something, with a table of how it goes."""
        import signal

        from rich.live import Live

        from cli.plan import console
        from tamis.errors import EngineError, TamisError

        def interrupt(number: int, frame: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, interrupt)
        try:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                found: Outcome = act(
                    self._controller(lambda p: live.update(table(p), refresh=True))
                )
            return found
        except EngineError as error:
            again = f"`python run.py release --task {self._task.name} --resume` goes on"
            raise EngineError(f"{error}; {again}") from error
        except TamisError:
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def _controller(self, watch: Any) -> Controller:
        from deployment.releasing.run import Controller
        from deployment.serving.prepare import prepare

        low, high = self._task.target.scale

        def folder_of(version: str) -> Any:
            if self.target.name != "local":
                return self._session.home
            chosen = self._registry.get(self._task.name, version)
            return prepare(self._task, chosen, self._session.home)

        return Controller(
            self._task.name, self._registry, self.ledger, self.journals, self.target, folder_of,
            self._settings, high - low, watch,
        )  # fmt: skip

    def end(self) -> None:
        """Take the local target out of service.

        Raises:
            UsageError: It is another target.
        """
        from deployment.releasing.local import LocalTarget
        from tamis.errors import UsageError

        if not isinstance(self.target, LocalTarget):
            raise UsageError(f"--end: given with --target {self.target.name}; allowed: local")
        with self.journals.lock():
            self.target.end()

    def show(self, result: Result) -> Result:
        """Print what serves, and whether registry, ledger and traffic agree."""
        from cli.plan import console

        traffic = self.target.state()
        champion = self._registry.with_alias(self._task.name, "champion")
        entries = self.ledger.entries()
        said = {
            "registry": champion.version if champion else None,
            "ledger": entries[-1].champion if entries else None,
        }
        console.print(f"[bold]{self._task.name}[/] on {self.target.name}: {traffic}")
        console.print(f"  [dim]address[/]  {traffic.address or 'none'}", soft_wrap=True)
        for name, version in said.items():
            console.print(f"  [dim]{name:<8}[/] champion {version or 'none'}")
        unfinished = self.journals.unfinished()
        if unfinished is not None:
            spec = unfinished.spec
            console.print(
                f"[yellow]![/] the {spec.kind} of version {spec.version} is under way or was cut "
                "off; `release --resume` goes on, `rollback` takes it back",
                soft_wrap=True,
            )
        elif traffic.shares and set(said.values()) != set(traffic.shares):
            console.print("[yellow]![/] they do not agree; `release --resume` makes them agree")
        outputs = {"address": traffic.address} if traffic.address else {}
        return result.model_copy(
            update={
                "model_version": said["registry"],
                "alias": "champion" if champion else None,
                "counts": {f"traffic {name}": share for name, share in traffic.shares.items()},
                "outputs": outputs,
            }
        )


def table(progress: Progress) -> Table:
    """How a trial goes."""
    from rich.table import Table

    spec, phase, evidence = progress.spec, progress.phase, progress.evidence
    names = " > ".join(
        f"[bold]{each.name}[/]" if each.name == phase.name else each.name for each in progress.plan
    )
    made = Table(
        title=f"release {progress.number}: {names}  {evidence.seconds:.0f} s of "
        f"{phase.max_seconds:.0f} s at most",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in ("", "version", "share", "requests", "failed", "refused", "p95 ms", "kept"):
        made.add_column(column, justify="right" if column not in ("", "version") else "left")
    rows = (
        ("champion", spec.champion or "", 100 - phase.share, evidence.champion),
        ("challenger", spec.version, phase.share, evidence.challenger),
    )
    for who, version, share, seen in rows:
        made.add_row(
            who, version, "shadow" if phase.shadow and who == "challenger" else f"{share}%",
            f"{seen.requests:,}", f"{seen.errors:,}", f"{seen.refused:,}",
            f"{seen.latency.quantile(0.95)[0] * 1_000:.1f}" if seen.latency.total else "",
            f"{seen.kept / seen.documents:.1%} of {seen.documents:,}" if seen.documents else "",
        )  # fmt: skip
    if progress.judgement is not None:
        marks = {"passed": "[green]✓[/]", "failed": "[red]✗[/]", "open": "[yellow]…[/]"}
        told = "  ".join(f"{marks[f.state]} {f.check}" for f in progress.judgement.findings)
        made.caption, made.caption_justify = told, "left"
    return made
