"""What `monitor` does once the session is open: look, calibrate, retrain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cli.result import Clock, DecisionOut, Result

if TYPE_CHECKING:
    from deployment.retraining.journal import Retrains
    from deployment.retraining.request import Facts, TriggerRequest, Work
    from deployment.session import Session
    from deployment.watching import WatchRequest
    from tamis.monitoring.health import Health, Snapshot
    from tamis.monitoring.report import MonitorReport
    from tamis.task import Task

_NO_TEXT = "nothing was served in that time, or the log kept no text that other machines can read"


class Watcher:
    """Looks at windows of one task on one stack.

    Args:
        session: Open session.
        task: The task.
        version: Of the model that is watched; the champion by default.
        services: URLs of services whose metrics are looked at.
    """

    def __init__(
        self, session: Session, task: Task, version: str | None, services: Sequence[str]
    ) -> None:
        from deployment.registry import Registry

        self._session, self._task, self._services = session, task, services
        self._registry = Registry()
        self._version = self._registry.get(task.name, version or "champion")
        self._folder = session.home / "monitoring" / task.name
        self._clock = Clock()

    def plan(self, request: TriggerRequest, calibrate: bool, retrain: bool) -> Result:
        """Print what would be done."""
        from cli.plan import show_plan

        self._check(request)
        policy = self._task.monitor
        budget = policy.false_alarms
        what = "calibration" if calibrate else "drift, quality, performance, health"
        lines: list[tuple[str, object]] = [
            ("pipeline", what + (", then retraining if the policy says so" if retrain else "")),
            ("model", f"version {self._version.version}"),
            ("window", ", ".join(request.window) or self._log(request) or "none"),
            ("budget", f"{budget.alarms:g} false alarms in {budget.days:g} days at windows of "
                       f"{policy.window_hours:g} hours: {policy.window_rate:.2%} of windows"),
        ]  # fmt: skip
        if retrain:
            allowed = self._task.retrain
            lines.append(("policy", f"retrain on {', '.join(allowed.when) or 'nothing'}, at most "
                          f"{allowed.max_runs} in {allowed.per_days:g} days"))  # fmt: skip
        show_plan(f"monitor {self._task.name} on {self._session.name}", lines)
        return self._result("planned")

    def look(self, request: TriggerRequest) -> Result:
        """Look at a window and show what was found."""
        report, outputs, run = self._look(request, datetime.now(UTC))
        show(report, outputs)
        return self._result("done", run=run, report=report, outputs=outputs)

    def calibrate(self, documents: int) -> Result:
        """Set the alarm of the version for windows of so many documents."""
        from cli import execute
        from cli.plan import console
        from pipelines.monitoring import calibration

        ran = execute.run(
            self._session, calibration, task=self._task, version=self._version.version,
            window=documents, home=self._session.scratch,
        )  # fmt: skip
        found = ran.load("calibrate_alarm", "alarm_calibration")
        page = self._write("calibration.html", found.to_html())
        console.print(f"  {found.sentence()}", markup=False, soft_wrap=True)
        if found.together is not None and not found.by_groups:
            console.print(f"  Windows of whole pages or modules that are not named would ring in "
                          f"{found.together}.", markup=False, soft_wrap=True)  # fmt: skip
        console.print(f"  [dim]page[/]  {page}", soft_wrap=True)
        return self._result("done", run=ran, outputs={"calibration": page})

    def accept(self, request: TriggerRequest) -> Result:
        """Make a window what later ones are compared with."""
        from cli.plan import console
        from deployment import watching

        with console.status("reading the window"):
            size = watching.accept(
                self._task, self._asked(request, datetime.now(UTC)), self._session.home
            )
        name = f"{self._task.name} version {self._version.version}"
        console.print(f"[green]✓[/] windows of {name} are compared with these {size:,} documents; "
                      "`monitor --calibrate` sets the alarm anew", soft_wrap=True)  # fmt: skip
        return self._result("done", counts={"documents": size})

    def monitor(self, work: Work) -> Facts:
        """The first stage of a retraining: look, and keep the window as files."""
        request, files = work.request, self._files(work.request)
        if self._session.remote:
            if not files:
                return nothing_seen(self._version.version)
            request = request.model_copy(update={"window": files})
        report, outputs, _ = self._look(request, work.at)
        return facts_of(report, files, outputs)

    def retrain(self, request: TriggerRequest, resume: bool) -> Result:
        """Look, decide, and do what follows; or only finish what was cut off."""
        from cli import execute
        from cli.plan import console
        from deployment.retraining.controller import Controller
        from deployment.retraining.journal import Retrains
        from deployment.retraining.stages import PipelineStages

        if not resume:
            self._check(request)
        stages = PipelineStages(self._session, self._task, self.monitor, execute.run)
        books = Retrains(self._session.ledger, self._task.name)
        controller = Controller(books, self._task.retrain, stages)
        outcome = controller.resume() if resume else controller.take(request)
        self._budget(books)
        if outcome is None:
            console.print("no retraining was cut off: there is nothing to finish")
            return self._result("done")
        console.print(f"[bold]{outcome.end}[/]" + (f": run {outcome.run}" if outcome.run else ""))
        for reason in outcome.reasons:
            console.print(f"  {reason}", markup=False, soft_wrap=True)
        made = outcome.challenger
        return self._result(
            "refused" if outcome.end in ("refused", "rolled back", "failed") else "done",
            run_id=None if made is None else made.run_id,
            model_version=self._version.version if made is None else made.version,
            decision=DecisionOut(passed=outcome.end == "promoted", reasons=outcome.reasons),
            drift={} if outcome.facts is None else outcome.facts.figures,
            outputs={"end": outcome.end},
        )

    def _budget(self, books: Retrains) -> None:
        """Leave for Prometheus what the policy still allows and what came of retrainings."""
        from deployment.retraining.ledger import history_of, outcomes_of
        from deployment.retraining.policy import runs_left
        from tamis.monitoring.state import change_state

        entries = books.ledger.entries()
        left = runs_left(self._task.retrain, history_of(entries), datetime.now(UTC))
        more = {"retrain_budget_remaining": float(left), "retrains": outcomes_of(entries)}
        change_state(
            self._session.home, self._task.name, lambda state: state.model_copy(update=more)
        )

    def _look(
        self, request: TriggerRequest, at: datetime
    ) -> tuple[MonitorReport, dict[str, str], Any]:
        from cli import execute
        from pipelines.monitoring import monitoring

        asked = self._asked(request, at)
        ran = execute.run(
            self._session, monitoring, task=self._task, request=asked, home=self._session.scratch
        )
        report = ran.load("watch", "monitor_report")
        folder = f"reports/{report.fingerprint[:16]}"
        outputs = {"report": self._write(f"{folder}/report.html", report.to_html())}
        page = str(ran.load("watch", "evidently_report"))
        if page:
            outputs["evidently"] = self._write(f"{folder}/evidently.html", page)
        outputs["picture"] = self._write(f"{folder}/picture.png", report.picture())
        self._remember(report)
        return report, outputs, ran

    def _asked(self, request: TriggerRequest, at: datetime) -> WatchRequest:
        from deployment.watching import WatchRequest, record_of

        self._check(request)
        window = self._window(request)
        return WatchRequest(
            window=window,
            log=None if window else self._log(request),
            start=request.start,
            end=request.end,
            at=at.isoformat(),
            history=record_of(self._session.shared, self._task.name),
            version=self._version.version,
            health=self._health(),
        )

    def _check(self, request: TriggerRequest) -> None:
        """Find out before anything is begun whether the window is there."""
        from deployment.watching import check

        check(request.window, self._log(request), remote=self._session.remote)

    def _write(self, name: str, content: str | bytes) -> str:
        from tamis.monitoring.segments import write_atomically

        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.encode() if isinstance(content, str) else content)
        return str(path)

    def _remember(self, report: MonitorReport) -> None:
        """Leave the figures for Prometheus."""
        from tamis.monitoring.state import MonitorState, change_state

        found = figures_of(report, datetime.fromisoformat(self._version.created))
        found["window_hours"] = self._task.monitor.window_hours

        def changed(state: MonitorState) -> MonitorState:
            return state.model_copy(update=found)

        change_state(self._session.home, self._task.name, changed)

    def _window(self, request: TriggerRequest) -> tuple[str, ...]:
        """Files to look at; those of a log where the steps cannot read it."""
        from tamis.errors import UsageError

        if request.window or not self._session.remote:
            return request.window
        files = self._files(request)
        if not files:
            raise UsageError(f"monitor: {_NO_TEXT}")
        return files

    def _log(self, request: TriggerRequest) -> str | None:
        if request.window:
            return None
        return request.log or str(self._session.home / "serving" / "requests" / self._task.name)

    def _files(self, request: TriggerRequest) -> tuple[str, ...]:
        """The window as files that retraining reads, where the stack's machines see them."""
        from deployment.watching import freeze, share

        log = self._log(request)
        if log is None:
            return request.window
        start, end = (datetime.fromisoformat(at or "") for at in (request.start, request.end))
        files = freeze(Path(log), start, end, self._folder / "windows")
        folder = f"{self._session.shared}/monitoring/{self._task.name}/frozen"
        return share(files, folder) if self._session.remote else files

    def _health(self) -> Health | None:
        """How the services did since the last look."""
        if not self._services:
            return None
        from tamis.monitoring.health import health_of, scrape
        from tamis.monitoring.segments import write_atomically

        urls = [f"{url.rstrip('/')}/metrics" for url in self._services]
        path = self._folder / "metrics.json"
        before = _snapshots(path)
        now = {url: scrape(url) for url in urls}
        path.parent.mkdir(parents=True, exist_ok=True)
        seen = before | {url: found for url, found in now.items() if found is not None}
        write_atomically(
            path, json.dumps({url: found.model_dump() for url, found in seen.items()}).encode()
        )
        looks = [before.get(url) for url in urls]
        return health_of([now[url] for url in urls], self._task.monitor.health, looks)

    def _result(
        self,
        status: Literal["done", "refused", "planned"],
        run: Any = None,
        report: MonitorReport | None = None,
        **more: Any,
    ) -> Result:
        if run is not None:
            more |= {"run_id": str(run.run.id), "cost": dict(run.cost)}
        if report is not None:
            reasons = tuple(f"{r.check}: {r.detail}" for r in report.reasons)
            more["decision"] = DecisionOut(passed=report.severity != "alarm", reasons=reasons)
            more["counts"] = {"documents": report.documents, **report.counts}
            more["drift"] = drift_of(report)
        return Result(
            verb="monitor",
            task=self._task.name,
            stack=self._session.name,
            status=status,
            seconds=self._clock.seconds(),
            **{"model_version": self._version.version} | more,
        )


