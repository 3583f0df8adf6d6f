"""What a trigger asks for, and what the stages of a run tell each other."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from tamis.config import Items, Strict
from tamis.errors import UsageError
from tamis.monitoring.settings import Severity

Kind = Literal["hand", "cron", "schedule", "github", "vertex", "alertmanager"]
SCHEDULED = frozenset({"cron", "schedule", "github", "vertex"})
"""Triggers that come with the clock."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Trigger(Strict):
    """What started a run.

    Attributes:
        kind: Of whom; ``schedule`` is Cloud Scheduler.
        name: Which one, such as the key of a notification; empty where there is but one.
    """

    kind: Kind
    name: Annotated[str, Field(max_length=128)] = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @classmethod
    def parse(cls, given: str) -> Trigger:
        """A trigger as the command line has it: ``KIND`` or ``KIND:NAME``.

        Raises:
            UsageError: It is none.
        """
        kind, colon, name = given.partition(":")
        for known in get_args(Kind):
            if kind == known and (_NAME.fullmatch(name) if colon else not name):
                return cls(kind=known, name=name)
        allowed = f"{', '.join(get_args(Kind))}, and behind a colon a name of letters and digits"
        raise UsageError(f"--trigger: given {given!r}; allowed: {allowed}")


def new_id() -> str:
    """An id of a request that is no other's."""
    return secrets.token_hex(8)


class TriggerRequest(Strict):
    """One request to look at a window, and to retrain where the policy says so.

    Attributes:
        task: Name of the task.
        stack: Where it runs.
        trigger: What started it.
        id: The same for the same event, so that one that comes twice is taken once.
        window: Files of documents; empty: the request log.
        log: Folder or URL of the request log, where it is not the stack's own.
        start: From when, of the log, ISO 8601; by default one window back.
        end: Until when; by default when the run was opened.
        insist: Retrain although nothing drifted and the last one was a moment ago; limits on how
            often and on labels hold.
    """

    task: str
    stack: str
    trigger: Trigger
    id: Annotated[str, Field(min_length=1, max_length=160)] = Field(default_factory=new_id)
    window: Items[str] = ()
    log: str | None = None
    start: str | None = None
    end: str | None = None
    insist: bool = False


@dataclass(frozen=True)
class Work:
    """What a stage is told of the run that it is part of.

    Attributes:
        run: Name of the run, such as ``000003``; a folder for its files may be called so.
        at: When it was opened; the same after a crash, so a window that ends then is the same.
        begun: When this stage was first begun.
        request: What was asked for.
    """

    run: str
    at: datetime
    begun: datetime
    request: TriggerRequest


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Facts(_Told):
    """What a look at a window found, as far as decisions need it.

    Attributes:
        version: The model that was watched.
        fingerprint: Of the window's content: one retraining each.
        documents: In the window.
        labelled: Of those, with a label that came as feedback.
        drifted: Whether the window differs.
        rings: Whether the alarm rings: so many windows in a row, and none a moment ago.
        worse: Whether labels show that the model has got worse.
        severity: Of the report.
        reasons: Why, a sentence each.
        figures: Of the report, by name.
        start: Of the window, ISO 8601, where it has one.
        end: Likewise.
        files: The window's documents as files that ``retrain --window`` reads.
        report: Page to look at; a path or URL.
        picture: PNG of it; a path.
    """

    version: str
    fingerprint: Annotated[str, Field(min_length=1, max_length=128)]
    documents: int
    labelled: int = 0
    drifted: bool = False
    rings: bool = False
    worse: bool = False
    severity: Severity = "ok"
    reasons: tuple[str, ...] = ()
    figures: dict[str, float] = {}
    start: str | None = None
    end: str | None = None
    files: tuple[str, ...] = ()
    report: str | None = None
    picture: str | None = None

    def png(self) -> bytes | None:
        """The picture, if it can be read here and is not too large to send."""
        try:
            path = Path(self.picture or "")
            return path.read_bytes() if 0 < path.stat().st_size <= LARGEST_PICTURE else None
        except (OSError, ValueError):
            return None


LARGEST_PICTURE = 2 << 20


class Labels(_Told):
    """Labels that the judge gave to documents of the window: a language model's, not people's.

    Attributes:
        files: Files of documents with labels, as ``retrain --window`` reads them.
        asked: Documents that the judge was asked about.
        labelled: Of those, with a usable answer.
        by: The judge.
        usd: What it cost.
    """

    files: tuple[str, ...]
    asked: int
    labelled: int
    by: str
    usd: float = 0.0


class Challenger(_Told):
    """What retraining made.

    Attributes:
        version: In the registry.
        passed: Whether gate and comparison let it through.
        alias: What it is called now.
        reasons: Why, a sentence each.
        run_id: Of the pipeline.
    """

    version: str
    passed: bool
    alias: str | None = None
    reasons: tuple[str, ...] = ()
    run_id: str | None = None


class Released(_Told):
    """What became of a challenger that passed.

    Attributes:
        end: ``promoted``: it is champion. ``rolled back``: the champion stayed.
        champion: After it.
        reasons: Why, a sentence each.
    """

    end: Literal["promoted", "rolled back"]
    champion: str
    reasons: tuple[str, ...] = ()
