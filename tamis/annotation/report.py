"""What a run of annotation did, as one document and one page."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.annotation.agreement import Agreement
from tamis.annotation.selection import ChosenDocuments


class Flawed(BaseModel):
    """A document whose answer is quarantined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    flaw: str
    detail: str


class Readings(BaseModel):
    """What became of readings: asked = labelled + quarantined + remaining.

    Attributes:
        asked: Readings that were wanted.
        labelled: That gave a score.
        quarantined: Whose answer is unusable.
        remaining: That the next run will ask for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: int
    labelled: int
    quarantined: int
    remaining: int


class AnnotationReport(BaseModel):
    """What a run of annotation did.

    Attributes:
        task: Name of the task.
        model: The judge.
        rubric: Its name and version.
        rubric_sha256: Hash of the rubric.
        output: Where the labels are.
        documents: Of the first reading of each document.
        second: Of the second reading of some.
        cached: Readings that an earlier run had paid for.
        sent: Requests of this run.
        faults: Failed requests of this run, by kind.
        flaws: Quarantined answers of documents, by reason.
        examples: Some of these.
        cost: USD of this run, failed requests included.
        cost_in_all: USD of all that these documents have cost.
        cost_cap: Most USD for these documents.
        input_tokens: Of the readings.
        output_tokens: Likewise.
        stopped: Why the run ended before its end; empty where it did not.
        histogram: Documents by label, as reviewed.
        agreement: Of the judge with itself.
        reviewed: Documents that people labelled.
        with_people: Agreement of the judge with them.
        chosen: How the documents were chosen.
        unreadable_lines: Lines of the journal that are no readings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    model: str
    rubric: str
    rubric_sha256: str
    output: str
    documents: Readings
    second: Readings
    cached: int = 0
    sent: int = 0
    faults: dict[str, int] = {}
    flaws: dict[str, int] = {}
    examples: tuple[Flawed, ...] = ()
    cost: float = 0.0
    cost_in_all: float = 0.0
    cost_cap: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    stopped: str = ""
    histogram: dict[str, int] = {}
    agreement: Agreement | None = None
    reviewed: int = 0
    with_people: Agreement | None = None
    chosen: ChosenDocuments
    unreadable_lines: int = 0

    def sentence(self) -> str:
        """What happened, in a sentence."""
        found = self.documents
        told = (
            f"{found.labelled:,} of {found.asked:,} documents labelled by {self.model}, "
            f"{found.quarantined:,} quarantined, {found.remaining:,} remaining"
        )
        return f"{told}; stopped: {self.stopped}" if self.stopped else told

    def to_html(self) -> str:
        """One self-contained page."""
        found, second = self.documents, self.second
        cards = [
            ("documents asked about", f"{found.asked:,}"),
            ("labelled", f"{found.labelled:,}"),
            ("quarantined", f"{found.quarantined:,}"),
            ("remaining", f"{found.remaining:,}"),
            ("USD, this run", f"{self.cost:.4f}"),
            ("USD, in all", f"{self.cost_in_all:.4f}"),
            ("reviewed by people", f"{self.reviewed:,}"),
        ]
        facts = [
            ("judge", self.model),
            ("rubric", f"{self.rubric}, sha256 {self.rubric_sha256[:12]}"),
            ("labels", self.output),
            ("requests sent", self.sent),
            ("readings from the journal", self.cached),
            ("tokens read", self.input_tokens),
            ("tokens written", self.output_tokens),
            ("second readings", f"{second.labelled:,} of {second.asked:,} labelled, "
             f"{second.quarantined:,} quarantined, {second.remaining:,} remaining"),
            ("cost cap", "none" if self.cost_cap is None else f"{self.cost_cap:g} USD"),
            ("stopped", self.stopped or "at the end"),
        ]  # fmt: skip
        parts = [html.cards(cards), html.section("The run", html.table(("", ""), facts))]
        parts.append(html.section("Labels", _bars(self.histogram)))
        parts.append(html.section("Documents", self._documents()))
        if self.flaws or self.faults:
            parts.append(html.section("What went wrong", self._wrong()))
        if self.agreement is not None:
            title = "Two readings by the judge"
            parts.append(html.section(title, agreement_html(self.agreement)))
        if self.with_people is not None:
            parts.append(html.section("The judge and people", agreement_html(self.with_people)))
        return html.page(f"Annotation of {self.task}", html.join(parts), self.sentence())

    def _documents(self) -> html.Html:
        considered = self.chosen.considered
        rows = [
            ("rows read", considered.read),
            ("unreadable", considered.unreadable),
            ("labelled already", considered.labelled),
            ("duplicates of those considered", considered.duplicates),
            ("considered", considered.considered),
            *((f"chosen: {name}", count) for name, count in self.chosen.by_strategy.items()),
        ]
        return html.join([html.table(("", "documents"), rows), *map(_note, self.chosen.notes)])

    def _wrong(self) -> html.Html:
        rows = [(f"quarantined: {name}", count) for name, count in self.flaws.items()]
        rows += [(f"failed requests: {name}", count) for name, count in self.faults.items()]
        shown = [(flawed.id, flawed.flaw, flawed.detail) for flawed in self.examples]
        tables = [html.table(("", "number"), rows)]
        if shown:
            tables.append(html.table(("document", "reason", "detail"), shown))
        return html.join(tables)


def _note(told: str) -> html.Html:
    return html.Html(f"<p>{html.text(told)}</p>")


def _bars(counts: dict[str, int]) -> html.Html:
    """Documents by label."""
    top = max([*counts.values(), 1])
    rows = [
        (name, count, html.Html(
            f'<svg viewBox="0 0 100 10" role="img" aria-label="{count}"><rect width='
            f'"{100 * count / top:.1f}" height="10" rx="1" fill="var(--keep)"/></svg>'))
        for name, count in counts.items()
    ]  # fmt: skip
    return html.table(("label", "documents", ""), rows)


def agreement_html(found: Agreement) -> html.Html:
    """Figures, the table of both readings, and the documents that they differ on."""
    kind = "quadratic weighted kappa" if found.weights == "quadratic" else "Cohen's kappa"
    facts: Sequence[tuple[str, object]] = [
        ("documents", found.n),
        (kind, "not defined" if found.kappa is None else str(found.kappa)),
        ("same score", str(found.exact)),
        ("largest gap, in levels", found.largest_gap),
    ]
    table = [(str(level), *row) for level, row in zip(found.levels, found.table, strict=True)]
    parts = [
        html.table(("", ""), facts),
        html.table(("first / second", *map(str, found.levels)), table),
    ]
    differing = [
        (pair.id, pair.first, pair.second, pair.text, pair.first_reason, pair.second_reason)
        for pair in found.differing
    ]
    if differing:
        names = ("document", "first", "second", "text", "first reason", "second reason")
        parts.append(html.table(names, differing))
    return html.join(parts)
