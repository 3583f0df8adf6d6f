"""The commit protocol of a filtering run's output, as readers see it (``output.py`` writes).

``OUT/run.json`` says under which fingerprint it was begun; each committed shard is one record of
the manifest (a line of ``manifest.jsonl``, or one object under ``manifest/`` on an object store).
What no record names does not exist: readers trust the manifest only, and a resumed run does again
whatever was not committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from tamis.corpus.store import RUN, OutputStore, check_sha256, open_store
from tamis.errors import DataError, UsageError

_VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Frozen):
    """One committed file: path below the output, rows, bytes and sha256 in hexadecimal."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Counts(_Frozen):
    """Rows of a shard or run; each that was read went to exactly one of the other four."""

    read: int = 0
    kept: int = 0
    dropped: int = 0
    duplicates: int = 0
    quarantined: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            read=self.read + other.read,
            kept=self.kept + other.kept,
            dropped=self.dropped + other.dropped,
            duplicates=self.duplicates + other.duplicates,
            quarantined=self.quarantined + other.quarantined,
        )

    def __str__(self) -> str:
        return (
            f"in {self.read:,} = kept {self.kept:,} + dropped {self.dropped:,} "
            f"+ duplicates {self.duplicates:,} + quarantined {self.quarantined:,}"
        )

    @property
    def balanced(self) -> bool:
        """Whether every row that was read went somewhere."""
        return self.read == self.kept + self.dropped + self.duplicates + self.quarantined


class StageFigures(_Frozen):
    """What a stage did: documents that entered and that it took out, wall and CPU seconds."""

    entered: int = 0
    removed: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: StageFigures) -> StageFigures:
        return StageFigures(
            entered=self.entered + other.entered,
            removed=self.removed + other.removed,
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
        )

    def rounded(self) -> StageFigures:
        """The same with times to the tenth of a millisecond."""
        times = {"seconds": round(self.seconds, 4), "cpu_seconds": round(self.cpu_seconds, 4)}
        return self.model_copy(update=times)


class ShardRecord(_Frozen):
    """A committed shard.

    Attributes:
        shard: Its name.
        position: Its place in the run's list of shards, from 0.
        counts: Rows.
        tokens_in: Tokens of all scored documents, by the model's tokenizer.
        tokens_kept: The same, of the kept ones.
        characters_in: Characters of all scored documents, in full.
        characters_kept: The same, of the kept ones.
        seconds: Wall time.
        cpu_seconds: Time of all threads of the worker.
        stages: What each stage did, by name, in their order.
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
    stages: dict[str, StageFigures] = {}
    files: tuple[FileRecord, ...] = ()
    summary: dict[str, Any] = {}

    @model_validator(mode="after")
    def _balances(self) -> ShardRecord:
        if not self.counts.balanced:
            raise ValueError(f"shard {self.shard}: {self.counts} do not balance")
        return self


class RunInfo(_Frozen):
    """Content of ``run.json``.

    Attributes:
        version: Of this layout.
        run: Random name of the run that began the output.
        fingerprint: What the output depends on, as named parts.
    """

    version: int = _VERSION
    run: str = ""
    fingerprint: dict[str, str]


class Manifest(_Frozen):
    """A run's fingerprint and its committed shards by position."""

    run: RunInfo
    shards: tuple[ShardRecord, ...]

    @property
    def counts(self) -> Counts:
        """Rows of all committed shards."""
        return sum((record.counts for record in self.shards), Counts())


def read_manifest(out: str) -> Manifest:
    """The manifest of an output, finished or not.

    Raises:
        UsageError: There is no output of ours.
        DataError: The manifest is damaged.
    """
    store = open_store(out)
    records = sorted(read_records(store), key=lambda record: record.position)
    return Manifest(run=read_run(store), shards=tuple(records))


def is_output(out: str) -> bool:
    """Whether a folder is an output of ours (it may be unfinished)."""
    try:
        read_run(open_store(out))
    except (UsageError, DataError):
        return False
    return True


def list_files(out: str, part: str) -> list[str]:
    """Paths below ``out`` of the committed files of a part (see ``read_output``)."""
    return [file.path for file in _files(read_manifest(out), part)]


def read_output(out: str, part: str = "kept", verify: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the committed files of an output, in the order of the shards.

    Args:
        out: Local folder or fsspec URL.
        part: ``kept``, ``dropped``, ``duplicates`` or ``quarantine``.
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
            for row in read_rows(store, file.path):
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


def read_rows(store: OutputStore, path: str) -> Iterator[dict[str, Any]]:
    """Rows of one file of an output, by its suffix.

    Raises:
        OSError: Storage failed, or the file is damaged.
        pa.ArrowException: The file is damaged.
        msgspec.DecodeError: The file is damaged.
    """
    return (_parquet_rows if path.endswith(".parquet") else _jsonl_rows)(store, path)


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


def read_run(store: OutputStore) -> RunInfo:
    """Under which fingerprint an output was begun.

    Raises:
        UsageError: There is no output of ours.
        DataError: ``run.json`` is damaged.
    """
    try:
        return RunInfo.model_validate_json(store.read(RUN))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{store.url} is no output of tamis: it has no {RUN}") from None
    except ValidationError:
        raise DataError(f"{store.url}: {RUN} is damaged; --fresh starts over") from None


def read_records(store: OutputStore) -> Iterator[ShardRecord]:
    """The committed shards, in the order of the manifest, one by one.

    Raises:
        DataError: A record is damaged.
    """
    for number, line in enumerate(store.records(), start=1):
        try:
            yield ShardRecord.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{store.url}: record {number} of the manifest is damaged "
                f"({error.errors()[0]['msg']}); --fresh starts over"
            ) from None
