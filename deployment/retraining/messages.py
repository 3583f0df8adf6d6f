"""What people are told of a run: the alarm, and what came of it."""

from __future__ import annotations

from deployment.alerting.channels import Delivery
from deployment.alerting.message import Message
from deployment.retraining.journal import Run
from deployment.retraining.ledger import End
from deployment.retraining.request import Facts

__all__ = ["Delivery", "Message", "of_alarm", "of_end"]


def of_alarm(run: Run, facts: Facts) -> Message:
    """That a window rings, or is in a bad state."""
    span = f" from {facts.start} to {facts.end}" if facts.start and facts.end else ""
    first = (
        f"{facts.documents:,} documents{span}, {facts.labelled:,} of them with labels; version "
        f"{facts.version} was watched."
    )
    request = run.request
    return Message(
        title=f"{request.task}: {'the data have drifted' if facts.rings else 'an alarm'}",
        task=request.task,
        severity="alarm",
        lines=(first, *facts.reasons),
        command=_command("status", run),
        report=facts.report,
        picture=facts.png(),
    )


def of_end(run: Run, facts: Facts | None, end: End, reasons: tuple[str, ...]) -> Message:
    """What came of a retraining."""
    task = run.request.task
    titles: dict[End, tuple[str, str, str]] = {
        "promoted": ("ok", "a new champion was trained and promoted", "status"),
        "refused": ("notice", "a challenger was trained and refused; the champion stays", "status"),
        "rolled back": ("warning", "a challenger was taken back; the champion stays", "status"),
        "failed": ("alarm", f"run {run.name} was given up", "monitor"),
        "quiet": ("ok", "there was no reason to retrain", "status"),
    }
    severity, said, verb = titles[end]
    return Message(
        title=f"{task}: {said}",
        task=task,
        severity=severity,
        lines=reasons,
        command=_command(verb, run),
        report=facts.report if facts else None,
    )


def _command(verb: str, run: Run) -> str:
    return f"python run.py {verb} --task {run.request.task} --stack {run.request.stack}"
