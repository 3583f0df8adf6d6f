"""The ledger of the watcher: every trigger, what was decided, why, and what came of it.

    LEDGER/TASK/retrains/ledger/20260131T235959000000Z-0123456789abcdef.json

One JSON object a file. Names begin with the time and end with a key of what is told, so several
processes may write at once, and what is written again after a crash is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from deployment.retraining.policy import Past
from deployment.retraining.request import Trigger
from tamis.fingerprint import sha256_of

Action = Literal["ignored", "decided", "annotated", "retrained", "released", "ended", "told"]
_STAMP = "%Y%m%dT%H%M%S%f"
_TIE = timedelta(seconds=1)
End = Literal["quiet", "promoted", "refused", "rolled back", "failed"]


class Entry(BaseModel):
    """One line of the ledger.

    Attributes:
        at: When, UTC, ISO 8601.
        action: ``ignored``: a trigger that did nothing. ``decided``: whether to retrain. Then the
            stages; ``ended`` is the run's end, ``told`` what people were told.
        trigger: What started it.
        request: Id of the trigger's request.
        run: Name of the run; None where there was none.
        fingerprint: Of the window, once it is known.
        passed: Of ``decided`` whether to retrain; of others whether it went well.
        reasons: Why, one sentence each.
        figures: Of the report, by name.
        version: Model version that it is about.
        documents: Of ``decided`` how many are to be annotated, of ``annotated`` how many were.
        end: Of ``ended``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    action: Action
    trigger: Trigger
    request: str
    run: str | None = None
    fingerprint: str | None = None
    passed: bool | None = None
    reasons: tuple[str, ...] = ()
    figures: dict[str, float] = {}
    version: str | None = None
    documents: int = 0
    end: End | None = None


class Ledger:
    """Entries of one task.

    Args:
        fs: fsspec file system.
        folder: In it.
    """

    def __init__(self, fs: Any, folder: str) -> None:
        self._fs, self.folder = fs, folder

    def entries(self, since: datetime | None = None) -> list[Entry]:
        """Entries, oldest first; by default all."""
        self._fs.invalidate_cache()
        files = sorted(str(file) for file in self._fs.glob(f"{self.folder}/*.json"))
        first = "" if since is None else f"{since.astimezone(UTC):{_STAMP}}"
        return [
            Entry.model_validate_json(self._fs.cat_file(file))
            for file in files
            if file.rsplit("/", 1)[1] >= first
        ]

    def append(self, key: Sequence[str], entry: Entry) -> Entry:
        """Write an entry; what has the same key is written once however often asked.

        Args:
            key: What tells it apart from all others.
            entry: The entry.
        """
        mark = sha256_of(key)[:16]
        self._fs.invalidate_cache()
        known = self._fs.glob(f"{self.folder}/*-{mark}.json")
        if known:
            return Entry.model_validate_json(self._fs.cat_file(sorted(known)[0]))
        at = self._after_the_last(datetime.fromisoformat(entry.at))
        entry = entry.model_copy(update={"at": at.isoformat()})
        final = f"{self.folder}/{at.astimezone(UTC):{_STAMP}}Z-{mark}.json"
        self._fs.makedirs(self.folder, exist_ok=True)
        self._fs.pipe_file(f"{final}.partial", entry.model_dump_json(indent=1).encode())
        self._fs.mv(f"{final}.partial", final)
        return entry

    def settled(self, request: str, since: datetime | None = None) -> bool:
        """Whether a request has come to an end, whatever that was."""
        ends = ("ended", "ignored")
        return any(e.request == request and e.action in ends for e in self.entries(since))

    def _after_the_last(self, at: datetime) -> datetime:
        """When a next entry is; clocks that stand still or a little behind change no order."""
        names = [str(file).rsplit("/", 1)[1] for file in self._fs.glob(f"{self.folder}/*.json")]
        if not names:
            return at
        last = datetime.strptime(max(names).partition("Z")[0], _STAMP).replace(tzinfo=UTC)
        step = timedelta(microseconds=1)
        return last + step if timedelta(0) <= last - at < _TIE else at


def history_of(entries: Sequence[Entry]) -> list[Past]:
    """The retrainings that were begun, oldest first."""
    ends = {entry.run: entry.end for entry in entries if entry.action == "ended"}
    return [
        Past(
            run=entry.run or "",
            at=datetime.fromisoformat(entry.at),
            fingerprint=entry.fingerprint or "",
            annotate=entry.documents,
            end=ends.get(entry.run),
        )
        for entry in entries
        if entry.action == "decided" and entry.passed
    ]


def outcomes_of(entries: Sequence[Entry]) -> dict[str, int]:
    """How many retrainings ended how; names fit for a metric's label."""
    begun = {past.run for past in history_of(entries)}
    ends = [
        (entry.end or "").replace(" ", "_")
        for entry in entries
        if entry.action == "ended" and entry.run in begun
    ]
    return dict(sorted(Counter(ends).items()))
