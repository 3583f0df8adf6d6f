"""Sift one shard: read, score, decide, write. What workers run; see ``filter_run``."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tamis.corpus.document import Document, Quarantined
from tamis.corpus.manifest import Counts, ShardRecord
from tamis.corpus.readers import ReadLimits, Shard, read_shard
from tamis.corpus.store import OutputStore, open_store
from tamis.corpus.writers import OutputFormat, PartWriter, part_writer
from tamis.errors import EngineError
from tamis.scoring.summary import Summariser
from tamis.task import Columns

_BLOCK_CHARACTERS = 32_000_000
_DECIMALS = 6
_METADATA = msgspec.json.Encoder(enc_hook=str)


class ScoresLike(Protocol):
    """What a scorer says of n texts: scores and the tokens that it read, both of shape (n,)."""

    @property
    def values(self) -> NDArray[np.float64]:
        """Scores."""

    @property
    def tokens(self) -> NDArray[Any]:
        """Tokens that were read."""


class Scorer(Protocol):
    """Anything that scores texts, such as a ``Classifier``."""

    def score(self, texts: Sequence[str]) -> ScoresLike:
        """Score texts, in order."""


def load_scorer(model_dir: str) -> Scorer:
    """Load a trained classifier from its directory.

    Raises:
        ModelError: The directory is damaged or not ours.
    """
    from tamis.models.classifier import load_classifier

    classifier: Scorer = load_classifier(Path(model_dir))
    return classifier


@dataclass(frozen=True)
class SiftPlan:
    """All that a worker needs to know; sent to each once, when it starts.

    Attributes:
        model_dir: Directory of the model, handed to ``load``.
        output: Local folder or fsspec URL.
        threshold: Kept is what scores at least this.
        scale: Lowest and highest score.
        model_version: Written into every row.
        columns: Which column of the corpus holds what.
        format: Of the kept and dropped files.
        limits: Bounds on reading.
        block: Most documents scored together.
        threads: Threads of torch in each worker; 0 leaves torch's own choice.
        load: Importable function that makes a scorer of ``model_dir``.
    """

    model_dir: str
    output: str
    threshold: float
    scale: tuple[float, float]
    model_version: str
    columns: Columns = field(default_factory=Columns)
    format: OutputFormat = "parquet"
    limits: ReadLimits = field(default_factory=ReadLimits)
    block: int = 2_048
    threads: int = 0
    load: Callable[[str], Scorer] = load_scorer


class Sifter:
    """A loaded scorer that sifts shard after shard.

    Args:
        plan: What to do.
        rows_done: Where to write how many rows of each shard were dealt with, by position.
    """

    def __init__(self, plan: SiftPlan, rows_done: MutableSequence[int] | None = None) -> None:
        self.plan, self.rows_done = plan, rows_done
        self.store: OutputStore = open_store(plan.output)
        self.scorer = plan.load(plan.model_dir)
        # Workers share the cores; torch would take them all in each. Not imported for its own sake.
        if plan.threads and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(plan.threads)

    def sift(self, position: int, shard: Shard) -> ShardRecord:
        """Write the kept, dropped and quarantined rows of a shard; nothing is committed yet.

        Args:
            position: Of the shard in the run, from 0.
            shard: What to read.

        Raises:
            EngineError: Rows were lost or made up on the way.
            OSError: Storage failed.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        run = _ShardRun(self, f"{position:05d}-{shard.name}")
        with run.files:
            for block in _blocks(
                read_shard(shard, self.plan.columns, self.plan.limits), self.plan.block
            ):
                run.take(block)
                if self.rows_done is not None:
                    self.rows_done[position] = run.read
        counts = run.counts()
        if not counts.balanced:
            raise EngineError(f"shard {shard.name} does not balance: {counts}")
        return ShardRecord(
            shard=shard.name,
            position=position,
            counts=counts,
            tokens_in=run.tokens[True] + run.tokens[False],
            tokens_kept=run.tokens[True],
            characters_in=run.characters[True] + run.characters[False],
            characters_kept=run.characters[True],
            seconds=round(time.perf_counter() - wall, 3),
            cpu_seconds=round(time.process_time() - cpu, 3),
            files=tuple(w.record for w in run.writers.values() if w.record is not None),
            summary=run.summary.result().model_dump(mode="json"),
        )


