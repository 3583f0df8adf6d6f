"""The functions that an engine runs, one for each pass of a filter; see ``filter_run``.

Each takes one item, may run again on it, and leaves whole files behind. They live in a worker
that ``start_worker`` has given the plan.
"""

from __future__ import annotations

import os
import time
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.corpus.document import Document
from tamis.corpus.exact import find_duplicates, text_hash, write_hashes
from tamis.corpus.manifest import Counts, FileRecord, ShardRecord, StageFigures
from tamis.corpus.near import candidate_edges, read_removed, resolve
from tamis.corpus.shards import Shard
from tamis.corpus.store import OutputStore, open_store
from tamis.corpus.writers import PartWriter, part_writer, suffix
from tamis.errors import EngineError
from tamis.scoring import layout
from tamis.scoring.plan import SiftPlan
from tamis.scoring.sift import Sifter
from tamis.scoring.stages import place
from tamis.scoring.summary import Summariser, Summary


@dataclass(frozen=True)
class ShardItem:
    """A shard to work on.

    Attributes:
        position: In the run, from 0.
        shard: What to read.
        exact_tasks: Files that hold the exact duplicates of the corpus.
        shared_seconds: CPU time of the passes before, as far as it falls on this shard.
    """

    position: int
    shard: Shard
    exact_tasks: int = 0
    shared_seconds: float = 0.0


@dataclass(frozen=True)
class SectionsItem:
    """Sections of the hashes of ``shards`` shards, whose duplicates one task finds."""

    position: int
    sections: range
    shards: int


@dataclass(frozen=True)
class BandItem:
    """One band of the signatures of ``shards`` shards; -1 for all of them together."""

    position: int
    shards: int


Note = dict[str, Any]
"""What is written down about a finished piece of intermediate work."""


class _Worker:
    """What a worker process holds between items."""

    def __init__(self, plan: SiftPlan, rows_done: MutableSequence[int] | None) -> None:
        self.plan, self.rows_done = plan, rows_done
        self.store: OutputStore = open_store(plan.output)
        self._sifter: Sifter | None = None

    @property
    def sifter(self) -> Sifter:
        """Made with the first shard to sift: other passes need no model."""
        if self._sifter is None:
            self._sifter = Sifter(self.plan, self.rows_done)
        return self._sifter


_worker: _Worker | None = None


def start_worker(plan: SiftPlan, rows_done: MutableSequence[int] | None = None) -> None:
    """Give this process the plan of the functions below."""
    global _worker
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _worker = _Worker(plan, rows_done)


def _here() -> _Worker:
    if _worker is None:
        raise EngineError("a pass of the filter was called before start_worker")
    return _worker


def hash_shard(item: ShardItem) -> Note:
    """Write the hash of every document of a shard.

    Raises:
        OSError: Storage failed.
    """
    worker, started = _here(), time.process_time()
    rows: list[int] = []
    digests: list[bytes] = []
    read = 0
    plan = worker.plan
    for row in plan.read(item.shard):
        read += 1
        if isinstance(row, Document):
            rows.append(row.row)
            digests.append(text_hash(row.text))
        if worker.rows_done is not None and read % plan.block == 0:
            worker.rows_done[item.position] = read
    write_hashes(
        worker.store, layout.hash_path(item.position), digests, np.array(rows, dtype=np.uint64)
    )
    if worker.rows_done is not None:
        worker.rows_done[item.position] = read
    return {"documents": len(rows), "cpu_seconds": _since(started)}


def _since(started: float) -> float:
    return round(time.process_time() - started, 6)


def find_exact(item: SectionsItem) -> Note:
    """Find the documents that repeat another one, among some of the hashes."""
    started = time.process_time()
    paths = [layout.hash_path(position) for position in range(item.shards)]
    out = layout.exact_paths(item.position + 1)[item.position]
    found = find_duplicates(_here().store, paths, item.sections, out)
    return {"duplicates": found, "cpu_seconds": _since(started)}


def sift_shard(item: ShardItem) -> ShardRecord:
    """Sift one shard.

    Raises:
        EngineError: The shard does not balance.
        OSError: Storage failed.
    """
    record = _here().sifter.sift(item.position, item.shard, item.exact_tasks)
    if not item.exact_tasks:
        return record
    hashed = StageFigures(
        entered=record.counts.read - record.counts.quarantined,
        seconds=item.shared_seconds,
        cpu_seconds=item.shared_seconds,
    )
    return record.model_copy(
        update={
            "stages": {"hash": hashed, **record.stages},
            "cpu_seconds": round(record.cpu_seconds + item.shared_seconds, 3),
        }
    )


