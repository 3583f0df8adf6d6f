"""Run a pipeline and read what it made; show its steps as they go."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

from rich.console import Console

STEP_LINE = re.compile(
    r"Step [`'\"]?(?:.*\.)?(\w+)[`'\"]? has (started|finished in [`'\"]?([^`'\"]+))"
)
CACHED_LINE = re.compile(r"Using cached version of step [`'\"]?(?:.*\.)?(\w+)")

console = Console(highlight=False)


class _Steps(logging.Handler):
    """Turns ZenML's log into one line a step; warnings of others pass, tracebacks do not."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if match := CACHED_LINE.search(message):
            console.print(f"  [dim]·[/] {match[1]} [dim]unchanged, result reused[/]")
        elif match := STEP_LINE.search(message):
            if match[2] == "started":
                console.print(f"  [cyan]▸[/] {match[1]}")
            else:
                console.print(f"  [green]✓[/] {match[1]} [dim]{match[3].rstrip('.')}[/]")


def run(pipeline: Any, **parameters: Any) -> Any:
    """Run a pipeline on the session's stack and wait for it.

    Raises:
        Exception: What a step raised.
    """
    _quiet()
    return pipeline(**parameters)


def load(run: Any, step: str, output: str) -> Any:
    """An artifact of a finished run."""
    return run.steps[step].outputs[output][0].load()


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    logger = logging.getLogger("zenml")
    logger.handlers = [_Steps()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for name in ("alembic", "mlflow", "transformers", "accelerate", "datasets", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
