"""What a filtering run did: figures, and a page to look at."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from tamis.corpus.manifest import Counts, ShardRecord
from tamis.html import Html, cards, histogram, join, page, section, table, text
from tamis.scoring.summary import Example, Summariser, Summary


class FilterReport(BaseModel):
    """A filtering run, added up from its manifest.

    Attributes:
        output: Folder or URL of the output.
        model_version: Model that scored.
        threshold: Kept is what scores at least this.
        shards: Shards that were sifted.
        counts: Rows read, kept, dropped, quarantined.
        tokens_in: Tokens that the model read, of all scored documents (not all they have).
        tokens_kept: The same, of the kept ones.
        characters_in: Characters of all scored documents, in full.
        characters_kept: The same, of the kept ones.
        seconds: Wall time of this run of the driver; a resumed run counts from its own start.
        worker_seconds: Wall time of all shards, added up over all runs.
        cpu_seconds: CPU time of all shards, added up over all runs.
        summary: Histogram, sources, examples, quarantine reasons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: str
    model_version: str
    threshold: float
    shards: int
    counts: Counts
    tokens_in: int
    tokens_kept: int
    characters_in: int
    characters_kept: int
    seconds: float
    worker_seconds: float
    cpu_seconds: float
    summary: Summary

    @property
    def kept_share(self) -> float:
        """Kept documents of all scored ones, 0-1."""
        scored = self.counts.kept + self.counts.dropped
        return self.counts.kept / scored if scored else 0.0

    @property
    def documents_per_cpu_second(self) -> float:
        """Rows read in a second of one core."""
        return self.counts.read / self.cpu_seconds if self.cpu_seconds else 0.0

    def to_html(self) -> str:
        """One self-contained page; texts of documents are escaped."""
        summary, counts = self.summary, self.counts
        rate, share = self.documents_per_cpu_second, self.kept_share
        figures = [
            (f"{counts.kept:,}", f"documents kept, {share:.1%} of the scored"),
            (f"{counts.dropped:,}", "dropped"),
            (f"{counts.quarantined:,}", "quarantined: not readable"),
            (_large(self.characters_kept), f"characters kept of {_large(self.characters_in)}"),
            (
                _large(self.tokens_kept),
                f"tokens the model read of kept documents, of {_large(self.tokens_in)} in all",
            ),
            (
                f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}",
                f"documents per CPU-second, {self.cpu_seconds:,.1f} CPU-seconds",
            ),
        ]
        body = [
            cards(figures),
            section(
                "Scores",
                histogram(summary.histogram, summary.low, summary.high, self.threshold),
            ),
            section("By source", _sources(summary)),
        ]
        for name, what in (
            ("best", "Highest scores"),
            ("nearest", "Nearest to the threshold"),
            ("worst", "Lowest scores"),
        ):
            examples: tuple[Example, ...] = getattr(summary, name)
            if examples:
                body.append(section(what, join(self._example(example) for example in examples)))
        if summary.quarantine:
            reasons = sorted(summary.quarantine.items(), key=lambda item: -item[1])
            body.append(section("Quarantined", table(["Reason", "Rows"], reasons)))
        lead = (
            f"{self.output}: {counts.read:,} rows of {self.shards:,} shards, model "
            f"{self.model_version}, threshold {self.threshold:g}, {self.seconds:,.1f} s"
        )
        return page("What the sieve kept", join(body), lead)

    def _example(self, example: Example) -> Html:
        kept = " kept" if example.score >= self.threshold else ""
        source = f"{example.source}, " if example.source else ""
        where = f"{source}{example.shard} row {example.row}, id {example.id[:40]}"
        return Html(
            f'<div class="doc{kept}"><small><b>{example.score:.3f}</b> '
            f"{text(where)}</small><p>{text(example.text)}</p></div>"
        )


def build_report(
    records: Iterable[ShardRecord],
    *,
    output: str,
    model_version: str,
    threshold: float,
    scale: tuple[float, float],
    seconds: float,
) -> FilterReport:
    """Add up committed shards; one record is held at a time.

    Args:
        records: From the manifest.
        output: Folder or URL of the output.
        model_version: Model that scored.
        threshold: Kept is what scores at least this.
        scale: Lowest and highest score.
        seconds: Wall time of the run.
    """
    counts, shards, worker, cpu = Counts(), 0, 0.0, 0.0
    tokens, tokens_kept, characters, characters_kept = 0, 0, 0, 0
    total = Summariser(*scale, threshold)
    for record in records:
        shards += 1
        counts += record.counts
        tokens += record.tokens_in
        tokens_kept += record.tokens_kept
        characters += record.characters_in
        characters_kept += record.characters_kept
        worker += record.seconds
        cpu += record.cpu_seconds
        total.merge(Summary.model_validate(record.summary))
    return FilterReport(
        output=output,
        model_version=model_version,
        threshold=threshold,
        shards=shards,
        counts=counts,
        tokens_in=tokens,
        tokens_kept=tokens_kept,
        characters_in=characters,
        characters_kept=characters_kept,
        seconds=round(seconds, 3),
        worker_seconds=round(worker, 3),
        cpu_seconds=round(cpu, 3),
        summary=total.result(),
    )


def _sources(summary: Summary) -> Html:
    rows = []
    for source, counts in summary.sources.items():
        total = counts.kept + counts.dropped
        rows.append((source or "(none)", total, counts.kept, f"{counts.kept / total:.1%}"))
    return table(["Source", "Documents", "Kept", "Share kept"], rows)


def _large(number: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.3g}{unit}"
    return f"{number:,}"
