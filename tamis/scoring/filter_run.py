"""Filter a corpus: the driver. Opens the output, runs the passes, commits, reports.

hash         hash every document                         (exact duplicates of the corpus)
exact        find those that repeat another one          (exact duplicates of the corpus)
sift         pass every document through the stages
match        pair candidates that share a signature band (near-duplicates)
resolve      verify pairs, cluster, decide who stays     (near-duplicates)
finish       part candidates into kept and duplicates    (near-duplicates)

A pass begins when the one before it is done; what is done is recorded, and not done again.
The driver holds counts and paths, never documents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tamis.corpus.exact import sections_for
from tamis.corpus.manifest import Counts, ShardRecord
from tamis.corpus.output import Output, open_output
from tamis.corpus.readers import Shard
from tamis.engine.base import Engine, available_cores
from tamis.engine.local import LocalEngine
from tamis.errors import EngineError, UsageError
from tamis.fingerprint import code_fingerprint, sha256_of
from tamis.scoring import passes
from tamis.scoring.filter_report import FilterReport, build_report
from tamis.scoring.passes import BandItem, Note, SectionsItem, ShardItem
from tamis.scoring.plan import SiftPlan
from tamis.scoring.progress import ConsoleProgress, Meter, Progress, Ticker

_EXACT_TASKS = 8


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
    stages = {f"filter.{name}": _json(part) for name, part in plan.filter}
    if plan.filter.decontamination.files:
        from tamis.corpus import decontamination

        stages["evaluation sets"] = decontamination.fingerprint(plan.filter.decontamination)
    return {
        **parts,
        **stages,
        "model": plan.model_version,
        **_ways(plan),
        "threshold": f"{plan.threshold!r}",
        "scale": f"{plan.scale[0]:g}-{plan.scale[1]:g}",
        "format": plan.format,
        "columns": plan.columns.model_dump_json(exclude_none=True),
        "limits": limits,
        "input": shards_fingerprint(shards),
        "code": code_fingerprint(),
    }


def _ways(plan: SiftPlan) -> dict[str, str]:
    """What is only there where it was asked for."""
    found: dict[str, str] = {}
    if plan.cascade is not None:
        found["cascade"] = plan.cascade.fingerprint[:16]
    if plan.share < 1:
        found["drawn"] = f"{plan.share!r} of the rows, seed {plan.seed}"
    return found


def _json(settings: Any) -> str:
    return str(settings.model_dump_json())


def run_filter(
    plan: SiftPlan,
    shards: Sequence[Shard],
    fingerprint_parts: Mapping[str, str] | None = None,
    engine: Engine | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> FilterReport:
    """Sift every shard that ``plan.output`` does not hold yet, and report on all of them.

    The report is also written to ``report.json`` and ``report.html`` there.

    Args:
        plan: Model, threshold, stages, columns, output.
        shards: The corpus, from ``list_shards``.
        fingerprint_parts: More of what the rows depend on, such as ``{"task": fingerprint}``.
        engine: Runs the passes; one process of this machine by default. It is entered here.
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
    fingerprint = run_fingerprint(plan, shards, fingerprint_parts or {})
    try:
        return _filter(plan, shards, fingerprint, engine, fresh, progress)
    except OSError as error:  # of the driver's own files; those of workers are tried again
        raise EngineError(f"{plan.output}: {error}") from error


def _filter(
    plan: SiftPlan,
    shards: Sequence[Shard],
    fingerprint: Mapping[str, str],
    engine: Engine | None,
    fresh: bool,
    progress: Progress | None,
) -> FilterReport:
    started = time.perf_counter()
    with open_output(plan.output, fingerprint, fresh, plan.format, plan.wait_seconds) as output:
        if plan.format == "delta":  # files of an earlier version of the table stay readable
            plan = replace(plan, run=output.run)
        if len(output.committed) < len(shards):
            with engine or LocalEngine(1) as workers:
                run = _Run(_sharing(plan, workers.workers), shards, output, progress)
                run.passes(workers)
            output.store.repair()  # a worker may have been killed and replaced on the way
        report = build_report(
            _checked(output, shards),
            output=plan.output,
            model_version=plan.model_version,
            threshold=plan.threshold,
            scale=plan.scale,
            seconds=time.perf_counter() - started,
            promise=None if plan.cascade is None else plan.cascade.info.promise,
        )
        if not report.counts.balanced or report.shards != len(shards):
            raise EngineError(f"{plan.output} does not balance: {report.counts}")
        output.store.write("report.json", report.model_dump_json(indent=2).encode())
        output.store.write("report.html", report.to_html().encode())
        named = {file.path for record in output.records() for file in record.files}
        output.store.sweep(named, run=plan.run)
        output.store.remove_tree("work")
    return report


