"""Run a pipeline and read what it made; show its steps as they go."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from deployment.runs import Ran
    from deployment.session import Session
    from deployment.vertex.cost import Cost
    from deployment.vertex.watch import StepFailed
    from tamis.task import Task

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


def run(
    session: Session,
    pipeline: Any,
    *,
    task: Task,
    again: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> Ran:
    """Run a pipeline on the session's stack and wait for it.

    Args:
        session: Open session on the stack.
        pipeline: The pipeline.
        task: Its first parameter.
        again: Parameters that differ when a run that lost a machine is submitted again.
        parameters: The other ones.

    Raises:
        StepFailed: A step failed on another machine; the end of its log has been shown.
        Exception: What a step raised on this one.
    """
    from deployment import runs
    from deployment.vertex.watch import StepFailed

    _quiet()
    given = {"task": task, **parameters}
    try:
        return runs.submit(session, pipeline, given, again or {}, _tell, _show_cost)
    except StepFailed as error:
        _show_log(error)
        raise


def _tell(step: str, what: str, seconds: float) -> None:
    """One line for what a step on another machine did."""
    marks = {"started": "[cyan]▸[/]", "done": "[green]✓[/]", "lost": "[yellow]↻[/]"}
    more = {"started": "", "lost": "lost its machine; the run is submitted again"}
    told = more.get(what, f"{'' if what == 'done' else what + ' '}after {seconds:,.0f}s")
    console.print(f"  {marks.get(what, '[red]✗[/]')} {step} [dim]{told}[/]")


def _show_cost(cost: Cost) -> None:
    console.print(f"  [dim]{cost}[/]", soft_wrap=True)


def _show_log(error: StepFailed) -> None:
    """The end of the log of a step that failed on another machine."""
    from deployment.logs import last_lines

    if error.step:
        for line in last_lines(error.run, error.step):
            console.print(f"  [dim]{error.step} |[/] ", end="")
            console.print(line, markup=False, soft_wrap=True)


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    logger = logging.getLogger("zenml")
    logger.handlers = [_Steps()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for name in ("alembic", "mlflow", "transformers", "accelerate", "datasets", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
