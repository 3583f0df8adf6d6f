"""The schedule service; nothing fires by itself: a test ticks."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterError, croniter
from fastapi import APIRouter, Request

from tests.vertex.standin.errors import ApiError, refused_state
from tests.vertex.standin.jobs import create_pipeline_job
from tests.vertex.standin.resources import (
    Resource,
    as_message,
    new_number,
    now,
    page,
    patch,
    read_json,
)
from tests.vertex.standin.running import is_over
from tests.vertex.standin.specification import read_pipeline
from tests.vertex.standin.state import State

_FIELDS: tuple[str, ...] = (
    "state",
    "display_name",
    "create_time",
    "update_time",
    "start_time",
    "end_time",
    "cron",
)
_UPDATED: tuple[str, ...] = (
    "display_name",
    "cron",
    "start_time",
    "end_time",
    "allow_queueing",
    "max_run_count",
)
_UPDATED += ("max_concurrent_run_count", "max_concurrent_active_run_count")
_UPDATED += ("create_pipeline_job_request",)
_ZONED = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _checked_cron(cron: str) -> tuple[str, ZoneInfo]:
    zone, fields = "UTC", cron.strip()
    if zoned := _ZONED.fullmatch(fields):
        zone, fields = zoned.groups()
    try:
        found = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ApiError(400, f"Invalid cron {cron!r}: unknown time zone.") from error
    if len(fields.split()) != 5 or not croniter.is_valid(fields):
        raise ApiError(400, f"Invalid cron {cron!r}.")
    return fields, found


def plan_next(schedule: Resource) -> None:
    """Set when a schedule runs next, or that it is over.

    Raises:
        ApiError: Its cron or its times are wrong.
    """
    fields, zone = _checked_cron(str(schedule.get("cron", "")))
    after = max(datetime.now(UTC), _moment(schedule["startTime"])).astimezone(zone)
    try:
        following = croniter(fields, after).get_next(datetime)
    except CroniterError as error:
        raise ApiError(400, f"Invalid cron {schedule['cron']!r}: it never comes.") from error
    ends = _moment(schedule["endTime"]) if "endTime" in schedule else None
    most = int(schedule.get("maxRunCount", 0))
    if (ends and following > ends) or (most and int(schedule["startedRunCount"]) >= most):
        schedule["state"] = "COMPLETED"
        schedule.pop("nextRunTime", None)
    elif schedule["state"] == "ACTIVE":
        moment = following.astimezone(UTC)
        schedule["nextRunTime"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def start_scheduled(state: State, schedule: Resource) -> Resource:
    """Start the job of a schedule, as its time has come.

    Returns:
        ``job``: name of the new job, or ``skipped``: why there is none.

    Raises:
        ApiError: It is not active.
    """
    if schedule["state"] != "ACTIVE":
        message = f"Schedule {schedule['name']} is {schedule['state']}."
        raise ApiError(409, message, "FAILED_PRECONDITION")
    moment = now()
    running = [
        job
        for job in state.pipelines.values()
        if job.get("scheduleName") == schedule["name"] and not is_over(job)
    ]
    answer: Resource = {}
    if len(running) >= int(schedule["maxConcurrentRunCount"]):
        reason = f"Skipped: {len(running)} runs are still going on."
        answer["skipped"] = reason
    else:
        request = copy.deepcopy(schedule["createPipelineJobRequest"])
        job = request["pipelineJob"] | {"scheduleName": schedule["name"]}
        created = create_pipeline_job(state, job, request.get("pipelineJobId", ""))
        answer["job"] = created["name"]
        reason = f"OK. Created {created['name']}."
        schedule["startedRunCount"] = str(int(schedule["startedRunCount"]) + 1)
    schedule["lastScheduledRunResponse"] = {"scheduledRunTime": moment, "runResponse": reason}
    plan_next(schedule)
    return answer


def router(state: State) -> APIRouter:
    """Routes below a location."""
    routes = APIRouter()

    @routes.post("/schedules")
    async def create(version: str, request: Request) -> Any:
        schedule = as_message("Schedule", await read_json(request), version)
        job = schedule.get("createPipelineJobRequest", {}).get("pipelineJob")
        if not schedule.get("displayName") or job is None:
            raise ApiError(400, "displayName and createPipelineJobRequest are required.")
        if int(schedule.get("maxConcurrentRunCount", 0)) < 1:
            raise ApiError(400, "maxConcurrentRunCount must be positive.")
        read_pipeline(job)
        moment = now()
        identifier = new_number()
        schedule |= {
            "name": state.schedules.name(identifier),
            "createTime": moment,
            "updateTime": moment,
            "startTime": schedule.get("startTime", moment),
            "startedRunCount": "0",
            "state": "ACTIVE",
        }
        plan_next(schedule)
        state.schedules[identifier] = schedule
        return schedule

    @routes.get("/schedules")
    async def listed(request: Request) -> Any:
        return page("schedules", state.schedules.values(), request.query_params, _FIELDS)

    @routes.get("/schedules/{identifier}")
    async def get(identifier: str) -> Any:
        return state.schedules.found(identifier)

    @routes.patch("/schedules/{identifier}")
    async def update(version: str, identifier: str, request: Request) -> Any:
        schedule = state.schedules.found(identifier)
        change = as_message("Schedule", await read_json(request), version)
        changed = copy.deepcopy(schedule)
        patch(changed, change, request.query_params.get("updateMask", ""), _UPDATED)
        changed.setdefault("startTime", schedule["startTime"])
        plan_next(changed)
        schedule.clear()
        schedule.update(changed)
        return schedule

    @routes.post("/schedules/{identifier}:pause")
    async def pause(identifier: str) -> Any:
        schedule = state.schedules.found(identifier)
        if schedule["state"] != "ACTIVE":
            raise refused_state(f"Schedule {schedule['name']} is {schedule['state']}.")
        schedule |= {"state": "PAUSED", "lastPauseTime": now(), "updateTime": now()}
        schedule.pop("nextRunTime", None)
        return {}

    @routes.post("/schedules/{identifier}:resume")
    async def resume(identifier: str, request: Request) -> Any:
        schedule = state.schedules.found(identifier)
        if schedule["state"] != "PAUSED":
            raise refused_state(f"Schedule {schedule['name']} is {schedule['state']}.")
        schedule |= {"state": "ACTIVE", "lastResumeTime": now(), "updateTime": now()}
        schedule["catchUp"] = bool((await read_json(request)).get("catchUp", False))
        plan_next(schedule)
        return {}

    @routes.delete("/schedules/{identifier}")
    async def delete(version: str, identifier: str) -> Any:
        schedule = state.schedules.found(identifier)
        del state.schedules[identifier]
        return state.operation(version, "", parent=schedule["name"])

    return routes