class _ShardRun:
    """The files and figures of one shard while it is being sifted."""

    def __init__(self, sifter: Sifter, stem: str) -> None:
        self.sifter, self.plan, self.stem = sifter, sifter.plan, stem
        self.files = ExitStack()
        self.writers: dict[str, PartWriter] = {}
        self.summary = Summariser(*self.plan.scale, self.plan.threshold)
        self.read = 0
        self.tokens = {True: 0, False: 0}
        self.characters = {True: 0, False: 0}
        with self.files:  # an empty shard has its two files too; kept open only on success
            self._open("kept", self.plan.format)
            self._open("dropped", self.plan.format)
            self.files = self.files.pop_all()

    def _open(self, part: str, form: str) -> None:
        path = f"{part}/{self.stem}.{form}"
        self.writers[part] = self.files.enter_context(part_writer(self.sifter.store, path))

    def counts(self) -> Counts:
        rows = {part: writer.rows for part, writer in self.writers.items()}
        return Counts(
            read=self.read,
            kept=rows["kept"],
            dropped=rows["dropped"],
            quarantined=rows.get("quarantine", 0),
        )

    def take(self, block: list[Document | Quarantined]) -> None:
        self.read += len(block)
        documents = [row for row in block if isinstance(row, Document)]
        broken = [row for row in block if isinstance(row, Quarantined)]
        if documents:
            broken += self._score(documents)
        if broken:
            if "quarantine" not in self.writers:
                self._open("quarantine", "jsonl.zst")
            broken.sort(key=lambda row: row.row)
            self.writers["quarantine"].write([_broken_row(row) for row in broken])
            for row in broken:
                self.summary.quarantined(row.reason)

    def _score(self, documents: list[Document]) -> list[Quarantined]:
        """Write documents to their side; returns those for which the model gave no number."""
        scores = self.sifter.scorer.score([document.text for document in documents])
        # Rounded before deciding, so that the score in the row explains the decision.
        values: NDArray[np.float64] = np.around(scores.values, _DECIMALS).astype(np.float64)
        if values.shape != (len(documents),) or len(scores.tokens) != len(documents):
            raise EngineError(
                f"the model gave {values.shape} scores for {len(documents)} documents"
            )
        finite = np.isfinite(values)
        sides: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for document, value, tokens in zip(documents, values.tolist(), scores.tokens, strict=True):
            if not np.isfinite(value):
                continue
            keep = value >= self.plan.threshold
            sides[keep].append(self._row(document, value, int(tokens), keep))
            self.tokens[keep] += int(tokens)
            self.characters[keep] += len(document.text)
        self.writers["kept"].write(sides[True])
        self.writers["dropped"].write(sides[False])
        good = [document for document, fine in zip(documents, finite, strict=True) if fine]
        if good:
            self.summary.add(good, values[finite])
        return [
            Quarantined(
                d.shard, d.row, f"row {d.row}", "no_score", "the model's score is no number"
            )
            for d, fine in zip(documents, finite, strict=True)
            if not fine
        ]

    def _row(self, document: Document, score: float, tokens: int, keep: bool) -> dict[str, Any]:
        return {
            "id": document.id,
            "text": document.text,
            "source": document.source,
            "score": score,
            "student_score": None,
            "encoder_score": score,
            "decision": "keep" if keep else "drop",
            "reason": "score>=threshold" if keep else "score<threshold",
            "model_version": self.plan.model_version,
            "tokens": tokens,
            "shard": document.shard,
            "row": document.row,
            "metadata": _METADATA.encode(document.metadata).decode(),
        }


def _broken_row(row: Quarantined) -> dict[str, Any]:
    return {
        "shard": row.shard,
        "row": row.row,
        "place": row.place,
        "reason": row.reason,
        "detail": row.detail,
        "raw": base64.b64encode(row.raw).decode(),
    }


def _blocks(
    rows: Iterable[Document | Quarantined], size: int
) -> Iterator[list[Document | Quarantined]]:
    """Rows in blocks of ``size``, or fewer where their texts are long."""
    block: list[Document | Quarantined] = []
    characters = 0
    for row in rows:
        block.append(row)
        characters += len(row.text) if isinstance(row, Document) else len(row.raw)
        if len(block) >= size or characters >= _BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


_sifter: Sifter | None = None


def start_worker(plan: SiftPlan, rows_done: MutableSequence[int] | None = None) -> None:
    """Load the model of ``plan`` in this process, for ``sift_shard``."""
    global _sifter
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _sifter = Sifter(plan, rows_done)


def sift_shard(item: tuple[int, Shard]) -> ShardRecord:
    """Sift one shard, given with its position, in a started worker.

    Raises:
        EngineError: The worker was not started, or the shard does not balance.
    """
    if _sifter is None:
        raise EngineError("sift_shard was called before start_worker")
    return _sifter.sift(*item)