def _snapshots(path: Path) -> dict[str, Snapshot]:
    """What services told at the last look; nothing where there was none."""
    from tamis.monitoring.health import Snapshot

    try:
        found = json.loads(path.read_bytes())
        return {url: Snapshot.model_validate(each) for url, each in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def facts_of(report: MonitorReport, files: tuple[str, ...], outputs: dict[str, str]) -> Facts:
    """What a report comes to, as far as the decision to retrain needs it."""
    from deployment.retraining.request import Facts

    return Facts(
        version=report.version,
        fingerprint=report.fingerprint,
        documents=report.documents,
        labelled=report.performance.labels,
        drifted=report.drifted,
        rings=report.ringing.rings and report.drifted,
        worse=report.performance.alarming,
        severity=report.severity,
        reasons=tuple(r.detail for r in report.reasons if not r.passed),
        figures=drift_of(report),
        start=None if report.start is None else report.start.isoformat(),
        end=None if report.end is None else report.end.isoformat(),
        files=files,
        report=outputs.get("report"),
        picture=outputs.get("picture"),
    )


def nothing_seen(version: str) -> Facts:
    """Of a log that has no text in its span: other machines have nothing to look at."""
    from deployment.retraining.request import Facts

    return Facts(version=version, fingerprint="nothing", documents=0, reasons=(_NO_TEXT,))


def drift_of(report: MonitorReport) -> dict[str, float]:
    """The figures of a report, by name."""
    drift, performance = report.drift, report.performance
    found = {} if drift is None else {"p": drift.p, "level": drift.level}
    for test in drift.tests if drift is not None else ():
        found[test.name] = test.value
    if performance.measured is not None:
        found[performance.metric] = performance.measured.value
    return found


def figures_of(report: MonitorReport, trained: datetime) -> dict[str, Any]:
    """The figures of a report as the state for Prometheus has them."""
    from tamis.monitoring.state import Performance, Statistic

    found: dict[str, Any] = {
        "version": report.version,
        "last_run": report.at,
        "drift_alarm": report.ringing.rings,
        "trained": trained if trained.tzinfo else trained.replace(tzinfo=UTC),
    }
    if report.drift is not None:
        found["drift_p"] = report.drift.p
        found["statistics"] = {
            _name(t.name): Statistic(value=t.value, threshold=t.threshold)
            for t in report.drift.tests
        }
    measured, before = report.performance.measured, report.performance.reference
    if measured is not None:
        figure = Performance(
            value=measured.value,
            reference=None if before is None else before.value,
            alarm=report.performance.alarming,
        )
        found["performance"] = {report.performance.metric: figure}
    return found


def _name(test: str) -> str:
    """The name of a test as a label."""
    return test.replace(",", "").replace(" ", "_").replace("-", "_")


_STYLES = {"ok": "green", "notice": "cyan", "warning": "yellow", "alarm": "bold red"}


def show(report: MonitorReport, outputs: dict[str, str]) -> None:
    """Print the verdict, each condition, what is new, and where the pages are."""
    from cli.plan import console

    span = "" if report.start is None else f", {report.start:%Y-%m-%d %H:%M} UTC and later"
    console.print(f"\n[bold]{report.task} version {report.version}[/]: {report.documents:,} "
                  f"documents{span}", soft_wrap=True)  # fmt: skip
    console.print(report.headline(), style=_STYLES[report.severity], soft_wrap=True)
    for reason in report.reasons:
        console.print(f"  {'[green]✓[/]' if reason.passed else '[red]✗[/]'} ", end="")
        console.print(f"{reason.check}: {reason.detail}", markup=False, soft_wrap=True)
    for cluster in report.novelty.clusters:
        console.print(f"  [dim]new[/]  {cluster.size:,} documents: ", end="")
        console.print(", ".join(cluster.words), markup=False, soft_wrap=True)
    for name, path in outputs.items():
        console.print(f"  [dim]{name:<9}[/] {path}", soft_wrap=True)
