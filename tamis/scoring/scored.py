"""Documents that a filter scored before, as input of another one: decide again, score nothing."""

from __future__ import annotations

import base64
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.corpus.document import Document, Quarantined
from tamis.corpus.manifest import FileRecord, Manifest, ShardRecord, read_manifest, read_rows
from tamis.corpus.shards import Shard
from tamis.corpus.store import OutputStore, open_store
from tamis.corpus.writers import SCHEMA
from tamis.errors import DataError, UsageError
from tamis.fingerprint import sha256_of
from tamis.scoring.stages import Candidate

_MOST_BINS = 20_000_000
_READ = ("score", "encoder_score", "tokens", "decision", "reason")
_COLUMNS = pa.schema([f for f in SCHEMA if f.name in _READ])


@dataclass(frozen=True, slots=True)
class ScoredShard(Shard):
    """A shard of a finished output.

    Attributes:
        files: Where its rows are, below ``url``.
    """

    files: tuple[FileRecord, ...] = ()


def scored_shards(out: str) -> list[Shard]:
    """The shards of a finished output, in their order.

    Raises:
        UsageError: There is no output, or its run was not finished.
        DataError: Its manifest is damaged.
    """
    manifest = read_manifest(out)
    if "report.json" not in open_store(out).names():
        raise UsageError(
            f"--scores: given {out!r}; allowed: the output of a finished filter "
            f"(this one has {len(manifest.shards):,} shards so far; run the filter again)"
        )
    return [_shard(out, record) for record in manifest.shards]


def _shard(out: str, record: ShardRecord) -> ScoredShard:
    return ScoredShard(
        name=record.shard,
        url=out,
        format="parquet",
        compression="none",
        size=sum(file.bytes for file in record.files),
        stamp=sha256_of(file.sha256 for file in record.files),
        files=record.files,
    )


def scored_rows(shard: ScoredShard) -> Iterator[Candidate | Quarantined]:
    """Rows of all parts of a shard in their old order.

    A document with a score comes undecided; one without keeps the decision that it had before it
    could be scored.

    Raises:
        DataError: A file is damaged.
        OSError: Storage failed.
    """
    store = open_store(shard.url)
    parts = [((row["row"], row) for row in read_rows(store, file.path)) for file in shard.files]
    try:
        for _, row in heapq.merge(*parts, key=lambda pair: pair[0]):
            yield _broken(row) if "raw" in row else _candidate(row)
    except (pa.ArrowException, msgspec.DecodeError, KeyError, ValueError) as error:
        raise DataError(f"{shard.url}: shard {shard.name} cannot be read: {error}") from error


def _candidate(row: dict[str, Any]) -> Candidate:
    document = Document(
        id=row["id"],
        text=row["text"],
        source=row["source"],
        shard=row["shard"],
        row=row["row"],
        metadata=json.loads(row["metadata"]),
        id_given=True,
    )
    candidate = Candidate(
        document,
        row["text"],
        score=row["score"],
        student_score=row["student_score"],
        encoder_score=row["encoder_score"],
        tokens=row["tokens"],
        language=row["language"],
        language_probability=row["language_probability"],
        pii_before=row["pii_found"],
    )
    if row["score"] is None:
        candidate.duplicate_of = row["duplicate_of"]
        candidate.decide(row["decision"], row["reason"])
    return candidate


def _broken(row: dict[str, Any]) -> Quarantined:
    return Quarantined(
        shard=row["shard"],
        row=row["row"],
        place=row["place"],
        reason=row["reason"],
        detail=row["detail"],
        raw=base64.b64decode(row["raw"]),
    )


@dataclass(frozen=True)
class ScoreCounts:
    """How the scores of an output are spread.

    Attributes:
        low: Lowest score of the scale.
        step: Width of a bin; a millionth unless the scale is very wide.
        documents: Scored documents in each bin (b,).
        tokens: Tokens of those that no later stage took out (b,).
        unscored: Documents without a score, by the reason for which they were not scored.
        student_only: Documents that only a student scored.
    """

    low: float
    step: float
    documents: np.ndarray[tuple[int], np.dtype[np.int64]]
    tokens: np.ndarray[tuple[int], np.dtype[np.int64]]
    unscored: dict[str, int]
    student_only: int = 0

    def top_share(self, share: float) -> float:
        """The score that ``share`` (0-1) of the scored documents reach."""
        above = np.cumsum(self.documents[::-1])
        wanted = share * (above[-1] if len(above) else 0)
        return self._score(int(np.searchsorted(above, wanted, side="left")))

    def token_budget(self, tokens: int) -> float:
        """The lowest score from which all documents together have at most ``tokens``.

        Documents that a rule, decontamination or deduplication took out count nothing.

        Raises:
            UsageError: The best documents alone have more.
        """
        above = np.cumsum(self.tokens[::-1])
        best = above[np.searchsorted(above, 0, side="right") :][:1]
        if len(best) and tokens < best[0]:
            raise UsageError(
                f"--token-budget: given {tokens:,}; allowed: at least {int(best[0]):,}, "
                "the tokens of the documents with the highest score"
            )
        return self._score(int(np.searchsorted(above, tokens, side="right")) - 1)

    def _score(self, bins_from_top: int) -> float:
        at = len(self.documents) - 1 - max(bins_from_top, 0)
        return round(self.low + max(at, 0) * self.step, 6)


def count_scores(out: str, scale: tuple[float, float]) -> ScoreCounts:
    """Read the scores of an output, one file at a time.

    Args:
        out: Finished output.
        scale: Lowest and highest score.
    """
    low, high = scale
    bins = min(round((high - low) * 1e6), _MOST_BINS)
    step = (high - low) / bins
    documents = np.zeros(bins + 1, dtype=np.int64)
    tokens = np.zeros(bins + 1, dtype=np.int64)
    unscored: dict[str, int] = {}
    student_only = 0
    store, manifest = open_store(out), read_manifest(out)
    for file in _scored_files(manifest):
        for table in _score_columns(store, file.path):
            here = table.filter(pc.is_valid(table["score"]))
            student_only += here["encoder_score"].null_count
            for reason in table.filter(pc.is_null(table["score"]))["reason"].to_pylist():
                unscored[reason] = unscored.get(reason, 0) + 1
            places = np.rint((here["score"].to_numpy() - low) / step).astype(np.int64)
            places = np.clip(places, 0, bins)
            np.add.at(documents, places, 1)
            eligible = pc.or_(
                pc.equal(here["decision"], "keep"), pc.equal(here["reason"], "score<threshold")
            )
            np.add.at(tokens, places, np.where(eligible, here["tokens"].to_numpy(), 0))
    return ScoreCounts(low, step, documents, tokens, unscored, student_only)


def _score_columns(store: OutputStore, path: str) -> Iterator[pa.Table]:
    if path.endswith(".parquet"):
        with store.open(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=list(_COLUMNS.names)):
                yield pa.Table.from_batches([batch])
        return
    rows = read_rows(store, path)
    while block := list(islice(rows, 8_192)):
        yield pa.Table.from_pylist(block, _COLUMNS)


def _scored_files(manifest: Manifest) -> Iterator[FileRecord]:
    for record in manifest.shards:
        for file in record.files:
            if not file.path.startswith("quarantine/"):
                yield file