def _sharing(plan: SiftPlan, workers: int) -> SiftPlan:
    """The plan, with the cores shared out among workers; torch would take them all in each."""
    if plan.threads or workers < 2:
        return plan
    return replace(plan, threads=max(1, available_cores() // workers))


@dataclass
class _Run:
    """The passes of one run."""

    plan: SiftPlan
    shards: Sequence[Shard]
    output: Output
    progress: Progress | None

    def passes(self, engine: Engine) -> None:
        """Everything that is not done yet, pass by pass."""
        plan = self.plan
        self.engine = engine
        exact_tasks = self._exact() if plan.dedup_corpus else 0
        hashed = self.output.notes("hash") if exact_tasks else {}
        finding = self._spent("exact") if exact_tasks else 0.0
        todo = self._left(self.output.committed)
        # Placed late: a shared model holds processors that hashing could use.
        placed = replace(plan, load=engine.place(plan.load, plan.model_dir))
        items = [
            ShardItem(at, self.shards[at], exact_tasks, finding + _seconds(hashed.get(at, {})))
            for at in todo
        ]
        if not plan.dedup_near:
            rows = self._counted(items, hashed)
            self._run("sift", items, passes.sift_shard, self._commit, placed, rows)
        else:
            sifted = self.output.notes("sift")
            items = [item for item in items if item.position not in sifted]
            rows = self._counted(items, hashed)
            self._run("sift", items, passes.sift_candidates, self._note("sift"), placed, rows)
            self._near()
            matching = self._spent("match") + self._spent("resolve")
            items = [ShardItem(at, self.shards[at], 0, matching) for at in todo]
            self._run("finish", items, passes.finish_shard, self._commit)

    @staticmethod
    def _counted(items: Sequence[ShardItem], hashed: Mapping[int, Note]) -> int:
        return sum(int(hashed.get(item.position, {}).get("documents", 0)) for item in items)

    def _spent(self, ledger: str) -> float:
        """CPU seconds of a pass over the corpus that fall on each shard."""
        return sum(map(_seconds, self.output.notes(ledger).values())) / len(self.shards)

    def _left(self, done: Any) -> list[int]:
        return [at for at in range(len(self.shards)) if at not in done]

    def _exact(self) -> int:
        """Find the exact duplicates of the corpus; returns how many files hold them."""
        done = self.output.notes("hash")
        items = [ShardItem(at, self.shards[at]) for at in self._left(done)]
        self._run("hash", items, passes.hash_shard, self._note("hash"))
        documents = sum(fields["documents"] for fields in self.output.notes("hash").values())
        # Cut by the corpus alone, so that a resume with other workers meets the same pieces.
        tasks = sections_for(documents, _EXACT_TASKS)
        found = self.output.notes("exact")
        sections = [SectionsItem(i, r, len(self.shards)) for i, r in enumerate(tasks)]
        left = [item for item in sections if item.position not in found]
        self._run("exact", left, passes.find_exact, self._note("exact"))
        return len(tasks)

    def _near(self) -> None:
        """Find the near-duplicates among all candidates."""
        size, found = len(self.shards), self.output.notes("match")
        bands = range(self.plan.filter.near_duplicates.bands)
        items = [BandItem(band, size) for band in bands if band not in found]
        if not self.output.notes("resolve"):
            self._run("match", items, passes.match_band, self._note("match"))
            self._run("resolve", [BandItem(0, size)], passes.resolve_near, self._note("resolve"))

    def _commit(self, item: ShardItem, record: ShardRecord) -> Counts:
        self.output.commit(record)
        return record.counts

    def _note(self, ledger: str) -> Callable[[Any, Note], Counts]:
        def note(item: Any, found: Note) -> Counts:
            self.output.note(ledger, item.position, found)
            known = {key: found[key] for key in Counts.model_fields if key in found}
            return Counts(**known)

        return note

    def _run(
        self,
        name: str,
        items: Sequence[Any],
        work: Callable[[Any], Any],
        done: Callable[[Any, Any], Counts],
        plan: SiftPlan | None = None,
        rows: int = 0,
    ) -> None:
        """Run one pass and show how far it is, by ``rows`` where they were counted before."""
        if not items:
            return
        cells = self.engine.cells(len(self.shards))
        console = ConsoleProgress()
        sizes = [self._size(item) for item in items]
        meter = Meter(name, sizes, cells, self.progress or console, rows)

        def settle(item: Any, result: Any) -> None:
            meter.done(self._size(item), done(item, result))

        try:
            with Ticker(meter.show):
                self.engine.run(
                    items,
                    work,
                    settle,
                    initializer=passes.start_worker,
                    initargs=(plan or self.plan, cells),
                    name=self._name,
                )
        finally:
            console.close()

    def _size(self, item: Any) -> int:
        return item.shard.size if isinstance(item, ShardItem) else 1

    def _name(self, item: Any) -> str:
        if isinstance(item, ShardItem):
            return item.shard.name
        return f"{type(item).__name__.removesuffix('Item').lower()} {item.position}"


def _seconds(note: Note) -> float:
    return float(note.get("cpu_seconds", 0.0))


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
