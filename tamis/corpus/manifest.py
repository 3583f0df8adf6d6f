"""The commit protocol of a filtering run's output.

``OUT/run.json`` says under which fingerprint it was begun; each committed shard is one record of
the manifest (a line of ``manifest.jsonl``, or one object under ``manifest/`` on an object store).
What no record names does not exist: readers trust the manifest only, and a resumed run does again
whatever was not committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tamis.corpus.store import RUN, OutputStore, check_sha256, open_store
from tamis.errors import DataError, EngineError, ResumeRefused, UsageError

_VERSION = 1
_SHOWN = 24


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Frozen):
    """One committed file: path below the output, rows, bytes and sha256 in hexadecimal."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Counts(_Frozen):
    """Rows of a shard or run; what was read is kept, dropped or quarantined, nothing else."""

    read: int = 0
    kept: int = 0
    dropped: int = 0
    quarantined: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            read=self.read + other.read,
            kept=self.kept + other.kept,
            dropped=self.dropped + other.dropped,
            quarantined=self.quarantined + other.quarantined,
        )

    @property
    def balanced(self) -> bool:
        """Whether every row that was read went somewhere."""
        return self.read == self.kept + self.dropped + self.quarantined


class ShardRecord(_Frozen):
    """A committed shard.

    Attributes:
        shard: Its name.
        position: Its place in the run's list of shards, from 0.
        counts: Rows.
        tokens_in: Tokens that the model read of all scored documents (not all they have).
        tokens_kept: The same, of the kept ones.
        characters_in: Characters of all scored documents, in full.
        characters_kept: The same, of the kept ones.
        seconds: Wall time.
        cpu_seconds: Time of all threads of the worker.
        files: What was written.
        summary: Figures for the report, see ``tamis.scoring.summary``.
    """

    shard: str
    position: int
    counts: Counts
    tokens_in: int = 0
    tokens_kept: int = 0
    characters_in: int = 0
    characters_kept: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    files: tuple[FileRecord, ...] = ()
    summary: dict[str, Any] = {}

    @model_validator(mode="after")
    def _balances(self) -> ShardRecord:
        if not self.counts.balanced:
            raise ValueError(f"shard {self.shard}: {self.counts} do not balance")
        return self


class RunInfo(_Frozen):
    """Content of ``run.json``: what the output depends on, as named parts."""

    version: int = _VERSION
    fingerprint: dict[str, str]


class Manifest(_Frozen):
    """A run's fingerprint and its committed shards by position."""

    run: RunInfo
    shards: tuple[ShardRecord, ...]

    @property
    def counts(self) -> Counts:
        """Rows of all committed shards."""
        return sum((record.counts for record in self.shards), Counts())


class Output:
    """An output that is being written, held under its lock; a context manager.

    Attributes:
        store: Where its files lie.
        committed: Positions of the shards that are done.
    """

    def __init__(self, store: OutputStore) -> None:
        self.store = store
        self.committed = {record.position for record in _records(store)}

    def commit(self, record: ShardRecord) -> None:
        """Record a shard whose files are in place; from here on it exists.

        Raises:
            EngineError: The shard was committed before.
        """
        if record.position in self.committed:
            raise EngineError(f"shard {record.shard} was committed twice")
        self.store.append(record.position, record.model_dump_json().encode())
        self.committed.add(record.position)

    def records(self) -> Iterator[ShardRecord]:
        """Committed shards, read again from the manifest one by one."""
        return _records(self.store)

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


def open_output(out: str, fingerprint: Mapping[str, str], fresh: bool = False) -> Output:
    """Begin an output, or go on with one that was begun under the same fingerprint.

    Args:
        out: Local folder or fsspec URL.
        fingerprint: Everything the rows depend on, as named parts.
        fresh: Remove what an earlier run wrote there and begin anew.

    Raises:
        ResumeRefused: It was begun under another fingerprint; the text names the parts.
        UsageError: Another run holds it, or the folder is somebody else's.
        DataError: Its manifest is damaged.
    """
    store = open_store(out)
    store.lock()
    try:
        names = store.names()
        begun = RUN in names
        foreign = [name for name in names if not name.startswith(".")]
        if not begun and foreign:  # run.json is the first file to come and the last to go
            raise UsageError(
                f"{out} holds files that no run of tamis wrote, such as {foreign[0]}; "
                "choose an empty or new folder"
            )
        if begun and not fresh:
            _refuse_other(out, _run_info(store).fingerprint, fingerprint)
            store.repair()
        else:
            store.clear()
            info = RunInfo(fingerprint=dict(fingerprint))
            store.write(RUN, info.model_dump_json(indent=2).encode())
        return Output(store)
    except BaseException:
        store.unlock()
        raise


