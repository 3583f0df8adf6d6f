"""Every answer that was paid for, appended to a journal as it comes; the cache of later runs.

A line holds the readings that arrived together. It is on disk (or an object in a bucket) before
the next is written, so a run that is killed loses at most what was under way.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tamis.annotation.answers import Flaw
from tamis.corpus.store import LocalStore, open_store
from tamis.errors import OutputBusy, UsageError

LEDGER = "readings"
_AT_ONCE = 256
_LINGER_SECONDS = 3.0
_POLL_SECONDS = 5.0

Key = tuple[str, str, str, int]
"""Content hash, hash of the instructions, model, number of the reading."""


class Reading(BaseModel):
    """What came of showing a document to the judge.

    Attributes:
        sha256: Content hash of the document.
        instructions: Hash of all that the judge was told besides.
        model: The judge.
        repeat: 0, or 1 for the second, independent reading.
        score: The answer; None where there is none.
        reason: Why, in the judge's words; empty where there is no answer.
        flaw: Why there is none.
        detail: The same in a sentence.
        input_tokens: As the server counted them, or as estimated.
        output_tokens: Likewise.
        cost: In USD, failed attempts included.
        attempts: Requests that it took.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    sha256: str
    instructions: str
    model: str
    repeat: int
    score: int | str | None = None
    reason: str = ""
    flaw: Flaw | None = None
    detail: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    attempts: int = 1

    @property
    def key(self) -> Key:
        """What it is found by."""
        return self.sha256, self.instructions, self.model, self.repeat


class Journal:
    """The readings of a task, in a folder or a bucket, held under a lock; a context manager.

    Args:
        url: Folder or fsspec URL; a run at a time holds it.
        wait_seconds: How long to wait for another run that does.

    Attributes:
        readings: By key; of one that was read twice, the later.
        unreadable: Lines that are no readings: damaged, or written by a later version.

    Raises:
        OutputBusy: Another run holds it.
        UsageError: It cannot be written.
    """

    def __init__(self, url: str, wait_seconds: float = 0.0) -> None:
        self.store = open_store(url)
        self.readings: dict[Key, Reading] = {}
        self.unreadable = 0
        self._linger = 0.0 if isinstance(self.store, LocalStore) else _LINGER_SECONDS
        self._next = 0
        self._lock(url, wait_seconds)
        try:
            self.store.repair()
            for line in self.store.records(LEDGER):
                self._next += 1
                self._take(line)
        except OSError as error:
            self.store.unlock()
            raise UsageError(f"journal {url!r} cannot be read: {error}") from error

    def _lock(self, url: str, wait_seconds: float) -> None:
        import tenacity

        wait = tenacity.wait_fixed(_POLL_SECONDS)
        stop = tenacity.stop_after_delay(wait_seconds)
        busy = tenacity.retry_if_exception_type(OutputBusy)
        try:
            tenacity.Retrying(wait=wait, stop=stop, retry=busy, reraise=True)(self.store.lock)
        except OSError as error:
            raise UsageError(f"journal {url!r} cannot be written: {error}") from error

    def _take(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            items: list[Any] = found["readings"]
            readings = [Reading.model_validate(item) for item in items]
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
            self.unreadable += 1
            return
        self.readings.update((reading.key, reading) for reading in readings)

    def append(self, readings: Sequence[Reading]) -> None:
        """Keep readings, durably.

        Raises:
            OSError: The storage failed.
            EngineError: The lock was lost, so another run may be writing.
        """
        rows = [reading.model_dump(mode="json", exclude_defaults=True) for reading in readings]
        line = json.dumps({"readings": rows}, separators=(",", ":"))
        self.store.append(self._next, line.encode(), LEDGER)
        self._next += 1
        self.readings.update((reading.key, reading) for reading in readings)

    async def write_from(self, queue: asyncio.Queue[Reading | None]) -> None:
        """Append what comes, as it comes, until None does."""
        ended = False
        while not ended:
            batch = [await queue.get()]
            if self._linger and batch[0] is not None:
                await asyncio.sleep(self._linger)
            while len(batch) < _AT_ONCE and not queue.empty():
                batch.append(queue.get_nowait())
            ended = None in batch
            readings = [reading for reading in batch if reading is not None]
            if readings:
                await asyncio.to_thread(self.append, readings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.store.unlock()
