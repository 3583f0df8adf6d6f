"""The labels of a run as files: what the judge said, overruled where people said otherwise.

labels.parquet     (or labels.jsonl) one row a labelled document: a ``files`` source of the task
quarantine.jsonl   documents whose answer is unusable, with the reason
source.yaml        the entry for ``sources`` of the task file
report.json, .html what happened
selection.jsonl    the documents that were asked about, in their order
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tamis.annotation.agreement import Pair, agreement
from tamis.annotation.journal import Journal, Reading
from tamis.annotation.prompt import levels
from tamis.annotation.report import AnnotationReport, Flawed, Readings
from tamis.annotation.reviews import Review, reviews_of
from tamis.annotation.selection import Chosen, Selection, counts_of
from tamis.corpus.store import OutputStore

_EXAMPLES = 30


@dataclass(frozen=True)
class Labelled:
    """A document with what is known of its label.

    Attributes:
        chosen: The document.
        first: What came of the first reading; None where it remains.
        second: Of the second; None where none was wanted, or it remains.
        review: What people said.
    """

    chosen: Chosen
    first: Reading | None
    second: Reading | None
    review: Review | None

    @property
    def score(self) -> int | float | str | None:
        """The label: people's where they gave one, else the judge's."""
        if self.review is not None:
            return self.review.label
        return None if self.first is None else self.first.score


def gather(selection: Selection, journal: Journal) -> list[Labelled]:
    """What is known of each document, from the journal alone."""
    terms, doubled = selection.terms, selection.doubled()
    told, reviews = [terms.instructions(0), terms.instructions(1)], reviews_of(journal.store)

    def of(item: Chosen, repeat: int) -> Reading | None:
        return journal.readings.get((item.sha256, told[repeat], terms.model, repeat))

    return [
        Labelled(
            item,
            of(item, 0),
            of(item, 1) if item.sha256 in doubled else None,
            reviews.get(item.sha256),
        )
        for item in selection.items
    ]


def write_labels(store: OutputStore, selection: Selection, found: list[Labelled]) -> None:
    """Write labels, quarantine and the entry for the task file, each file whole."""
    rows = [_row(item, selection) for item in found if item.score is not None]
    name = f"labels.{selection.format}"
    if selection.format == "parquet":
        table = pa.Table.from_pylist(rows, schema=_schema(selection))
        with store.create(name) as file:
            pq.write_table(table, file, compression="zstd")
    else:
        store.write(name, _lines(rows))
    flawed = [
        {
            "id": item.chosen.id,
            "text": item.chosen.text,
            "source": item.chosen.source,
            "sha256": item.chosen.sha256,
            "reason": item.first.flaw,
            "detail": item.first.detail,
            "judge": item.first.model,
        }
        for item in found
        if item.first is not None and item.first.flaw is not None
    ]
    store.write("quarantine.jsonl", _lines(flawed))
    people = sum(item.review is not None for item in found)
    store.write("source.yaml", source_entry(selection, name, people, len(rows)).encode())


def source_entry(selection: Selection, name: str, reviewed: int, rows: int) -> str:
    """The entry for ``sources`` of the task file, as YAML."""
    rubric, model = selection.terms.rubric, selection.terms.model
    by = f"{model}, a language model, under the rubric {rubric.name} {rubric.version} (not people)"
    if reviewed:
        by += f"; {reviewed} of {rows} by people, who overrule it"
    entry = {
        "kind": "files",
        "path": name,
        "columns": {"text": "text", "label": "score", "id": "id", "source": "source"},
        "labels_by": by,
    }
    return str(yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=1_000))


def _row(item: Labelled, selection: Selection) -> dict[str, Any]:
    terms, review = selection.terms, item.review
    ordinal = terms.target.kind == "ordinal"

    def shown(score: float | str | None) -> Any:
        return float(score) if ordinal and score is not None else score

    first, second = item.first, item.second
    return {
        "id": item.chosen.id,
        "text": item.chosen.text,
        "score": shown(item.score),
        "reason": first.reason if first is not None else "",
        "judge": terms.model,
        "judge_score": shown(first.score) if first is not None else None,
        "second_score": shown(second.score) if second is not None else None,
        "labelled_by": terms.model if review is None else ", ".join(review.who),
        "rubric": terms.rubric.name,
        "rubric_version": terms.rubric.version,
        "rubric_sha256": terms.rubric.sha256,
        "sha256": item.chosen.sha256,
        "source": item.chosen.source,
        "strategy": item.chosen.strategy,
        "model_score": item.chosen.model_score,
    }


def _schema(selection: Selection) -> pa.Schema:
    label = pa.float64() if selection.terms.target.kind == "ordinal" else pa.string()
    special = dict.fromkeys(("score", "judge_score", "second_score"), label)
    special["model_score"] = pa.float64()
    names = (
        "id", "text", "score", "reason", "judge", "judge_score", "second_score", "labelled_by",
        "rubric", "rubric_version", "rubric_sha256", "sha256", "source", "strategy", "model_score",
    )  # fmt: skip
    return pa.schema([(name, special.get(name, pa.string())) for name in names])


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def report_of(
    output: str, selection: Selection, found: list[Labelled], run: Mapping[str, Any]
) -> AnnotationReport:
    """The report of a run.

    Args:
        output: Where the labels are.
        selection: What was asked about.
        found: What is known of each document.
        run: What only the run knows: requests, faults, cost, why it stopped.
    """
    doubled, terms = selection.doubled(), selection.terms
    wanted = [item for item in found if item.chosen.sha256 in doubled]
    readings = [one for item in found for one in (item.first, item.second) if one is not None]
    flawed = [
        Flawed(id=item.chosen.id, flaw=item.first.flaw, detail=item.first.detail)
        for item in found
        if item.first is not None and item.first.flaw is not None
    ]
    given = [_name(item.score) for item in found if item.score is not None]
    return AnnotationReport(
        task=terms.task,
        model=terms.model,
        rubric=f"{terms.rubric.name} {terms.rubric.version}",
        rubric_sha256=terms.rubric.sha256,
        output=output,
        documents=_count([item.first for item in found]),
        # A document whose first answer is unusable is not read again.
        second=_count([item.second for item in wanted if not (item.first and item.first.flaw)]),
        flaws=counts_of([flaw.flaw for flaw in flawed]),
        examples=tuple(flawed[:_EXAMPLES]),
        cost_in_all=sum(one.cost for one in readings),
        input_tokens=sum(one.input_tokens for one in readings),
        output_tokens=sum(one.output_tokens for one in readings),
        histogram=_histogram(selection, given),
        agreement=agreement(_twice(found), terms.target, selection.seed),
        reviewed=sum(item.review is not None for item in found),
        with_people=agreement(_reviewed(selection, found), terms.target, selection.seed),
        chosen=selection.summary(),
        **run,
    )


def write_report(store: OutputStore, report: AnnotationReport) -> None:
    """Write the report and its page."""
    store.write("report.json", report.model_dump_json(indent=1).encode())
    store.write("report.html", report.to_html().encode())


def _name(score: float | str | None) -> str:
    return f"{score:g}" if isinstance(score, int | float) else str(score)


def _histogram(selection: Selection, given: list[str]) -> dict[str, int]:
    names = [_name(level) for level in levels(selection.terms.target)]
    names += sorted(set(given) - set(names))
    return {name: given.count(name) for name in names}


def _count(readings: list[Reading | None]) -> Readings:
    labelled = sum(one is not None and one.score is not None for one in readings)
    remaining = sum(one is None for one in readings)
    return Readings(
        asked=len(readings),
        labelled=labelled,
        quarantined=len(readings) - labelled - remaining,
        remaining=remaining,
    )


def _twice(found: list[Labelled]) -> list[Pair]:
    return [
        Pair(
            sha256=item.chosen.sha256,
            id=item.chosen.id,
            text=item.chosen.text,
            first=item.first.score,
            second=item.second.score,
            first_reason=item.first.reason,
            second_reason=item.second.reason,
        )
        for item in found
        if item.first is not None and item.first.score is not None
        if item.second is not None and item.second.score is not None
    ]


def _reviewed(selection: Selection, found: list[Labelled]) -> list[Pair]:
    """Documents with a score of the judge and a label by people that is one of the levels."""
    allowed = levels(selection.terms.target)
    return [
        Pair(
            sha256=item.chosen.sha256,
            id=item.chosen.id,
            text=item.chosen.text,
            first=item.first.score,
            second=item.review.level,
            first_reason=item.first.reason,
            second_reason=", ".join(item.review.who),
        )
        for item in found
        if item.first is not None and item.first.score is not None
        if item.review is not None and item.review.level in allowed
    ]