def sift_candidates(item: ShardItem) -> Note:
    """Sift one shard; its record waits in a file until near-duplicates are known.

    Raises:
        EngineError: The shard does not balance.
        OSError: Storage failed.
    """
    record = sift_shard(item)
    _here().store.write(layout.record_path(item.position), record.model_dump_json().encode())
    return record.counts.model_dump()


def match_band(item: BandItem) -> Note:
    """Find pairs of candidates that share a band of their signatures."""
    started = time.process_time()
    paths = [layout.signature_path(position) for position in range(item.shards)]
    out = layout.edges_path(item.position)
    edges = candidate_edges(_here().store, paths, item.position, out)
    return {"edges": edges, "cpu_seconds": _since(started)}


def resolve_near(item: BandItem) -> Note:
    """Verify the pairs, cluster them, and decide who stays."""
    worker, started = _here(), time.process_time()
    settings = worker.plan.filter.near_duplicates
    paths = [layout.signature_path(position) for position in range(item.shards)]
    edges = [layout.edges_path(band) for band in range(settings.bands)]
    found = resolve(worker.store, paths, edges, settings.threshold, layout.REMOVED)
    return {
        "clusters": found.clusters,
        "removed": found.removed,
        "cpu_seconds": _since(started),
    }


def finish_shard(item: ShardItem) -> ShardRecord:
    """Part the candidates of a shard into kept documents and near-duplicates.

    Raises:
        EngineError: The shard does not balance.
        OSError: Storage failed.
    """
    worker, wall, cpu = _here(), time.perf_counter(), time.process_time()
    store, plan = worker.store, worker.plan
    sifted = ShardRecord.model_validate_json(store.read(layout.record_path(item.position)))
    removed = read_removed(store, layout.REMOVED, item.position)
    stem = layout.shard_stem(item.position, item.shard, plan.run)
    form = suffix(plan.format)
    summary = Summariser(*plan.scale, plan.threshold)
    summary.merge(Summary.model_validate(sifted.summary))
    files = [f for f in sifted.files if not f.path.startswith(layout.CANDIDATES)]
    with part_writer(store, f"kept/{stem}.{form}") as kept:
        if removed:
            with part_writer(store, f"duplicates/{stem}.near.{form}") as duplicates:
                taken = _part_candidates(store, stem, removed, kept, duplicates, summary)
            files.append(_committed(duplicates))
        else:
            taken = _part_candidates(store, stem, {}, kept, kept, summary)
    files.append(_committed(kept))
    near = StageFigures(
        entered=sifted.counts.kept,
        removed=len(taken),
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu + item.shared_seconds,
    )
    counts = sifted.counts + Counts(kept=-len(taken), duplicates=len(taken))
    if counts.kept != kept.rows or not counts.balanced:
        raise EngineError(f"shard {item.shard.name} does not balance: {counts}")
    return sifted.model_copy(
        update={
            "counts": counts,
            "tokens_kept": sifted.tokens_kept - sum(row["tokens"] for row in taken),
            "characters_kept": sifted.characters_kept - sum(row["characters"] for row in taken),
            "seconds": round(sifted.seconds + near.seconds, 3),
            "cpu_seconds": round(sifted.cpu_seconds + near.cpu_seconds, 3),
            "stages": {**sifted.stages, "near_duplicates": near.rounded()},
            "files": tuple(files),
            "summary": summary.result().model_dump(mode="json"),
        }
    )


def _committed(writer: PartWriter) -> FileRecord:
    if writer.record is None:
        raise EngineError("a file was not finished")
    return writer.record


def _part_candidates(
    store: OutputStore,
    stem: str,
    removed: dict[int, tuple[int, int, float]],
    kept: PartWriter,
    duplicates: PartWriter,
    summary: Summariser,
) -> list[dict[str, int]]:
    """Copy the candidates to either writer; tokens and characters of those taken out."""
    taken: list[dict[str, int]] = []
    with store.open(f"{layout.CANDIDATES}/{stem}.parquet") as file:
        for batch in pq.ParquetFile(file).iter_batches(1_024, use_threads=False):
            mask = [row in removed for row in batch.column("row").to_pylist()]
            if not any(mask):
                kept.write_batch(batch)
                continue
            out = pa.array(mask)
            kept.write_batch(batch.filter(pc.invert(out)))
            rows = [_near(row, removed[row["row"]]) for row in batch.filter(out).to_pylist()]
            duplicates.write(rows)
            for row in rows:
                summary.demote(row)
                taken.append({"tokens": row["tokens"], "characters": len(row["text"])})
    return taken


def _near(row: dict[str, Any], keeper: tuple[int, int, float]) -> dict[str, Any]:
    position, kept_row, similarity = keeper
    return row | {
        "decision": "duplicate",
        "reason": "near_duplicate",
        "duplicate_of": place(position, kept_row),
        "similarity": round(float(similarity), 4),
    }
