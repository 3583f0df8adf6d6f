"""The log of a Delta table over the files of an output, one version of the table a shard.

Data files stay where the writers put them (``OUT/kept/…parquet`` and so on); the log in
``OUT/_delta_log`` names them, and what it does not name is no row of the table. The column
``part`` (kept, dropped or duplicates) is a partition whose value stands in the log alone.

A shard's commit is idempotent: it carries an application transaction named by run and shard.
It also carries the shard's record, so that a manifest can be completed from the log after a
crash between the two. Old log entries are never cleaned up, as the records live there.

**Starting over.** A new run has a new name. Its first act on a table that is there is one version
that removes all rows and sets the columns; files of earlier runs are left in place, and earlier
versions stay readable (``DeltaTable(out, version=N)``) until the user vacuums. So the files of
different runs need different names: ``00012-name.RUN.parquet``.

**Vacuum.** delta-rs removes only what the log has marked as removed. A *full* vacuum, which is
what Spark does, also removes older files that the log does not know: the manifest, ``run.json``,
reports and quarantine of an output lie in the folder of the table and would go.

**Where.** A local folder (one file system, as commits are atomic links), ``gs://``, ``s3://`` or
``abfss://``; credentials come from the environment variables of each cloud, since delta-rs has
storage clients of its own and knows no fsspec options. Commits are conditional PUTs, which S3 has
had since 2024; an S3-compatible store without them loses commits of concurrent writers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.corpus.store import OutputStore, open_store
from tamis.errors import DataError, EngineError, UsageError

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable

PART = "part"

_NAME = "tamis"
_RUN, _KEY, _RECORD = "tamisRun", "tamisKey", "tamisRecord"
_CONFIGURATION: dict[str, str | None] = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "50",
}
_SCHEMES = {"gs": "gs", "gcs": "gs", "s3": "s3", "s3a": "s3"} | {
    scheme: scheme for scheme in ("abfs", "abfss", "az")
}
_ALLOWED = "a local folder, gs://, s3:// or abfss://"


@dataclass(frozen=True, slots=True)
class DeltaFile:
    """A Parquet file to be named by the log.

    Attributes:
        path: Below the output, such as ``kept/00012-name.parquet``.
        part: Value of the column ``part``.
        size: Bytes.
        rows: Rows.
        mtime_ms: When it was written, in milliseconds since 1970.
        score: Lowest and highest score in it, where known: readers skip files by it.
    """

    path: str
    part: str
    size: int
    rows: int
    mtime_ms: int
    score: tuple[float, float] | None = None


class DeltaLog:
    """The log of the table in one output, as one run sees it; nothing is made before it is used.

    Args:
        url: Local folder or fsspec URL of the output.
        schema: Columns of the data files, without ``part``.
        run: Name of the run that began the output; another one begins the table anew.

    Raises:
        UsageError: The URL is of a kind that has no Delta tables.
    """

    def __init__(self, url: str, schema: pa.Schema, *, run: str) -> None:
        self.url, self.run = url, run
        self.schema = schema.append(pa.field(PART, pa.string()))
        self._uri = _delta_uri(url)
        self._begun = False

    def version(self) -> int | None:
        """Latest version of the table; None where there is no table.

        Raises:
            DataError: The log is damaged.
        """
        table = self._load()
        return None if table is None else table.version()

    def clear(self) -> None:
        """Begin the run: make the table, or remove the rows of earlier runs in a new version.

        Once in the life of a run; later calls do nothing. ``committed`` and ``commit`` call it,
        so a crash after the run got its name leaves nothing of an earlier run visible.

        Raises:
            UsageError: There is a table that no run of tamis made.
            DataError: The log is damaged, or its columns are not those of the run.
            EngineError: The log took no commit.
            OSError: The storage failed.
        """
        if not self._begun:
            self._begin()
            self._begun = True

    def committed(self) -> Iterator[bytes]:
        """Records of the shards that the run has committed, the newest first.

        One entry of the log is read at a time. A driver that commits to the log and then to its
        manifest, shard by shard, may stop at the first record that the manifest has.

        Raises:
            DataError: The log is damaged, or entries were removed from it.
            UsageError, EngineError, OSError: As for ``clear``.
        """
        self.clear()
        store = open_store(self.url)
        for version in range(self._table().version(), -1, -1):
            info = self._commit_info(store, version)
            if info.get(_RUN) != self.run:
                continue
            record = info.get(_RECORD)
            if not isinstance(record, str):
                return  # the version in which the run began
            yield record.encode()

    def _commit_info(self, store: OutputStore, version: int) -> dict[str, Any]:
        try:
            lines = store.read(f"_delta_log/{version:020d}.json").splitlines()
            actions = [json.loads(line) for line in lines]
            return dict(next((a["commitInfo"] for a in actions if "commitInfo" in a), {}))
        except FileNotFoundError:
            raise DataError(
                f"{self.url}: version {version} is gone from the Delta log, and the record of its "
                "shard with it; --fresh starts over"
            ) from None
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def commit(self, key: str, record: bytes, files: Sequence[DeltaFile]) -> bool:
        """Add the files of a shard in one version of the table, unless that was done before.

        Args:
            key: Name of the shard's place in the run; one commit for each.
            record: What ``committed`` gives back; UTF-8.
            files: Files that are in place; those without rows are left out.

        Returns:
            Whether it was committed now; False where it was before, with nothing changed.

        Raises:
            EngineError: The log took no commit, as other writers kept winning.
            OSError: The storage failed.
            UsageError, DataError: As for ``clear``.
        """
        self.clear()
        # A table that is opened anew commits faster than one that is kept, from 100 versions on.
        table = self._table()
        name = self._transaction(key)
        if table.transaction_version(name) is not None:
            return False
        try:
            table.create_write_transaction(
                [_add(file) for file in files if file.rows],
                mode="append",
                schema=self.schema,
                partition_by=[PART],
                commit_properties=self._properties(name, {_KEY: key, _RECORD: record.decode()}),
            )
        except _delta_errors() as error:
            # Another process may have committed the same shard in between.
            if self._table().transaction_version(name) is not None:
                return False
            raise EngineError(f"{self.url}: the Delta log took no commit: {error}") from error
        return True

    def _begin(self) -> None:
        from deltalake import DeltaTable, Schema

        wanted = Schema.from_arrow(self.schema)
        name = self._transaction("")
        properties = self._properties(name, {})
        table = self._load()
        try:
            if table is None:
                DeltaTable.create(
                    self._uri,
                    wanted,
                    partition_by=[PART],
                    name=_NAME,
                    configuration=_CONFIGURATION,
                    commit_properties=properties,
                )
                return
            if table.metadata().name != _NAME:
                raise UsageError(
                    f"{self.url} holds a Delta table that no run of tamis wrote; "
                    "choose an empty or new folder"
                )
            if table.transaction_version(name) is None:
                table.create_write_transaction(
                    [], "overwrite", wanted, [PART], commit_properties=properties
                )
            elif table.schema() != wanted:
                raise DataError(
                    f"{self.url}: the Delta table has other columns; --fresh starts over"
                )
        except _delta_errors() as error:
            raise EngineError(f"{self.url}: the Delta log took no commit: {error}") from error

    def _load(self) -> DeltaTable | None:
        from deltalake import DeltaTable

        try:
            return DeltaTable(self._uri) if DeltaTable.is_deltatable(self._uri) else None
        except _delta_errors() as error:
            raise self._damaged(error) from error

    def _table(self) -> DeltaTable:
        table = self._load()
        if table is None:
            raise DataError(f"{self.url}: the Delta log is gone; --fresh starts over")
        return table

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"{self.url}: the Delta log cannot be read: {error}")

    def _transaction(self, key: str) -> str:
        return f"{_NAME}/{self.run}/{key}"

    def _properties(self, name: str, metadata: dict[str, Any]) -> CommitProperties:
        from deltalake import CommitProperties, Transaction

        return CommitProperties(
            custom_metadata={_RUN: self.run, **metadata},
            app_transactions=[Transaction(name, 1)],
        )


def score_range(store: OutputStore, path: str) -> tuple[float, float] | None:
    """Lowest and highest score of a Parquet file, from its footer; None where it tells neither.

    Args:
        store: Where it lies.
        path: Below the store's root.

    Raises:
        OSError: It cannot be read.
        DataError: It is no Parquet file.
    """
    try:
        with store.open(path) as file:
            footer = pq.ParquetFile(file).metadata
    except pa.ArrowException as error:
        raise DataError(f"{store.url}: {path} cannot be read: {error}") from error
    found: list[float] = []
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        columns = (group.column(i) for i in range(group.num_columns))
        score = next((c for c in columns if c.path_in_schema == "score"), None)
        if score is None or score.statistics is None:
            return None
        if score.statistics.has_min_max:
            found += [score.statistics.min, score.statistics.max]
        elif score.statistics.null_count != group.num_rows:
            return None
    return (min(found), max(found)) if found else None


def _add(file: DeltaFile) -> Any:
    from deltalake.transaction import AddAction

    stats: dict[str, Any] = {"numRecords": file.rows}
    if file.score and all(map(math.isfinite, file.score)):
        low, high = file.score
        stats |= {"minValues": {"score": low}, "maxValues": {"score": high}}
    return AddAction(
        path=file.path,
        size=file.size,
        partition_values={PART: file.part},
        modification_time=file.mtime_ms,
        data_change=True,
        stats=json.dumps(stats),
    )


def _delta_uri(url: str) -> str:
    """What delta-rs calls a place that fsspec calls ``url``."""
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UsageError(f"output {url!r} cannot be opened: {error}") from None
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if "local" in protocols or "file" in protocols:
        return str(path)
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES or "::" in url:
        raise UsageError(f"output {url!r} cannot be a Delta table; allowed: {_ALLOWED}")
    return f"{_SCHEMES[scheme]}://{rest}"


def _delta_errors() -> tuple[type[Exception], ...]:
    from deltalake.exceptions import DeltaError

    return (DeltaError,)
