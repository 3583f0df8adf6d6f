"""The stages as they are: pipelines on the session's stack, and releases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from deployment.alerting.channels import Delivery, active_alerter, tell
from deployment.alerting.message import Message
from deployment.ledger import Ledger, promote, reasons_of
from deployment.retraining.labelled_window import labelled_source, source_of, with_labels
from deployment.retraining.request import Challenger, Facts, Labels, Released, Work
from tamis.annotation.settings import Mix
from tamis.corpus.source_settings import FilesSource
from tamis.errors import UsageError
from tamis.task import Task

if TYPE_CHECKING:
    from deployment.annotating import AnnotationRequest
    from deployment.registry import Registry, Version
    from deployment.releasing.run import Controller
    from deployment.runs import Ran
    from deployment.session import Session

Execute = Callable[..., "Ran"]
_WAIT_SECONDS = 60.0
_CLOCKS = timedelta(minutes=5)


class PipelineStages:
    """Stages of one task in an open session.

    Args:
        session: Open session on the stack.
        task: The task.
        look: Looks at the window of a run.
        execute: Runs a pipeline, as ``cli.execute.run``.
        watch: Is told how a release goes.
    """

    def __init__(
        self,
        session: Session,
        task: Task,
        look: Callable[[Work], Facts],
        execute: Execute,
        watch: Callable[[Any], None] = lambda progress: None,
    ) -> None:
        self._session, self._task, self._look = session, task, look
        self._execute, self._watch = execute, watch

    def monitor(self, work: Work) -> Facts:
        """Look at the window of a request."""
        return self._look(work)

    def annotate(self, work: Work, facts: Facts, documents: int) -> Labels:
        """Have the judge label documents of the window; answers that came before are kept.

        Raises:
            ConfigError: The task names no judge.
            UsageError: There is no key, or another round is under way.
            EngineError: The endpoint made it stop.
        """
        from deployment import annotating
        from pipelines.annotation import annotation

        source = source_of(self._task, facts.files)
        task = annotation_task(self._task, source, labelled=facts.labelled > 0)
        request = self._request(work, task, facts, documents)
        annotating.check(task, request, self._session)
        secret = task.annotate.secret
        pipeline: Any = annotation
        if self._session.remote and secret:
            pipeline = annotation.with_options(secrets=[secret])
        ran = self._execute(
            self._session, pipeline, task=task, again={"request": annotating.resumed(request)},
            request=request, home=self._session.scratch,
        )  # fmt: skip
        report = ran.load("annotate", "annotation_report")
        annotating.require_answers(report)
        made = with_labels(source, f"{request.output}/labels.parquet", self._folder(work))
        return Labels(
            files=tuple(made.path),
            asked=report.documents.asked,
            labelled=report.documents.labelled,
            by=report.model,
            usd=report.cost,
        )

    def _request(self, work: Work, task: Task, facts: Facts, documents: int) -> AnnotationRequest:
        from deployment import annotating
        from tamis.corpus.lease import STALE_SECONDS

        rubric = annotating.rubric_of(task)
        annotating.terms_of(task, rubric)
        return annotating.AnnotationRequest(
            inputs=facts.files,
            output=f"{self._folder(work)}/annotations",
            journal=annotating.journal_of(self._session, task.name),
            budget=documents,
            rubric=rubric,
            version=facts.version,
            # A machine that was taken away holds its lock until that lapses.
            wait_seconds=1.5 * STALE_SECONDS if self._session.remote else _WAIT_SECONDS,
        )

    def retrain(self, work: Work, facts: Facts, labels: Labels | None) -> Challenger:
        """Run the retraining pipeline; a run of this window that ended or goes on is taken up."""
        from pipelines.retraining import retraining
        from tamis.corpus.sources import stamp

        source = source_of(self._task, facts.files)
        if labels is not None:
            source = labelled_source(source, labels.files[0], labels.by)
        policy = self._task.retrain.model_copy(update={"window": source})
        task = self._task.model_copy(update={"retrain": policy})
        window = stamp((source,))
        ran = self._earlier(retraining.name, window, work.begun) or self._execute(
            self._session, retraining, task=task, stamp=stamp(task.sources), window_stamp=window,
            champion_version=facts.version, home=self._session.scratch,
            ledger=self._session.ledger,
        )  # fmt: skip
        registered = ran.load("promote_or_refuse", "registered")
        return Challenger(
            version=registered.version,
            passed=registered.passed,
            alias=registered.alias,
            reasons=registered.reasons,
            run_id=str(ran.run.id),
        )

    def _earlier(self, pipeline: str, window: str, begun: datetime) -> Ran | None:
        """A run for this window since this stage was first begun, if it did not fail."""
        from deployment import runs

        for run in runs.recent(self._session, 20):
            created = (
                run.created if run.created.tzinfo else run.created.replace(tzinfo=begun.tzinfo)
            )
            parameters = run.config.parameters or {}
            same_task = (parameters.get("task") or {}).get("name") == self._task.name
            mine = run.pipeline is not None and run.pipeline.name == pipeline and same_task
            if not mine or created < begun - _CLOCKS or parameters.get("window_stamp") != window:
                continue
            if str(run.status.value) == "completed":
                return runs.Ran(runs.find(str(run.id)))
            if self._session.remote and self._awaited(run):
                return runs.Ran(runs.find(str(run.id)))
        return None

    def _awaited(self, run: Any) -> bool:
        """Wait for a run on other machines that whoever submitted it has left; whether it is well.

        Raises:
            EngineError: Vertex AI answers no more.
        """
        from deployment import runs
        from deployment.vertex.jobs import Jobs
        from deployment.vertex.watch import watch

        job_id = runs.job_of(run)
        if job_id is None or run.status.is_finished:
            return False
        job = watch(Jobs(self._session.vertex), job_id, lambda step, what, seconds: None)
        return bool(job.state == "SUCCEEDED")

    def release(self, work: Work, challenger: Challenger) -> Released:
        """Bring a challenger into service as the task says; one that was judged is left as it is.

        Where nothing serves, there is nobody to compare it with: it becomes champion at once.

        Raises:
            UsageError: Another release is under way, or registry and ledger disagree.
            EngineError: The target failed.
        """
        from deployment.registry import Registry

        name, registry = self._task.name, Registry()
        version = registry.get(name, challenger.version)
        champion = registry.with_alias(name, "champion")
        if champion is not None and champion.version == version.version:
            return Released(end="promoted", champion=version.version, reasons=challenger.reasons)
        told = self._told(work, version.version)
        if told is not None:
            return told
        strategy = self._task.retrain.release
        controller = None if strategy == "none" else self._serving(registry)
        if controller is None:
            why = "nothing serves, so there was no release" if strategy != "none" else "no release"
            reasons = (*challenger.reasons, why)
            self._promote(registry, version.version, reasons)
            return Released(end="promoted", champion=version.version, reasons=reasons)
        return self._try(controller, version)

    def _promote(self, registry: Registry, version: str, reasons: tuple[str, ...]) -> None:
        """Make a version champion; what was cut off between ledger and alias is finished."""
        name, book = self._task.name, Ledger(self._session.ledger, self._task.name)
        last = book.entries()[-1:]
        if [(entry.action, entry.version) for entry in last] != [("promoted", version)]:
            promote(registry, book, name, version, reasons, "monitor")
            return
        registry.set_alias(name, "champion", version)
        challenger = registry.with_alias(name, "challenger")
        if challenger is not None and challenger.version == version:
            registry.set_alias(name, "challenger", None)

    def _told(self, work: Work, version: str) -> Released | None:
        """What a release said of a version since this stage was begun."""
        for entry in reversed(Ledger(self._session.ledger, self._task.name).entries()):
            late = datetime.fromisoformat(entry.at) >= work.begun.replace(microsecond=0)
            if late and entry.version == version and entry.release is not None:
                promoted = entry.action == "promoted"
                return Released(
                    end="promoted" if promoted else "rolled back",
                    champion=entry.champion or "",
                    reasons=entry.reasons,
                )
        return None

    def _serving(self, registry: Registry) -> _Serving | None:
        """The controller of releases; None where nothing serves."""
        from deployment.releasing.journal import Journals

        journals = Journals(self._session.ledger, self._task.name)
        last = journals.latest()
        if last is None:
            return None
        made = _Serving(self._session, self._task, registry, journals, self._watch)
        serves = journals.unfinished() is not None or bool(made.target.state().shares)
        return made if serves else None

    def _try(self, serving: _Serving, version: Version) -> Released:
        unfinished = serving.journals.unfinished()
        if unfinished is not None and unfinished.spec.version != version.version:
            raise UsageError(
                f"{self._task.name}: the {unfinished.spec.kind} of version "
                f"{unfinished.spec.version} was cut off or goes on; `release --resume` or "
                "`rollback` ends it"
            )
        found = (
            serving.controller.release(serving.spec(version))
            if unfinished is None
            else serving.controller.resume()
        )
        reasons = reasons_of(found.decision) if found.decision else ()
        promoted = found.champion == version.version
        return Released(
            end="promoted" if promoted else "rolled back", champion=found.champion, reasons=reasons
        )

    def tell(self, message: Message) -> tuple[Delivery, ...]:
        """Tell the task's channels; raises nothing."""
        return tell(message, self._task.monitor.alerts, active_alerter)

    def _folder(self, work: Work) -> str:
        return f"{self._session.shared}/retrains/{self._task.name}/{work.run}"


