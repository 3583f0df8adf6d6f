"""python run.py promote, rollback: which version is champion."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DryRun, ResultFile, Settings, StackName, TaskName

if TYPE_CHECKING:
    from deployment.ledger import Entry
    from deployment.registry import Registry, Version
    from deployment.session import Session
    from deployment.vertex.endpoints import Served

OnEndpoint = Annotated[
    bool, typer.Option("--endpoint", help="On Vertex AI: have the endpoint serve it, too.")
]


def promote(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    version: Annotated[
        str | None, typer.Option("--version", help="Model version; the challenger by default.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote a version that the gate refused.")
    ] = False,
    endpoint: OnEndpoint = False,
    traffic: Annotated[
        int | None,
        typer.Option(
            "--traffic",
            min=1,
            max=100,
            help="With --endpoint: percent of the traffic; the stack's canary share by default, "
            "and no less than it has.",
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Make a version champion; one that the gate refused is not promoted (exit code 3)."""
    from cli.plan import console, prepare, show_plan
    from cli.result import Clock, DecisionOut, Result, write

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    _check(endpoint, traffic, stack)
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
        book = ledger.Ledger(session.ledger, loaded.name)
        _require_settled(session, loaded.name)
        serving = _Serving(session, registry, task, loaded.name) if endpoint else None
        share = serving.share(chosen, traffic) if serving else 0
        # There is only the endpoint to mend where registry and ledger say so already.
        settled = serving is not None and _is_champion(chosen, book.entries())
        if dry_run:
            lines: list[tuple[str, object]] = [("reason", reason)]
            lines += serving.plan(chosen, share) if serving else []
            show_plan(f"promote {loaded.name} version {chosen.version}", lines)
            write(outcome.model_copy(update={"status": "planned", "alias": None}), result)
            return
        if not passed and not force and not settled:
            console.print(
                f"[red]✗[/] version {chosen.version} was refused by the gate; --force promotes it"
            )
            write(outcome.model_copy(update={"status": "refused", "alias": None}), result)
            raise typer.Exit(3)
        before = "the same"
        if not settled:
            reasons = (reason,)
            entry = ledger.promote(registry, book, loaded.name, chosen.version, reasons, "promote")
            before = entry.previous or "none"
        console.print(
            f"[green]✓[/] {loaded.name} version {chosen.version} is champion (before: {before})"
        )
        outputs = {}
        if serving is None and _released(session, loaded.name):
            console.print(f"  `python run.py release --task {task} --resume` has it serve")
        if serving is not None:
            keep = _replaced(book.entries(), chosen.version)
            outputs = serving.promote(chosen, share, keep)
    write(outcome.model_copy(update={"outputs": outputs, "seconds": clock.seconds()}), result)


def rollback(
    task: TaskName = "edu_quality",
    stack: StackName = "local",
    endpoint: OnEndpoint = False,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    result: ResultFile = None,
) -> None:
    """Make the champion before this one champion again, and have it serve where releases do.

    An unfinished release is taken back instead.
    """
    from cli.plan import console, prepare, show_plan
    from cli.result import Clock, Result, write

    clock = Clock()
    loaded = prepare(task, stack, settings, result)
    _check(endpoint, None, stack)
    from deployment.session import open_session

    with open_session(stack) as session:
        from deployment import ledger
        from deployment.registry import Registry

        registry = Registry()
        serving = _Serving(session, registry, task, loaded.name) if endpoint else None
        book = ledger.Ledger(session.ledger, loaded.name)
        if dry_run:
            champion = registry.champion(loaded.name).version
            before = ledger.previous_champion(book.entries(), champion)
            lines: list[tuple[str, object]] = [("champion", champion), ("to", before or "none")]
            if serving is not None and before is not None:
                lines += serving.plan(registry.get(loaded.name, before), 100)
            show_plan(f"rollback {loaded.name}", lines)
            write(Result(verb="rollback", task=loaded.name, stack=stack, status="planned"), result)
            return
        if serving is None and _released(session, loaded.name):
            from cli.serving_release import Made, told

            made = Made(loaded, session, registry, None)
            found = made.watched(lambda controller: controller.rollback())
            done = Result(verb="rollback", task=loaded.name, stack=stack)
            done = told(found, done, made.journals, clock.seconds())
            write(done.model_copy(update={"status": "done"}), result)
            return
        entry = ledger.rollback(registry, book, loaded.name, "rollback")
        console.print(
            f"[green]✓[/] {loaded.name} version {entry.champion} is champion again "
            f"(before: {entry.previous})"
        )
        outputs = {}
        if serving is not None:
            outputs = serving.rollback(registry.champion(loaded.name))
    write(
        Result(
            verb="rollback",
            task=loaded.name,
            stack=stack,
            model_version=entry.champion,
            alias="champion",
            outputs=outputs,
            seconds=clock.seconds(),
        ),
        result,
    )


