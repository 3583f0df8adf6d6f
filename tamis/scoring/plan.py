"""What a filter shall do: sent to each worker once, when it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from tamis.corpus.document import Document, Quarantined
from tamis.corpus.readers import ReadLimits, Shard, read_shard
from tamis.corpus.settings import FilterSettings
from tamis.corpus.writers import OutputFormat
from tamis.scoring.load import LoadScorer, Scorer
from tamis.task import Columns

if TYPE_CHECKING:
    from tamis.scoring.cascade import Cascade


_SAVED = LoadScorer()


@dataclass(frozen=True)
class SiftPlan:
    """All that a worker needs to know.

    Attributes:
        model_dir: Directory of the model, handed to ``load``.
        output: Local folder or fsspec URL.
        threshold: Kept is what scores at least this.
        scale: Lowest and highest score.
        model_version: Written into every row.
        filter: Settings of the stages.
        columns: Which column of the corpus holds what.
        format: Of the kept, dropped and duplicate rows.
        limits: Bounds on reading.
        block: Most documents that pass the stages together.
        threads: Threads of torch in each worker; 0 leaves torch's own choice.
        load: Importable function that makes a scorer of ``model_dir``.
        sample: Most rows of each shard; 0 takes all.
        share: Share of the texts to take, drawn by their hash.
        seed: Of that draw.
        cascade: Decides what the encoder need not see; None where it sees everything.
        run: Short name of this run of the output, in the names of its files where old
            versions stay readable (Delta); empty elsewhere.
        wait_seconds: How long to wait for another run that holds the output.
    """

    model_dir: str
    output: str
    threshold: float
    scale: tuple[float, float]
    model_version: str
    filter: FilterSettings = field(default_factory=FilterSettings)
    columns: Columns = field(default_factory=Columns)
    format: OutputFormat = "parquet"
    limits: ReadLimits = field(default_factory=ReadLimits)
    block: int = 512
    threads: int = 0
    load: Callable[[str], Scorer] = _SAVED
    sample: int = 0
    share: float = 1.0
    seed: int = 0
    cascade: Cascade | None = None
    run: str = ""
    wait_seconds: float = 0.0

    def read(self, shard: Shard) -> Iterator[Document | Quarantined]:
        """The rows of a shard that this plan wants.

        Raises:
            OSError: Storage failed.
        """
        rows = read_shard(shard, self.columns, self.limits, self.filter.html)
        if self.share < 1:
            rows = filter(self._drawn, rows)
        return islice(rows, self.sample) if self.sample else rows

    def _drawn(self, row: Document | Quarantined) -> bool:
        # By text: one that is there often is no likelier to be drawn.
        text = row.text.encode(errors="surrogatepass") if isinstance(row, Document) else row.raw
        return xxh3_64_intdigest(text, self.seed) < self.share * 2**64

    @property
    def dedup_corpus(self) -> bool:
        """Whether exact duplicates are looked for across shards, before the sifting."""
        return self.filter.exact.enabled and self.filter.exact.scope == "corpus"

    @property
    def dedup_near(self) -> bool:
        """Whether near-duplicates are looked for, after the sifting."""
        return self.filter.near_duplicates.enabled
