"""The promotion ledger: what became champion, when, why, and what it replaced.

One JSON object a file, numbered: an append that works the same on a disk and in a bucket.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import fsspec
from pydantic import BaseModel, ConfigDict

from deployment.registry import Registry
from tamis.decision import Decision
from tamis.errors import UsageError

Action = Literal["promoted", "refused", "rolled_back", "aborted"]


class Entry(BaseModel):
    """One line of the ledger.

    Attributes:
        number: Position, from 1.
        at: When, UTC, ISO 8601.
        action: What happened; ``aborted`` is a release that ended before its version was judged.
        version: The version that it happened to.
        previous: The champion before, if there was one.
        champion: The champion after.
        reasons: Why, one sentence each.
        by: The verb or pipeline run that did it.
        release: Number of the release whose step it was, if it was one's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    at: str
    action: Action
    version: str
    previous: str | None
    champion: str | None
    reasons: tuple[str, ...]
    by: str
    release: str | None = None


class Ledger:
    """The entries of one task under a folder, local or in a bucket."""

    def __init__(self, url: str, task: str) -> None:
        self.fs, root = fsspec.core.url_to_fs(url)
        self.folder = f"{root}/{task}"

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        self.fs.invalidate_cache()
        files = sorted(self.fs.glob(f"{self.folder}/*.json"))
        return [Entry.model_validate_json(self.fs.cat_file(file)) for file in files]

    def append(
        self,
        action: Action,
        version: str,
        previous: str | None,
        champion: str | None,
        reasons: tuple[str, ...],
        by: str,
        release: str | None = None,
    ) -> Entry:
        """Write one more entry; of a release, an action is written once however often asked."""
        known = self.entries()
        for written in known:
            if release is not None and (written.release, written.action) == (release, action):
                return written
        entry = Entry(
            number=known[-1].number + 1 if known else 1,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            action=action,
            version=version,
            previous=previous,
            champion=champion,
            reasons=reasons,
            by=by,
            release=release,
        )
        self.fs.makedirs(self.folder, exist_ok=True)
        final = f"{self.folder}/{entry.number:06d}.json"
        partial = f"{final}.partial"
        self.fs.pipe_file(partial, entry.model_dump_json(indent=1).encode())
        self.fs.mv(partial, final)
        return entry


def reasons_of(decision: Decision) -> tuple[str, ...]:
    """A decision's reasons as sentences."""
    return tuple(
        f"{'passed' if reason.passed else 'failed'}: {reason.check}: {reason.detail}"
        for reason in decision.reasons
    )


def promote(
    registry: Registry, ledger: Ledger, task: str, version: str, reasons: tuple[str, ...], by: str
) -> Entry:
    """Make a version champion.

    The ledger is written first: if the alias cannot be moved afterwards, ``status`` shows the
    disagreement, and promoting again mends it.
    """
    champion = registry.with_alias(task, "champion")
    previous = champion.version if champion else None
    entry = ledger.append("promoted", version, previous, version, reasons, by)
    registry.set_alias(task, "champion", version)
    challenger = registry.with_alias(task, "challenger")
    if challenger is not None and challenger.version == version:
        registry.set_alias(task, "challenger", None)
    return entry


def refuse(
    registry: Registry, ledger: Ledger, task: str, version: str, reasons: tuple[str, ...], by: str
) -> Entry:
    """Record that a version was not promoted; the champion stays."""
    champion = registry.with_alias(task, "champion")
    current = champion.version if champion else None
    return ledger.append("refused", version, current, current, reasons, by)


def rollback(registry: Registry, ledger: Ledger, task: str, by: str) -> Entry:
    """Make the champion before this one champion again.

    Raises:
        UsageError: There is no champion, or none before it.
    """
    champion = registry.champion(task)
    previous = previous_champion(ledger.entries(), champion.version)
    if previous is None:
        raise UsageError(f"{task}: version {champion.version} has no champion before it")
    registry.get(task, previous)
    reason = (f"rolled back from version {champion.version} to version {previous}",)
    entry = ledger.append("rolled_back", previous, champion.version, previous, reason, by)
    registry.set_alias(task, "champion", previous)
    return entry


def previous_champion(entries: list[Entry], champion: str) -> str | None:
    """The champion that the present one replaced.

    The history is replayed as a stack, so that two rollbacks in a row go back two champions
    rather than to and fro.
    """
    line: list[str] = []
    for entry in entries:
        if entry.action == "promoted" and (not line or line[-1] != entry.version):
            line.append(entry.version)
        elif entry.action == "rolled_back" and line:
            line.pop()
    while line and line[-1] != champion:
        line.pop()
    return line[-2] if len(line) > 1 else None
