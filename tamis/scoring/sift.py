"""Sift one shard: read, pass the stages, write. What workers run; see ``filter_run``."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Iterable, Iterator, MutableSequence
from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tamis.corpus.document import Document, Quarantined
from tamis.corpus.exact import read_duplicates
from tamis.corpus.manifest import Counts, FileRecord, ShardRecord
from tamis.corpus.minhash import Signatures, Signer
from tamis.corpus.near import write_signatures
from tamis.corpus.shards import Shard
from tamis.corpus.store import OutputStore, open_store
from tamis.corpus.writers import PartWriter, part_writer, suffix
from tamis.errors import EngineError
from tamis.scoring.layout import CANDIDATES, exact_paths, shard_stem, signature_path
from tamis.scoring.plan import SiftPlan
from tamis.scoring.scored import ScoredShard, scored_rows
from tamis.scoring.stages import Candidate, Stages
from tamis.scoring.summary import Summariser

_BLOCK_CHARACTERS = 32_000_000
_METADATA = msgspec.json.Encoder(enc_hook=str)
_PARTS = {"keep": "kept", "drop": "dropped", "duplicate": "duplicates"}

Row = Candidate | Quarantined


class Sifter:
    """Loaded stages that sift shard after shard.

    Args:
        plan: What to do.
        rows_done: Where to write how many rows of each shard were dealt with, by position.
    """

    def __init__(self, plan: SiftPlan, rows_done: MutableSequence[int] | None = None) -> None:
        self.plan, self.rows_done = plan, rows_done
        self.store: OutputStore = open_store(plan.output)
        self.stages = Stages(plan)
        self.signer = Signer(plan.filter.near_duplicates) if plan.dedup_near else None

    def sift(self, position: int, shard: Shard, exact_tasks: int = 0) -> ShardRecord:
        """Write the rows of a shard to the parts of the output; nothing is committed yet.

        Where near-duplicates are looked for, what would be kept goes to the candidates, with
        signatures beside it.

        Args:
            position: Of the shard in the run, from 0.
            shard: What to read.
            exact_tasks: How many files hold the exact duplicates of the corpus; 0 if none do.

        Raises:
            EngineError: Rows were lost or made up on the way.
            OSError: Storage failed.
        """
        if shard.size and not isinstance(shard, ScoredShard):
            self.stages.load()
        wall, cpu = time.perf_counter(), time.process_time()
        known = (
            read_duplicates(self.store, exact_paths(exact_tasks), position) if exact_tasks else {}
        )
        run = _ShardRun(self, position, shard, known)
        with run.files:
            for block in run.blocks():
                run.take(block)
                if self.rows_done is not None:
                    self.rows_done[position] = run.read
            written = run.files.pop_all()
        with run.stages.clock.measure("write"):  # rows are encoded when files are closed
            written.close()
        run.finish()
        run.summary.audited(run.stages.audit)
        counts = run.counts()
        if not counts.balanced:
            raise EngineError(f"shard {shard.name} does not balance: {counts}")
        return ShardRecord(
            shard=shard.name,
            position=position,
            counts=counts,
            tokens_in=run.tokens["keep"] + run.tokens["other"],
            tokens_kept=run.tokens["keep"],
            characters_in=run.characters["keep"] + run.characters["other"],
            characters_kept=run.characters["keep"],
            seconds=round(time.perf_counter() - wall, 3),
            cpu_seconds=round(time.process_time() - cpu, 3),
            stages=run.stages.clock.result(),
            files=tuple(run.file_records()),
            summary=run.summary.result().model_dump(mode="json"),
        )


class _ShardRun:
    """The files and figures of one shard while it is being sifted."""

    def __init__(
        self,
        sifter: Sifter,
        position: int,
        shard: Shard,
        known: dict[int, tuple[int, int]],
    ) -> None:
        self.sifter, self.plan = sifter, sifter.plan
        self.position, self.shard = position, shard
        self.stem = shard_stem(position, shard, sifter.plan.run)
        stages = sifter.stages
        scored = isinstance(shard, ScoredShard)
        self.stages = stages.for_scored() if scored else stages.for_shard(position, known)
        self.files = ExitStack()
        self.writers: dict[str, PartWriter] = {}
        self.summary = Summariser(*self.plan.scale, self.plan.threshold)
        self.read = 0
        self.tokens = {"keep": 0, "other": 0}
        self.characters = {"keep": 0, "other": 0}
        self.signatures = _Signatures(sifter.signer) if sifter.signer else None
        with self.files:  # an empty shard has its two files too; kept open only on success
            self._writer("kept")
            self._writer("dropped")
            self.files = self.files.pop_all()

    def _writer(self, part: str) -> PartWriter:
        if part not in self.writers:
            candidates = part == "kept" and self.signatures is not None
            form = "jsonl.zst" if part == "quarantine" else suffix(self.plan.format)
            path = (
                f"{CANDIDATES}/{self.stem}.parquet" if candidates else f"{part}/{self.stem}.{form}"
            )
            self.writers[part] = self.files.enter_context(part_writer(self.sifter.store, path))
        return self.writers[part]

    def blocks(self) -> Iterator[list[Row]]:
        """Rows of the shard in blocks; reading counts as the first stage."""
        clock = self.stages.clock
        blocks = _cut_blocks(self._rows(), self.plan.block)
        while True:
            with clock.measure("read"):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def _rows(self) -> Iterator[Row]:
        if isinstance(self.shard, ScoredShard):
            yield from scored_rows(self.shard)
            return
        for row in self.plan.read(self.shard):
            yield Candidate(row, row.text) if isinstance(row, Document) else row

    def take(self, block: list[Row]) -> None:
        """Pass a block through the stages and write all its rows."""
        self.read += len(block)
        decided = [row for row in block if isinstance(row, Candidate)]
        broken = [row for row in block if isinstance(row, Quarantined)]
        self.stages.run(decided)
        broken += [_unscored(c.document) for c in decided if c.decision == "quarantine"]
        kept = [c for c in decided if c.decision == "keep"]
        if self.signatures is not None and kept:
            with self.stages.clock.measure("sign", len(kept)):
                self.signatures.add(kept)
        with self.stages.clock.measure("write", len(block)):
            self._write(decided)
            if broken:
                broken.sort(key=lambda row: row.row)
                self._writer("quarantine").write([_broken_row(row) for row in broken])
        for row in broken:
            self.summary.quarantined(row.reason)

    def _write(self, decided: list[Candidate]) -> None:
        parts: dict[str, list[dict[str, Any]]] = {"kept": [], "dropped": []}
        for candidate in decided:
            if candidate.decision is None or candidate.decision == "quarantine":
                continue
            row = output_row(candidate, self.plan.model_version)
            self.summary.personal_data(candidate.pii or {})
            if candidate.pii_before:
                self.summary.personal_data({"masked before": candidate.pii_before})
            parts.setdefault(_PARTS[candidate.decision], []).append(row)
            if candidate.tokens is not None:
                side = "keep" if candidate.decision == "keep" else "other"
                self.tokens[side] += candidate.tokens
                self.characters[side] += len(candidate.text)
        for part, rows in parts.items():
            self._writer(part).write(rows)
            self.summary.add(rows)

    def finish(self) -> None:
        """Write the signatures, once all documents are known."""
        if self.signatures is None:
            return
        with self.stages.clock.measure("sign"):
            self.signatures.write(self.sifter.store, signature_path(self.position))

    def counts(self) -> Counts:
        """What became of the rows."""
        rows = {part: writer.rows for part, writer in self.writers.items()}
        return Counts(
            read=self.read,
            kept=rows["kept"],
            dropped=rows["dropped"],
            duplicates=rows.get("duplicates", 0),
            quarantined=rows.get("quarantine", 0),
        )

    def file_records(self) -> Iterator[FileRecord]:
        """The files that were written."""
        return (w.record for w in self.writers.values() if w.record is not None)


class _Signatures:
    """Signatures of the kept documents of a shard."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        none = signer.sign([])
        self.bands, self.codes = [none.bands], [none.codes]
        self.rows: list[NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
        self.scores: list[NDArray[np.float64]] = [np.empty(0, dtype=np.float64)]

    def add(self, kept: list[Candidate]) -> None:
        signed = self.signer.sign([c.text for c in kept])
        self.bands.append(signed.bands)
        self.codes.append(signed.codes)
        self.rows.append(np.array([c.document.row for c in kept], dtype=np.uint64))
        scores = [math.nan if c.score is None else c.score for c in kept]
        self.scores.append(np.array(scores, dtype=np.float64))

    def write(self, store: OutputStore, path: str) -> None:
        signatures = Signatures(_joined(self.bands), _joined(self.codes))
        write_signatures(store, path, signatures, _joined(self.rows), _joined(self.scores))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """One array of many, which are let go: a large shard has gigabytes of them."""
    joined = np.concatenate(parts)
    parts.clear()
    return joined


def output_row(candidate: Candidate, model_version: str) -> dict[str, Any]:
    """A document as a row of ``tamis.corpus.writers.SCHEMA``."""
    document = candidate.document
    return {
        "id": document.id,
        "text": candidate.text,
        "source": document.source,
        "score": candidate.score,
        "student_score": candidate.student_score,
        "encoder_score": candidate.encoder_score,
        "decision": candidate.decision,
        "reason": candidate.reason,
        "model_version": model_version,
        "language": candidate.language,
        "language_probability": candidate.language_probability,
        "pii_found": _pii_found(candidate),
        "duplicate_of": candidate.duplicate_of,
        "similarity": 1.0 if candidate.duplicate_of else None,
        "tokens": candidate.tokens,
        "shard": document.shard,
        "row": document.row,
        "metadata": _METADATA.encode(document.metadata).decode(),
    }


def _pii_found(candidate: Candidate) -> int | None:
    if candidate.pii is None:
        return candidate.pii_before
    return sum(candidate.pii.values()) + (candidate.pii_before or 0)


def _unscored(document: Document) -> Quarantined:
    where = f"row {document.row}"
    detail = "the model's score is no number"
    return Quarantined(document.shard, document.row, where, "no_score", detail)


def _broken_row(row: Quarantined) -> dict[str, Any]:
    return {
        "shard": row.shard,
        "row": row.row,
        "place": row.place,
        "reason": row.reason,
        "detail": row.detail,
        "raw": base64.b64encode(row.raw).decode(),
    }


def _cut_blocks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Rows in blocks of ``size``, or fewer where their texts are long."""
    block: list[Row] = []
    characters = 0
    for row in rows:
        block.append(row)
        characters += len(row.text) if isinstance(row, Candidate) else len(row.raw)
        if len(block) >= size or characters >= _BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block
