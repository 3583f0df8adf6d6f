"""A run: choose documents, ask the judge about each, write down what it says.

Everything that was answered is in the journal, and what is written at the end follows from
selection and journal alone: a run that was killed and begun again ends with the same files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from tamis.annotation.candidates import candidates
from tamis.annotation.journal import Journal, Reading
from tamis.annotation.judge import EndpointFault, EndpointRefused, Judge
from tamis.annotation.output import gather, report_of, write_labels, write_report
from tamis.annotation.purse import CapReached, Purse
from tamis.annotation.report import AnnotationReport
from tamis.annotation.selection import Chosen, Selection, Terms
from tamis.annotation.settings import AnnotationSettings
from tamis.annotation.strategies import Advisers, Progress, pick, rank
from tamis.corpus.readers import Shard
from tamis.corpus.source_settings import Columns
from tamis.corpus.store import OutputStore
from tamis.errors import DataError

CAP_REACHED = "the cost cap is reached"
REFUSED = "the endpoint refuses"
FAILING = "the endpoint fails"


def choose(
    terms: Terms,
    settings: AnnotationSettings,
    shards: Sequence[Shard],
    columns: Columns,
    labelled: AbstractSet[str],
    advisers: Advisers,
    budget: int,
    seed: int,
    progress: Progress | None = None,
) -> Selection:
    """Choose the documents of a run.

    Args:
        terms: What the answers hang on.
        settings: Strategy, its candidates, the share that is read twice.
        shards: The corpus.
        columns: Which of its columns holds what.
        labelled: Content hashes of documents that have a label.
        advisers: Models that strategies ask.
        budget: Most documents.
        seed: Of all draws.
        progress: Told of texts that a model has read.

    Raises:
        DataError: There is nothing to annotate.
    """
    found, considered = candidates(
        shards, columns, labelled, max(settings.candidates, budget), seed
    )
    if not found:
        raise DataError(
            f"annotate: of {considered.read:,} rows none is left: {considered.labelled:,} have a "
            f"label, {considered.unreadable:,} cannot be read"
        )
    texts, shares = [document.text for _, document in found], settings.shares()
    orders = {name: rank(name, texts, advisers, seed, progress) for name in shares}
    scores = next((scores for _, scores in orders.values() if scores is not None), None)
    items = [
        Chosen(
            sha256=found[at][0],
            id=found[at][1].id,
            source=found[at][1].source,
            text=found[at][1].text,
            strategy=name,
            model_score=None if scores is None else float(scores[at]),
        )
        for at, name in pick(orders, shares, budget)
    ]
    notes = []
    if len(items) < budget:
        notes.append(f"The input holds {len(items):,} documents to annotate, not {budget:,}.")
    return Selection(
        terms=terms,
        budget=budget,
        double_share=settings.double_share,
        seed=seed,
        format="parquet",
        considered=considered,
        notes=tuple(notes),
        items=tuple(items),
    )


@dataclass
class _State:
    """What the workers of a run share.

    Attributes:
        again: Ask again about documents whose answer was unusable.
        queue: Readings on their way to the journal; None ends it.
        cached: Readings that were there already.
        stopped: Why no further document is begun.
        failing: Documents in a row that the endpoint failed on.
        done: Documents that nothing more is to be done about.
    """

    again: bool
    queue: asyncio.Queue[Reading | None] = field(default_factory=asyncio.Queue)
    cached: int = 0
    stopped: str = ""
    failing: int = 0
    done: int = 0


def annotate(
    selection: Selection,
    settings: AnnotationSettings,
    journal: Journal,
    output: OutputStore,
    key: str | None,
    progress: Progress | None = None,
    again: bool = False,
) -> AnnotationReport:
    """Ask the judge about every document of a selection that the journal has no answer for.

    Args:
        selection: The documents.
        settings: The judge's endpoint, limits, prices and cap.
        journal: Answers so far.
        output: Where labels and report go.
        key: API key of the endpoint.
        progress: Told of documents that are done.
        again: Ask again about those whose answer was unusable.

    Raises:
        OSError: The storage failed.
    """
    before = sum(
        reading.cost
        for item in gather(selection, journal)
        for reading in (item.first, item.second)
        if reading is not None
    )
    purse = Purse(settings.cost_cap, before)
    answered = any(one.model == selection.terms.model for one in journal.readings.values())
    judge = Judge(settings, selection.terms, key, purse, answered)
    state = _State(again)
    try:
        asyncio.run(_ask_all(selection, judge, journal, state, progress))
    except ExceptionGroup as group:  # one worker's error ends the others
        raise group.exceptions[0] from None
    found = gather(selection, journal)
    run = {
        "cached": state.cached,
        "sent": judge.sent,
        "faults": dict(sorted(judge.faults.items())),
        "cost": purse.spent - before,
        "cost_cap": settings.cost_cap,
        "stopped": state.stopped,
        "unreadable_lines": journal.unreadable,
    }
    report = report_of(output.url, selection, found, run)
    write_labels(output, selection, found)
    write_report(output, report)
    return report


async def _ask_all(
    selection: Selection,
    judge: Judge,
    journal: Journal,
    state: _State,
    progress: Progress | None,
) -> None:
    """Ask about all documents, so many at a time; every answer is in the journal at the end."""
    waiting, doubled, total = iter(selection.items), selection.doubled(), len(selection.items)

    async def work() -> None:
        for item in waiting:  # each takes the next one
            if state.stopped:
                return
            await _document(item, item.sha256 in doubled, judge, journal, state)
            state.done += 1
            if progress is not None:
                progress(state.done, total)

    async with judge, asyncio.TaskGroup() as group:
        writer = group.create_task(journal.write_from(state.queue))
        workers = [group.create_task(work()) for _ in range(judge.settings.concurrency)]
        await asyncio.wait(workers)
        state.queue.put_nowait(None)
        await writer


async def _document(
    item: Chosen, twice: bool, judge: Judge, journal: Journal, state: _State
) -> None:
    """Both readings of a document, unless they are there; a failing endpoint leaves it for later.

    The second follows the first at once, so that a run that is stopped has some of both.
    """
    terms = judge.terms
    try:
        for repeat in (0, 1) if twice else (0,):
            known = journal.readings.get(
                (item.sha256, terms.instructions(repeat), terms.model, repeat)
            )
            if known is not None and not (state.again and known.flaw):
                state.cached += 1
            else:
                known = await judge.read(item.sha256, item.text, repeat)
                state.failing = 0
                state.queue.put_nowait(known)
            if known.flaw:
                return
    except CapReached:
        state.stopped = CAP_REACHED
    except EndpointRefused as refused:
        state.stopped = f"{REFUSED} ({refused})"
    except EndpointFault as fault:
        state.failing += 1
        if state.failing >= judge.settings.give_up_after:
            state.stopped = f"{FAILING} ({fault})"


def rewrite(selection: Selection, journal: Journal, output: OutputStore) -> AnnotationReport:
    """Write labels and report again, as after labels by people have come; nothing is asked."""
    found = gather(selection, journal)
    report = report_of(output.url, selection, found, {"unreadable_lines": journal.unreadable})
    write_labels(output, selection, found)
    write_report(output, report)
    return report
