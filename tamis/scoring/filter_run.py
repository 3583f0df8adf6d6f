"""Filter a corpus: the driver. Opens the output, shares out the shards, commits, reports."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.sharedctypes import RawArray

from tamis.corpus.manifest import Counts, Output, ShardRecord, open_output
from tamis.corpus.readers import Shard
from tamis.engine.local import run_shards
from tamis.errors import EngineError, UsageError
from tamis.fingerprint import code_fingerprint, sha256_of
from tamis.scoring.filter_report import FilterReport, build_report
from tamis.scoring.progress import ConsoleProgress, Progress, RunState, Ticker
from tamis.scoring.sift import SiftPlan, sift_shard, start_worker

Item = tuple[int, Shard]


def shards_fingerprint(shards: Sequence[Shard]) -> str:
    """How many shards, and a hash over name, format, size and stamp of each in order."""
    parts = [
        part
        for shard in shards
        for part in (shard.name, shard.format, shard.compression, str(shard.size), shard.stamp)
    ]
    return f"{len(shards)} files {sha256_of(parts)[:16]}"


def run_fingerprint(
    plan: SiftPlan, shards: Sequence[Shard], parts: Mapping[str, str]
) -> dict[str, str]:
    """Everything that the rows of an output depend on, as named parts.

    Args:
        plan: Of the run.
        shards: Input, in order.
        parts: What the caller adds, such as the task's fingerprint.
    """
    limits = f"{plan.limits.max_line_bytes} bytes, blocks of {plan.block}"
    return {
        **parts,
        "model": plan.model_version,
        "threshold": f"{plan.threshold!r}",
        "scale": f"{plan.scale[0]:g}-{plan.scale[1]:g}",
        "format": plan.format,
        "columns": plan.columns.model_dump_json(exclude_none=True),
        "limits": limits,
        "input": shards_fingerprint(shards),
        "code": code_fingerprint(),
    }


def run_filter(
    plan: SiftPlan,
    shards: Sequence[Shard],
    fingerprint_parts: Mapping[str, str] | None = None,
    workers: int = 1,
    fresh: bool = False,
    progress: Progress | None = None,
) -> FilterReport:
    """Sift every shard that ``plan.output`` does not hold yet, and report on all of them.

    The report is also written to ``report.json`` and ``report.html`` there.

    Args:
        plan: Model, threshold, columns, output.
        shards: The corpus, from ``list_shards``.
        fingerprint_parts: More of what the rows depend on, such as ``{"task": fingerprint}``.
        workers: Processes; 0 runs in this one.
        fresh: Remove what an earlier run wrote, and begin anew.
        progress: Told how far it is, a few times a second; standard error by default.

    Raises:
        ResumeRefused: The output was begun with other settings, model, input or code.
        UsageError: Another run holds the output, or it is no place for one.
        EngineError: A shard failed for good, or rows do not balance.
        ModelError: The model cannot be loaded.
    """
    names = [shard.name for shard in shards]
    if len(set(names)) < len(names):
        raise UsageError("two shards share a name; list all inputs in one call of list_shards")
    started = time.perf_counter()
    if plan.threads == 0 and workers > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        plan = replace(plan, threads=max(1, (cores or 1) // workers))
    fingerprint = run_fingerprint(plan, shards, fingerprint_parts or {})
    with open_output(plan.output, fingerprint, fresh) as output:
        _sift_missing(plan, shards, output, workers, progress)
        output.store.repair()  # a worker may have been killed and replaced on the way
        report = build_report(
            _checked(output, shards),
            output=plan.output,
            model_version=plan.model_version,
            threshold=plan.threshold,
            scale=plan.scale,
            seconds=time.perf_counter() - started,
        )
        if not report.counts.balanced or report.shards != len(shards):
            raise EngineError(f"{plan.output} does not balance: {report.counts}")
        output.store.write("report.json", report.model_dump_json(indent=2).encode())
        output.store.write("report.html", report.to_html().encode())
    return report


def _sift_missing(
    plan: SiftPlan,
    shards: Sequence[Shard],
    output: Output,
    workers: int,
    progress: Progress | None,
) -> None:
    todo = [(at, shard) for at, shard in enumerate(shards) if at not in output.committed]
    if not todo:
        return
    # One cell a shard, written by whoever has it: no lock that a killed worker could keep.
    rows_done = RawArray("q", max(len(shards), 1))
    console = ConsoleProgress()
    meter = _Meter(shards, output, rows_done, progress or console)

    def commit(item: Item, record: ShardRecord) -> None:
        output.commit(record)
        meter.committed(item[1], record.counts)

    try:
        with Ticker(meter.show):
            run_shards(
                todo,
                sift_shard,
                commit,
                workers=min(workers, len(todo)),
                initializer=start_worker,
                initargs=(plan, rows_done),
                name=lambda item: item[1].name,
            )
    finally:
        console.close()


class _Meter:
    """Knows how far the run is."""

    def __init__(
        self, shards: Sequence[Shard], output: Output, rows_done: Sequence[int], show: Progress
    ) -> None:
        self.rows_done, self.show_state = rows_done, show
        self.started = time.perf_counter()
        self.shards, self.done = len(shards), len(output.committed)
        self.bytes = sum(shard.size for shard in shards) or 1
        self.bytes_before = sum(shards[at].size for at in output.committed if at < len(shards))
        self.bytes_done = self.bytes_before
        self.counts = Counts()

    def committed(self, shard: Shard, counts: Counts) -> None:
        self.done += 1
        self.bytes_done += shard.size
        self.counts += counts

    def show(self) -> None:
        self.show_state(
            RunState(
                shards_done=self.done,
                shards=self.shards,
                documents=sum(self.rows_done),
                kept=self.counts.kept,
                scored=self.counts.kept + self.counts.dropped,
                seconds=time.perf_counter() - self.started,
                share=self.bytes_done / self.bytes,
                share_at_start=self.bytes_before / self.bytes,
            )
        )


def _checked(output: Output, shards: Sequence[Shard]) -> Iterator[ShardRecord]:
    """Records of the manifest, one at a time.

    Raises:
        EngineError: One is missing, there twice, or of another shard.
    """
    left = {at: shard.name for at, shard in enumerate(shards)}
    for record in output.records():
        if left.pop(record.position, None) != record.shard:
            raise EngineError(
                f"{output.store.url}: the manifest has {record.shard} at {record.position}, "
                "where the input has something else"
            )
        yield record
    if left:
        raise EngineError(f"{output.store.url}: shard {next(iter(left.values()))} is missing")