def read_manifest(out: str) -> Manifest:
    """The manifest of an output, finished or not.

    Raises:
        UsageError: There is no output of ours.
        DataError: The manifest is damaged.
    """
    store = open_store(out)
    records = sorted(_records(store), key=lambda record: record.position)
    return Manifest(run=_run_info(store), shards=tuple(records))


def is_output(out: str) -> bool:
    """Whether a folder is an output of ours (it may be unfinished)."""
    try:
        _run_info(open_store(out))
    except (UsageError, DataError):
        return False
    return True


def list_files(out: str, part: str) -> list[str]:
    """Paths below ``out`` of the committed files of ``kept``, ``dropped`` or ``quarantine``."""
    return [file.path for file in _files(read_manifest(out), part)]


def read_output(out: str, part: str = "kept", verify: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the committed files of an output, in the order of the shards.

    Args:
        out: Local folder or fsspec URL.
        part: ``kept``, ``dropped`` or ``quarantine``.
        verify: Compare each file with its sha256 before its first row is given.

    Raises:
        UsageError: There is no output of ours.
        DataError: A file is missing, or is not what was written.
    """
    store = open_store(out)
    for file in _files(read_manifest(out), part):
        if verify:
            check_sha256(store, file.path, file.sha256)
        rows = 0
        try:
            for row in _rows_of(file.path)(store, file.path):
                rows += 1
                yield row
        except (OSError, pa.ArrowException, msgspec.DecodeError) as error:
            raise DataError(f"{out}: {file.path} cannot be read: {error}") from error
        if rows != file.rows:
            raise DataError(f"{out}: {file.path} has {rows} rows, {file.rows} were written")


def _files(manifest: Manifest, part: str) -> Iterator[FileRecord]:
    for record in manifest.shards:
        for file in record.files:
            if file.path.startswith(f"{part}/"):
                yield file


def _rows_of(path: str) -> Callable[[OutputStore, str], Iterator[dict[str, Any]]]:
    return _parquet_rows if path.endswith(".parquet") else _jsonl_rows


def _parquet_rows(store: OutputStore, path: str) -> Iterator[dict[str, Any]]:
    with store.open(path) as file:
        for batch in pq.ParquetFile(file).iter_batches(1024, use_threads=False):
            yield from batch.to_pylist()


def _jsonl_rows(store: OutputStore, path: str) -> Iterator[dict[str, Any]]:
    with store.open(path) as file, pa.CompressedInputStream(file, "zstd") as stream:
        rest = b""
        while data := stream.read(1 << 16):
            *whole, rest = (rest + data).split(b"\n")
            yield from map(msgspec.json.decode, whole)


def _run_info(store: OutputStore) -> RunInfo:
    try:
        return RunInfo.model_validate_json(store.read(RUN))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{store.url} is no output of tamis: it has no {RUN}") from None
    except ValidationError:
        raise DataError(f"{store.url}: {RUN} is damaged; --fresh starts over") from None


def _records(store: OutputStore) -> Iterator[ShardRecord]:
    for number, line in enumerate(store.records(), start=1):
        try:
            yield ShardRecord.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{store.url}: record {number} of the manifest is damaged "
                f"({error.errors()[0]['msg']}); --fresh starts over"
            ) from None


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


def require_same(out: str, fingerprint: Mapping[str, str]) -> None:
    """Do nothing when an output is new or was begun under this fingerprint; takes no lock.

    Raises:
        ResumeRefused: It was begun under another one; the text names the parts.
    """
    if is_output(out):
        _refuse_other(out, _run_info(open_store(out)).fingerprint, fingerprint)
