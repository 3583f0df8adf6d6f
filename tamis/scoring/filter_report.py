"""What a filtering run did: figures, and a page to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from tamis.corpus.manifest import Counts, ShardRecord, StageFigures
from tamis.html import Html, cards, histogram, join, page, section, table, text
from tamis.scoring.audit import AuditEstimate, audit
from tamis.scoring.settings import Promise
from tamis.scoring.summary import Example, Summariser, Summary


class FilterReport(BaseModel):
    """A filtering run, added up from its manifest.

    Attributes:
        output: Folder or URL of the output.
        model_version: Model that scored.
        threshold: Kept is what scores at least this.
        shards: Shards that were sifted.
        counts: Rows read, kept, dropped, duplicates, quarantined.
        tokens_in: Tokens of all scored documents, by the model's tokenizer.
        tokens_kept: The same, of the kept ones.
        characters_in: Characters of all scored documents, in full.
        characters_kept: The same, of the kept ones.
        seconds: Wall time of this run of the driver; a resumed run counts from its own start.
        worker_seconds: Wall time of all shards, added up over all runs.
        cpu_seconds: CPU time of all shards, added up over all runs.
        stages: What each stage did, by name, added up over all shards.
        summary: Histogram, sources, examples, reasons.
        audit: Where there was a cascade: who decided, and whether its promise still holds.
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
    stages: dict[str, StageFigures] = {}
    summary: Summary
    audit: AuditEstimate | None = None

    @property
    def kept_share(self) -> float:
        """Kept documents of all that could be read, 0-1."""
        documents = self.counts.read - self.counts.quarantined
        return self.counts.kept / documents if documents else 0.0

    @property
    def quarantined_share(self) -> float:
        """Quarantined rows of all that were read, 0-1."""
        return self.counts.quarantined / self.counts.read if self.counts.read else 0.0

    @property
    def documents_per_cpu_second(self) -> float:
        """Rows read in a second of one core."""
        return self.counts.read / self.cpu_seconds if self.cpu_seconds else 0.0

    def to_html(self) -> str:
        """One self-contained page; texts of documents are escaped."""
        summary, counts = self.summary, self.counts
        rate, share = self.documents_per_cpu_second, self.kept_share
        figures = [
            (f"{counts.kept:,}", f"documents kept, {share:.1%} of the readable"),
            (f"{counts.dropped:,}", "dropped"),
            (f"{counts.duplicates:,}", "duplicates of others"),
            (f"{counts.quarantined:,}", "quarantined: not readable"),
            (_large(self.characters_kept), f"characters kept of {_large(self.characters_in)}"),
            (
                _large(self.tokens_kept),
                f"tokens kept of {_large(self.tokens_in)} scored, by the model's tokenizer",
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
            *([section("Cascade", _cascade(self.audit))] if self.audit else []),
            section("By stage", _stages(self.stages)),
            section("Left out, by reason", _by_number("Reason", summary.reasons)),
            section("By source", _sources(summary)),
        ]
        if summary.pii:
            body.append(section("Personal data found", _by_number("Kind", summary.pii)))
        for name, what in (
            ("best", "Highest scores"),
            ("nearest", "Nearest to the threshold"),
            ("worst", "Lowest scores"),
        ):
            examples: tuple[Example, ...] = getattr(summary, name)
            if examples:
                body.append(section(what, join(self._example(example) for example in examples)))
        if summary.quarantine:
            body.append(section("Quarantined", _by_number("Reason", summary.quarantine)))
        lead = (
            f"{self.output}: {counts}; {self.shards:,} shards, model "
            f"{self.model_version}, threshold {self.threshold:g}, {self.seconds:,.1f} s"
        )
        return page("What the sieve kept", join(body), lead)

    def _example(self, example: Example) -> Html:
        kept = " kept" if example.kept else ""
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
    promise: Promise | None = None,
) -> FilterReport:
    """Add up committed shards; one record is held at a time.

    Args:
        records: From the manifest.
        output: Folder or URL of the output.
        model_version: Model that scored.
        threshold: Kept is what scores at least this.
        scale: Lowest and highest score.
        seconds: Wall time of the run.
        promise: Of the cascade, where there was one.
    """
    counts, shards, worker, cpu = Counts(), 0, 0.0, 0.0
    tokens, tokens_kept, characters, characters_kept = 0, 0, 0, 0
    total = Summariser(*scale, threshold)
    stages: dict[str, StageFigures] = {}
    for record in records:
        shards += 1
        for name, done in record.stages.items():
            stages[name] = stages.get(name, StageFigures()) + done
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
        stages={name: done.rounded() for name, done in stages.items()},
        summary=total.result(),
        audit=None if promise is None else audit(total.audit, promise),
    )


def _cascade(found: AuditEstimate) -> Html:
    counts = found.counts
    rows = [
        ("in the band: the encoder decided", counts.sent, counts.sent_kept, "", ""),
        ("dropped by the student", counts.dropped, 0, counts.dropped_audited,
         counts.dropped_missed),
        ("kept by the student", counts.kept, counts.kept, counts.kept_audited, counts.kept_wrong),
    ]  # fmt: skip
    headers = ["", "Documents", "Kept", "Audited", "The encoder disagrees"]
    return join(
        [table(headers, rows), *(Html(f"<p>{text(line)}</p>") for line in audit_lines(found))]
    )


def audit_lines(found: AuditEstimate) -> list[str]:
    """What an audit says, a sentence each; the first is the alarm, where it rings."""
    lines = [reason.detail for reason in found.decision.reasons]
    if found.broken:
        lines.insert(0, "WARNING: the cascade no longer keeps its promise; distill it anew.")
    return lines


def _sources(summary: Summary) -> Html:
    rows = []
    for source, counts in summary.sources.items():
        total = counts.kept + counts.dropped + counts.duplicates
        share = f"{counts.kept / total:.1%}"
        rows.append((source or "(none)", total, counts.kept, share, counts.duplicates))
    return table(["Source", "Documents", "Kept", "Share kept", "Duplicates"], rows)


def _stages(stages: Mapping[str, StageFigures]) -> Html:
    rows = []
    for name, done in stages.items():
        each = f"{1e6 * done.cpu_seconds / done.entered:,.0f}" if done.entered else ""
        rows.append((name, done.entered or "", done.removed, f"{done.cpu_seconds:,.2f}", each))
    headers = ["Stage", "Documents", "Taken out", "CPU-seconds", "Microseconds a document"]
    return table(headers, rows)


def _by_number(name: str, numbers: Mapping[str, int]) -> Html:
    ranked: list[tuple[str, int]] = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return table([name, "Rows"], ranked)


def _large(number: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.3g}{unit}"
    return f"{number:,}"
