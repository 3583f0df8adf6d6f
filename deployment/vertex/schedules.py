"""Schedules, on both sides: Vertex AI starts the runs, ZenML knows of them.

ZenML makes both, but its own changes and deletions reach its record only; here both follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import available_timezones

from croniter import croniter

from deployment.paths import require_shared_sources
from deployment.vertex import google
from deployment.vertex.options import label, labels_of, pipeline_options, steps_of
from deployment.vertex.settings import VertexStack
from tamis.errors import EngineError, UsageError

_FIELD = re.compile(
    r"([\d*,/-]|mon|tue|wed|thu|fri|sat|sun"
    r"|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)+",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Scheduled:
    """A schedule, as either side sees it.

    Attributes:
        name: Of both records.
        cron: When it runs.
        vertex: State on Vertex AI (``ACTIVE``, ``PAUSED``, ``COMPLETED``); None if not there.
        zenml: Whether ZenML's record is active; None if there is none.
        next_run: What Vertex AI says, as text; empty if it does not.
        runs: How many it has started.
    """

    name: str
    cron: str
    vertex: str | None
    zenml: bool | None
    next_run: str
    runs: int

    @property
    def agrees(self) -> bool:
        """Whether both sides say the same."""
        there = self.vertex is not None and self.zenml is not None
        return there and (self.vertex == "ACTIVE") == self.zenml


def check_cron(cron: str) -> None:
    """Refuse what no scheduler reads.

    Raises:
        UsageError: It is not five fields, with a time zone before them or not.
    """
    zoned = re.fullmatch(r"(?:CRON_)?TZ=(\S*) (.*)", cron)
    zone, plain = zoned.groups() if zoned else ("UTC", cron)
    fields = plain.split()
    # croniter knows more than cron does: R, L, #, ?
    known = len(fields) == 5 and all(_FIELD.fullmatch(field) for field in fields)
    if not known or zone not in available_timezones() or not croniter.is_valid(plain):
        raise UsageError(
            f"--cron: given {cron!r}; allowed: five fields such as '0 3 * * 1', "
            "and before them a time zone such as 'TZ=Europe/Paris '"
        )


class Schedules:
    """Schedules of a stack that is active in this session."""

    def __init__(self, stack: VertexStack) -> None:
        from zenml.client import Client

        self._stack = stack
        self._vertex = google.begin(stack)
        self._zenml = Client()

    def create(self, name: str, cron: str, pipeline: Any, parameters: Mapping[str, Any]) -> None:
        """Have a pipeline run again and again; nothing of it is cached.

        Args:
            name: Of the schedule; also the label ``run`` of its jobs.
            cron: When.
            pipeline: The pipeline, as it is written.
            parameters: Of the pipeline, the same for all runs.

        Raises:
            UsageError: There is one of that name, or documents are on this machine.
            EngineError: Vertex AI refused it; ZenML's record was taken back.
        """
        from zenml.config.schedule import Schedule

        check_cron(cron)
        require_shared_sources(parameters["task"])
        if name in {known.name for known in self.all()}:
            raise UsageError(f"--name: given {name!r}; allowed: a name that no schedule has")
        task = parameters["task"].name
        labels = labels_of(self._stack, task, pipeline.name, name)
        steps = steps_of(pipeline, parameters)
        options = pipeline_options(self._stack, steps, labels)
        scheduled = pipeline.with_options(
            run_name=f"{label(name)}-{{date}}-{{time}}",
            schedule=Schedule(name=name, cron_expression=cron),
            enable_cache=False,
            tags=[task],
            **options,
        )
        try:
            scheduled(**parameters)
        except Exception as error:
            self._forget(name)
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EngineError(f"schedule {name} was not made: {told}") from error

    def all(self) -> list[Scheduled]:
        """What either side knows, by name."""
        ours = {each.name: each for each in self._zenml_schedules()}
        theirs = {each.display_name: each for each in self._vertex_schedules()}
        return [
            _scheduled(name, theirs.get(name), ours.get(name)) for name in sorted({*ours, *theirs})
        ]

    def pause(self, name: str) -> None:
        """Start no further run.

        Raises:
            UsageError: There is no such schedule.
        """
        self._set(name, active=False)

    def resume(self, name: str) -> None:
        """Start runs again; those that were missed are not made up for.

        Raises:
            UsageError: There is no such schedule.
        """
        self._set(name, active=True)

    def delete(self, name: str) -> None:
        """Remove a schedule, from Vertex AI first; its runs stay.

        Raises:
            UsageError: There is no such schedule.
        """
        self._require(name)
        for schedule in self._vertex_schedules(name):
            schedule.delete()
        self._forget(name)

    def _set(self, name: str, *, active: bool) -> None:
        from zenml.models import ScheduleUpdate

        self._require(name)
        for schedule in self._vertex_schedules(name):
            running = schedule.state.name == "ACTIVE"
            if active and not running:
                schedule.resume(catch_up=False)
            elif running and not active:
                schedule.pause()
        for record in self._zenml_schedules(name):
            self._zenml.zen_store.update_schedule(record.id, ScheduleUpdate(active=active))

    def _require(self, name: str) -> None:
        known = [each.name for each in self.all()]
        if name not in known:
            told = ", ".join(known) or "there is none"
            raise UsageError(f"schedule: given {name!r}; allowed: {told}")

    def _forget(self, name: str) -> None:
        for record in self._zenml_schedules(name):
            # Not archived: the name would stay taken. Runs keep their own records.
            self._zenml.zen_store.delete_schedule(record.id, soft=False)

    def _zenml_schedules(self, name: str | None = None) -> list[Any]:
        components = self._zenml.active_stack_model.components
        (orchestrator,) = next(v for k, v in components.items() if k.value == "orchestrator")
        found = self._zenml.list_schedules(orchestrator_id=orchestrator.id, size=1_000)
        return [each for each in found.items if name in (None, each.name)]

    def _vertex_schedules(self, name: str | None = None) -> list[Any]:
        wanted = None if name is None else f'display_name="{name}"'
        found = self._vertex.PipelineJobSchedule.list(filter=wanted)
        return [each for each in found if each.state.name != "COMPLETED" or name]


def _scheduled(name: str, vertex: Any, zenml: Any) -> Scheduled:
    resource = vertex.gca_resource if vertex is not None else None
    return Scheduled(
        name=name,
        cron=resource.cron if resource is not None else zenml.cron_expression,
        vertex=vertex.state.name if vertex is not None else None,
        zenml=zenml.active if zenml is not None else None,
        next_run=_moment(resource.next_run_time) if resource is not None else "",
        runs=int(resource.started_run_count) if resource is not None else 0,
    )


def _moment(value: Any) -> str:
    if value is None or value.timestamp() <= 0:
        return ""
    return str(value.strftime("%Y-%m-%d %H:%M UTC"))