def _released(session: Session, task: str) -> bool:
    """Whether versions of a task are served by releases."""
    from deployment.releasing.journal import Journals

    return Journals(session.ledger, task).latest() is not None


def _require_settled(session: Session, task: str) -> None:
    """Refuse to change the champion under a release.

    Raises:
        OutputBusy: One is under way, or was cut off.
    """
    from deployment.releasing.journal import Journals
    from tamis.errors import OutputBusy

    if Journals(session.ledger, task).unfinished() is not None:
        raise OutputBusy(
            f"{task}: a release is under way or was cut off; `release --resume` finishes it, "
            "`rollback` takes it back"
        )


def _check(endpoint: bool, traffic: int | None, stack: str) -> None:
    """Refuse ``--endpoint`` where there can be none, before anything is changed."""
    from tamis.errors import UsageError

    if endpoint:
        from deployment.vertex.serving_models import serving_stack

        serving_stack(stack)
    elif traffic is not None:
        raise UsageError(f"--traffic: given {traffic}; allowed: only with --endpoint")


def _is_champion(version: Version, entries: list[Entry]) -> bool:
    """Whether registry and ledger both say that a version is champion."""
    return (
        "champion" in version.aliases
        and bool(entries)
        and (entries[-1].champion == version.version)
    )


def _replaced(entries: list[Entry], champion: str) -> str | None:
    """The version that a champion took over from, by a promotion or a rollback."""
    return next(
        (
            entry.previous
            for entry in reversed(entries)
            if entry.champion == champion and entry.previous not in (champion, None)
        ),
        None,
    )


class _Serving:
    """What ``--endpoint`` adds; made before anything is changed, so that what fails, fails then."""

    def __init__(self, session: Session, registry: Registry, given: str, task: str) -> None:
        from deployment.vertex.endpoints import Endpoints

        self._session, self._registry = session, registry
        self._given, self._task = given, task
        self._endpoints = Endpoints(session.vertex)
        self._before = self._endpoints.state(task)

    def share(self, version: Version, asked: int | None) -> int:
        """Percent of the traffic that a version is going to have."""
        return self._endpoints.share(self._before, version.version, asked)

    def plan(self, version: Version, share: int) -> list[tuple[str, object]]:
        """What would be done."""
        there = self._endpoints.is_uploaded(self._task, version.version, version.tags["digest"])
        then = self._before.after(version.version, share)
        order = sorted(then, key=lambda name: (-then[name], name))
        return [
            ("upload", f"version {version.version}" + (" is uploaded" if there else "")),
            ("endpoint", self._endpoints.name(self._task)),
            ("serves", self._before),
            ("then", ", ".join(f"version {name}: {then[name]}%" for name in order)),
        ]

    def promote(self, version: Version, share: int, keep: str | None) -> dict[str, str]:
        """Upload a champion and give it its share; where the endpoint is, for the result."""

        def change() -> Served:
            self._upload(version)
            return self._endpoints.deploy(self._task, version.version, share, keep)

        return self._after_the_registry(version, share, change)

    def rollback(self, version: Version) -> dict[str, str]:
        """Give a restored champion all traffic; where the endpoint is, for the result."""

        def change() -> Served:
            digest = version.tags["digest"]
            if not self._endpoints.is_uploaded(self._task, version.version, digest):
                self._upload(version)
            return self._endpoints.rollback(self._task, version.version)

        return self._after_the_registry(version, 100, change)

    def _upload(self, version: Version) -> None:
        from deployment.vertex.serving_models import publish_version

        cache = self._session.home / "models"
        files = publish_version(self._session.vertex, self._registry, version, cache)
        digest = version.tags["digest"]
        self._endpoints.upload(self._task, version.version, files, {"digest": digest})

    def _after_the_registry(
        self, version: Version, share: int, change: Callable[[], Served]
    ) -> dict[str, str]:
        """Change the endpoint; registry and ledger have changed, so say how to make it follow."""
        from cli.plan import console
        from tamis.errors import EngineError, TamisError

        again = (
            f"`python run.py promote --task {self._given} --stack {self._session.name} "
            f"--version {version.version} --endpoint --traffic"
        )
        try:
            with console.status("Vertex AI is at work; a deployment takes minutes"):
                served = change()
        except TamisError as error:
            raise EngineError(
                f"{self._task}: the registry says version {version.version} is champion, the "
                f"endpoint {self._serves()}: {error}; {again} {share}` mends that"
            ) from error
        console.print(f"[green]✓[/] the endpoint serves {served}", soft_wrap=True)
        if not served.agrees:
            console.print(f"  {again} 100` gives it the rest", soft_wrap=True)
        return {"endpoint": served.endpoint} if served.endpoint else {}

    def _serves(self) -> str:
        from tamis.errors import TamisError

        try:
            return f"serves {self._endpoints.state(self._task)}"
        except TamisError:
            return f"served {self._before} before"
