"""The BentoML service: `bentoml serve deployment.service:ScoreService`.

BentoML starts and watches the processes and gives health; routes, figures and guard are ours.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml

from deployment.serving.app import create_app
from deployment.serving.bento import without_timers
from deployment.serving.connections import bound_connections
from deployment.serving.environment import read_environment
from deployment.serving.guard import Guard
from deployment.serving.runtime import Runtime
from tamis.serving.settings import RequestLimits

_runtime: list[Runtime] = []


def _now() -> Runtime | None:
    return _runtime[0] if _runtime else None


def _started() -> Runtime:
    return _runtime[0]


def _patience() -> float:
    return (_runtime[0].settings.limits if _runtime else RequestLimits()).body_seconds


class Score:
    """Scores documents and says which are worth keeping."""

    async def start(self) -> None:
        """Read the environment and begin to load the model."""
        _runtime[:] = [Runtime(read_environment(os.environ))]
        await _runtime[0].start()

    async def stop(self) -> None:
        """Answer what waits and close the log."""
        await _started().stop()

    def __is_ready__(self) -> bool:
        """For BentoML's probe."""
        return _started().ready


bound_connections(_patience)
without_timers()
bentoml.on_startup(Score.start)
bentoml.on_shutdown(Score.stop)
# A line a request and a span that nobody collects cost more than the request. The figures are ours:
# BentoML's have a label for every path that anybody asks for, and stand in front of the guard.
ScoreService: Any = bentoml.service(
    Score,
    name="tamis",
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"excluded_urls": ".*"},
)
ScoreService.mount_asgi_app(create_app(_started))
ScoreService.add_asgi_middleware(Guard, runtime=_now)
