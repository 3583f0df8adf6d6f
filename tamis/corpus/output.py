"""The commit protocol of a filtering run's output, as the driver writes it; see ``manifest.py``.

One driver at a time holds an output. Workers put whole files in place; nothing exists until the
driver commits their record. In a Delta table the commit is a version of the table's log, and
the manifest follows it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from tamis.corpus.delta import DeltaFile, DeltaLog, score_range
from tamis.corpus.manifest import RunInfo, ShardRecord, is_output, read_records, read_run
from tamis.corpus.store import RUN, OutputStore, open_store
from tamis.corpus.writers import SCHEMA, OutputFormat
from tamis.errors import EngineError, OutputBusy, ResumeRefused, UsageError

_SHOWN = 24
_LOCK_POLL = 10.0
_TABLE_PARTS = ("kept", "dropped", "duplicates")


class Output:
    """An output that is being written, held under its lock; a context manager.

    Attributes:
        store: Where its files lie.
        run: Random name of the run that began it.
        committed: Positions of the shards that are done.
    """

    def __init__(self, store: OutputStore, run: str, log: DeltaLog | None = None) -> None:
        self.store, self.run, self.log = store, run, log
        self.committed = {record.position for record in read_records(store)}
        if log is not None:
            self._follow(log)

    def _follow(self, log: DeltaLog) -> None:
        """Write into the manifest what a killed driver had committed to the table only."""
        for line in log.committed():
            record = ShardRecord.model_validate_json(line)
            if record.position not in self.committed:
                self._append(record)

    def commit(self, record: ShardRecord) -> None:
        """Record a shard whose files are in place; from here on it exists.

        Raises:
            EngineError: The shard was committed before.
        """
        if record.position in self.committed:
            raise EngineError(f"shard {record.shard} was committed twice")
        if self.log is not None:
            now = int(time.time() * 1000)
            files = [
                DeltaFile(f.path, part, f.bytes, f.rows, now, score_range(self.store, f.path))
                for f in record.files
                if (part := f.path.partition("/")[0]) in _TABLE_PARTS
            ]
            self.log.commit(f"{record.position:05d}", record.model_dump_json().encode(), files)
        self._append(record)

    def _append(self, record: ShardRecord) -> None:
        self.store.append(record.position, record.model_dump_json().encode())
        self.committed.add(record.position)

    def records(self) -> Iterator[ShardRecord]:
        """Committed shards, read again from the manifest one by one."""
        return read_records(self.store)

    def note(self, ledger: str, position: int, fields: Mapping[str, Any]) -> None:
        """Record that a piece of intermediate work is done, durably."""
        line = json.dumps({"position": position, **fields}, separators=(",", ":"))
        self.store.append(position, line.encode(), ledger)

    def notes(self, ledger: str) -> dict[int, dict[str, Any]]:
        """What ``note`` recorded, by position."""
        found = (json.loads(line) for line in self.store.records(ledger))
        return {int(fields["position"]): fields for fields in found}

    def close(self) -> None:
        """Give the lock back."""
        self.store.unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_output(
    out: str,
    fingerprint: Mapping[str, str],
    fresh: bool = False,
    form: OutputFormat = "parquet",
    wait_seconds: float = 0.0,
) -> Output:
    """Begin an output, or go on with one that was begun under the same fingerprint.

    Args:
        out: Local folder or fsspec URL.
        fingerprint: Everything the rows depend on, as named parts.
        fresh: Remove what an earlier run wrote there and begin anew.
        form: Format of the rows; ``delta`` keeps the table's log beside the manifest.
        wait_seconds: How long to wait for another run that holds it.

    Raises:
        ResumeRefused: It was begun under another fingerprint; the text names the parts.
        OutputBusy: Another run holds it.
        UsageError: The folder is somebody else's.
        DataError: Its manifest is damaged.
    """
    store = open_store(out)
    try:
        _lock(store, wait_seconds)
        names = store.names()
        begun = RUN in names
        foreign = [name for name in names if not name.startswith(".")]
        if not begun and foreign:  # run.json is the first file to come and the last to go
            raise UsageError(
                f"{out} holds files that no run of tamis wrote, such as {foreign[0]}; "
                "choose an empty or new folder"
            )
        if begun and not fresh:
            info = read_run(store)
            _refuse_other(out, info.fingerprint, fingerprint)
            store.repair()
            log = DeltaLog(out, SCHEMA, run=info.run) if form == "delta" else None
        else:
            if form != "delta" and "_delta_log" in names:
                raise UsageError(
                    f"{out} is a Delta table, whose earlier versions need their files; use "
                    "--format delta, or choose another output"
                )
            info = RunInfo(run=secrets.token_hex(4), fingerprint=dict(fingerprint))
            # The data of a table's earlier versions stay; its log begins the new run when asked.
            store.clear(keep_table=form == "delta" and "_delta_log" in names)
            store.write(RUN, info.model_dump_json(indent=2).encode())
            log = DeltaLog(out, SCHEMA, run=info.run) if form == "delta" else None
        return Output(store, info.run, log)
    except OSError as error:
        store.unlock()
        raise UsageError(f"output {out!r} cannot be written: {error}") from error
    except BaseException:
        store.unlock()
        raise


def _lock(store: OutputStore, wait_seconds: float) -> None:
    """Take the lock; that of a machine that was taken away lapses after some minutes."""
    until = time.monotonic() + wait_seconds
    while True:
        try:
            return store.lock()
        except OutputBusy:
            if time.monotonic() >= until:
                raise
            time.sleep(min(_LOCK_POLL, wait_seconds))


def require_same(out: str, fingerprint: Mapping[str, str]) -> None:
    """Do nothing when an output is new or was begun under this fingerprint; takes no lock.

    Raises:
        ResumeRefused: It was begun under another one; the text names the parts.
    """
    if is_output(out):
        _refuse_other(out, read_run(open_store(out)).fingerprint, fingerprint)


def _refuse_other(out: str, recorded: Mapping[str, str], given: Mapping[str, str]) -> None:
    parts = [name for name in {**recorded, **given} if recorded.get(name) != given.get(name)]
    if parts:
        told = "; ".join(
            f"{name} is {_short(given.get(name))}, was {_short(recorded.get(name))}"
            for name in parts
        )
        raise ResumeRefused(
            f"{out} was begun differently ({told}): choose another output, or --fresh starts over"
        )


def _short(value: str | None) -> str:
    if value is None:
        return "not given"
    return value if len(value) <= _SHOWN else f"{value[: _SHOWN - 1]}…"