def annotation_task(task: Task, window: FilesSource, labelled: bool) -> Task:
    """The task as annotation is asked about a window: its shares, its columns, its labels known.

    Raises:
        UsageError: The task annotates nothing before retraining.
    """
    first = task.retrain.annotate
    if first is None:
        raise UsageError(f"{task.name}: retrain.annotate: given nothing; allowed: how many")
    mix = Mix(
        random=first.random, uncertain=first.uncertain, drifted=first.drifted, disagreeing=0.0
    )
    settings = task.annotate.model_copy(update={"strategy": "mix", "mix": mix})
    sources = (*task.sources, window) if labelled else task.sources
    return task.model_copy(
        update={"annotate": settings, "corpus": window.columns, "sources": sources}
    )


class _Serving:
    """What a release works with."""

    def __init__(
        self,
        session: Session,
        task: Task,
        registry: Registry,
        journals: Any,
        watch: Callable[[Any], None],
    ) -> None:
        from deployment.releasing.targets import make_target

        self._task, self._session, self._registry = task, session, registry
        self._watch, self.journals = watch, journals
        last = journals.latest().spec
        self._settings = last.settings if journals.unfinished() else task.release
        self.target = make_target(last.target, task, session, self._settings)

    @property
    def controller(self) -> Controller:
        """The controller of releases."""
        from deployment.releasing.run import Controller
        from deployment.serving.prepare import prepare

        def folder_of(version: str) -> Any:
            if self.target.name != "local":
                return self._session.home
            chosen = self._registry.get(self._task.name, version)
            return prepare(self._task, chosen, self._session.home)

        low, high = self._task.target.scale
        name, ledger = self._task.name, Ledger(self._session.ledger, self._task.name)
        return Controller(
            name, self._registry, ledger, self.journals, self.target, folder_of, self._settings,
            high - low, self._watch,
        )  # fmt: skip

    def spec(self, version: Version) -> Any:
        """What the controller is asked for."""
        from deployment.releasing.journal import Spec

        champion = self._registry.with_alias(self._task.name, "champion")
        return Spec(
            kind="release",
            version=version.version,
            champion=champion.version if champion else None,
            target=self.target.name,
            strategy=self._task.retrain.release,
            settings=self._settings,
            reasons=("gate passed",),
            by="monitor",
        )
