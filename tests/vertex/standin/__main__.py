"""``python -m tests.vertex.standin --port P --project demo-project --folder DIR ...``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import uvicorn

from tests.vertex.standin.app import create_app
from tests.vertex.standin.state import Settings


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="standin", description="A local stand-in for Vertex AI.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--project", default="demo-project")
    parser.add_argument("--project-number", default="123456789012")
    parser.add_argument("--location", default="us-central1")
    parser.add_argument("--folder", type=Path, required=True, help="where tasks work")
    parser.add_argument("--environment", type=Path, help="JSON object: variables of every task")
    parser.add_argument("--parallel", type=int, default=2, help="tasks that run at once")
    parser.add_argument("--seed", type=int, default=0, help="of the split of traffic")
    given = parser.parse_args()
    environment = json.loads(given.environment.read_text()) if given.environment else {}
    if not isinstance(environment, dict) or given.parallel < 1:
        parser.error("--environment names a JSON object, --parallel is at least 1")
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        project=given.project,
        number=given.project_number,
        location=given.location,
        folder=folder,
        environment={str(name): str(value) for name, value in environment.items()},
        parallel=given.parallel,
        seed=given.seed,
    )
    uvicorn.run(
        create_app(settings),
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
