"""The BentoML service: `bentoml serve deployment.service:ScoreService`.

BentoML starts and watches the processes and gives health and metrics; routes and guard are ours.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml

from deployment.serving.app import create_app
from deployment.serving.environment import read_environment
from deployment.serving.guard import Guard
from deployment.serving.runtime import Runtime

_runtime: list[Runtime] = []


def _now() -> Runtime | None:
    return _runtime[0] if _runtime else None


def _started() -> Runtime:
    return _runtime[0]


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


bentoml.on_startup(Score.start)
bentoml.on_shutdown(Score.stop)
# A line a request and a span that nobody collects cost more than the request; the figures are ours.
ScoreService: Any = bentoml.service(
    Score,
    name="tamis",
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    traffic={"timeout": 660},
)
ScoreService.mount_asgi_app(create_app(_started))
ScoreService.add_asgi_middleware(Guard, runtime=_now)
