"""What a filter will take and give, before it runs: a sample goes through the very same passes.

Documents are counted per byte of input (a ratio estimator: Cochran, *Sampling Techniques*,
chapter 6), so a sample says how many a corpus of known size has. The beginning of each sampled
shard stands for the whole of it. Work is split into what goes by document and what goes by shard,
by two trials of different size. Intervals are bootstrapped in two stages, shards first, then
documents in them.

What a sample cannot know: duplicates grow with the corpus, so their share is a lower bound, and
what is kept an upper one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict

from tamis.corpus.manifest import StageFigures, read_output
from tamis.corpus.readers import read_shard
from tamis.corpus.shards import Shard
from tamis.corpus.streams import ReadMeter
from tamis.engine.local import LocalEngine
from tamis.errors import UsageError
from tamis.evaluation.bootstrap import Interval
from tamis.scoring.filter_report import FilterReport
from tamis.scoring.filter_run import run_filter
from tamis.scoring.load import Scorer
from tamis.scoring.plan import SiftPlan
from tamis.scoring.prices import Machine
from tamis.scoring.progress import RunState

_RESAMPLES = 1_000
_Timed = FilterReport | StageFigures
_MOST_SHARDS = 32
_COUNTED = 2_000
"""Rows of a shard that are read to learn how many it has."""
_JUMPS = 4
"""Blocks of a shard that are read, at least, to learn how many rows a byte holds."""


class StageEstimate(BaseModel):
    """What a stage will do.

    Attributes:
        documents: Documents that enter it.
        removed: Documents that it takes out.
        cpu_seconds: Of one core, in all.
        microseconds: CPU time of a document that enters it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int
    removed: int
    cpu_seconds: float
    microseconds: float


class Estimate(BaseModel):
    """What a filter will take and give.

    Attributes:
        shards: Of the input.
        bytes: Of the input.
        sampled_shards: Shards that were sampled.
        sampled_documents: Rows that were sampled.
        documents: Rows of the input.
        kept: Documents that will be kept.
        tokens_kept: Tokens of these, by the model's tokenizer.
        stages: By name, in their order.
        cpu_seconds: In all, of cores like this machine's.
        load_seconds: Once for each worker, to load the model.
        hours: With ``workers`` cores of this machine.
        workers: Cores counted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    shards: int
    bytes: int
    sampled_shards: int
    sampled_documents: int
    documents: Interval
    kept: Interval
    tokens_kept: Interval
    stages: dict[str, StageEstimate]
    cpu_seconds: float
    load_seconds: float
    hours: float
    workers: int

    def on(self, machine: Machine) -> tuple[float, float]:
        """Hours on a machine, and what they cost."""
        return machine.bill(self.cpu_seconds)


@dataclass(frozen=True)
class _Sampled:
    """One sampled shard: bytes that stand behind its rows, and what became of each row."""

    size: int
    """Bytes of the shard."""
    bytes: float
    rows: int
    tokens: np.ndarray[tuple[int], np.dtype[np.int64]]
    """Of each row (rows,); 0 where it is not kept, at least 1 where it is."""


def estimate(
    plan: SiftPlan, shards: Sequence[Shard], documents: int = 2_000, workers: int = 1, seed: int = 0
) -> Estimate:
    """Filter a sample into a temporary folder, in this process, and scale it up.

    Args:
        plan: Of the run; its output is not touched.
        shards: The corpus.
        documents: Rows to sample, spread over up to 32 shards.
        workers: Cores that the run will have.
        seed: Of the choice of shards and of the resampling.

    Raises:
        UsageError: The sample has no row.
        ModelError: The model cannot be loaded.
    """
    chance = np.random.default_rng(seed)
    chosen = _choose(shards, min(_MOST_SHARDS, max(1, documents // 20)), chance)
    # Shards too small to give their part leave it to the others.
    mean = sum(shard.size for shard in chosen) / max(len(chosen), 1)
    large = sum(shard.size > 0.1 * mean for shard in chosen)
    each = -(-documents // max(large, 1))
    started = time.perf_counter()
    scorer = plan.load(plan.model_dir)
    load_seconds = time.perf_counter() - started
    trial = replace(
        plan,
        threads=1,
        format="parquet" if plan.format == "delta" else plan.format,
        load=_Loaded(scorer),
    )
    _try(trial, chosen, 1)  # imports and loads what is loaded once
    less, _ = _try(trial, chosen, max(1, each // 8))
    report, kept = _try(trial, chosen, each)
    sampled = [_measure(plan, shard, each, kept.get(shard.name, {})) for shard in chosen]
    if not report.counts.read:
        raise UsageError("--input: the sampled shards hold no row; nothing can be estimated")
    total = sum(shard.size for shard in shards)
    figures = _scale_up(sampled, total, chance)
    factor = figures["documents"].value / report.counts.read
    scale = _Work(
        rows=(less.counts.read, report.counts.read),
        shards=len(shards) / len(chosen),
        documents=figures["documents"].value,
    )
    stages = {
        name: _stage(done, factor, scale.of(less.stages.get(name), done))
        for name, done in report.stages.items()
    }
    cpu = scale.of(less, report) + workers * load_seconds
    return Estimate(
        shards=len(shards),
        bytes=total,
        sampled_shards=len(chosen),
        sampled_documents=report.counts.read,
        **figures,
        stages=stages,
        cpu_seconds=cpu,
        load_seconds=load_seconds,
        hours=cpu / workers / 3600,
        workers=workers,
    )


def count_documents(plan: SiftPlan, shards: Sequence[Shard], seed: int) -> int:
    """About how many rows a corpus has, from the beginnings of up to 32 of its shards.

    Raises:
        UsageError: They hold no row.
    """
    chosen = choose_shards(shards, seed)
    sampled = [_measure(plan, shard, _COUNTED, {}) for shard in chosen]
    total = sum(shard.size for shard in shards)
    census = sum(one.size for one in sampled) == total
    found = round(_totals(sampled, total, census)[0]) if sampled else 0
    if not found:
        raise UsageError("--input: its shards hold no row")
    return found


def choose_shards(shards: Sequence[Shard], seed: int) -> list[Shard]:
    """At most 32 of the shards that are not empty, at random, in their order."""
    return _choose(shards, _MOST_SHARDS, np.random.default_rng(seed))


def _choose(shards: Sequence[Shard], most: int, chance: np.random.Generator) -> list[Shard]:
    filled = [shard for shard in shards if shard.size]
    size = min(len(filled), most)
    return [filled[i] for i in sorted(chance.choice(len(filled), size, replace=False))]


def _try(
    plan: SiftPlan, shards: Sequence[Shard], each: int
) -> tuple[FilterReport, dict[str, dict[int, int]]]:
    """Filter some rows of each shard; the tokens of those kept, by shard and row."""
    with tempfile.TemporaryDirectory(prefix="tamis-estimate-") as folder:
        trial = replace(plan, output=folder, sample=each)
        report = run_filter(trial, shards, engine=LocalEngine(0), progress=_silent)
        kept: dict[str, dict[int, int]] = {}
        for row in read_output(folder, "kept"):
            kept.setdefault(row["shard"], {})[row["row"]] = max(1, row["tokens"])
    return report, kept


@dataclass(frozen=True)
class _Work:
    """Scales CPU time up: some of it goes by document, some by shard, whatever its size.

    Attributes:
        rows: Of a smaller and a larger trial over the same shards.
        shards: Of the corpus, for each in the trials.
        documents: Of the corpus.
    """

    rows: tuple[int, int]
    shards: float
    documents: float

    def of(self, less: _Timed | None, more: _Timed) -> float:
        """CPU seconds over the corpus, from those of both trials."""
        few, many = self.rows
        before = 0.0 if less is None else less.cpu_seconds
        each = more.cpu_seconds / many
        if many > few:
            each = min(each, max(0.0, (more.cpu_seconds - before) / (many - few)))
        return each * self.documents + (more.cpu_seconds - each * many) * self.shards


@dataclass(frozen=True)
class _Loaded:
    """A model that is there already."""

    scorer: Scorer

    def __call__(self, model_dir: str) -> Scorer:
        return self.scorer


def _silent(state: RunState) -> None:
    """Show nothing."""


def _measure(plan: SiftPlan, shard: Shard, each: int, kept: dict[int, int]) -> _Sampled:
    """Read the sampled rows again, for the bytes that they take up."""
    tokens = np.zeros(each, dtype=np.int64)
    for row, count in kept.items():
        tokens[row] = count
    meter = ReadMeter()
    found = read_shard(shard, plan.columns, plan.limits, plan.filter.html, meter)
    read, jumps = 0, [(0, 0.0)]
    for at, _ in enumerate(found):
        if meter.share > jumps[-1][1]:
            if at >= each and len(jumps) > _JUMPS:
                break
            jumps.append((at, meter.share))
        read = at + 1
    else:
        # Read to its end: the rows are as good as counted.
        rows = min(read, each)
        taken = shard.size * rows / max(read, 1)
        return _Sampled(shard.size, max(1.0, taken), rows, tokens[:rows])
    # Storage is read a block ahead of the rows; from one block to the next the lead cancels out.
    (first, low), (last, high) = jumps[1], jumps[-1]
    weight = shard.size * (high - low) / max(1, last - first)
    return _Sampled(shard.size, max(1.0, each * weight), each, tokens)


def _scale_up(
    sampled: Sequence[_Sampled], total: int, chance: np.random.Generator
) -> dict[str, Interval]:
    """Totals over the input with 95% intervals."""
    names = ("documents", "kept", "tokens_kept")
    census = sum(one.size for one in sampled) == total
    draws = np.array(
        [_totals(_resample(sampled, census, chance), total, census) for _ in range(_RESAMPLES)],
        dtype=float,
    )
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    n = sum(one.rows for one in sampled)
    return {
        name: Interval(
            value=value, low=float(low[i]), high=float(high[i]), n=n, groups=len(sampled)
        )
        for i, (name, value) in enumerate(zip(names, _totals(sampled, total, census), strict=True))
    }


def _totals(sampled: Sequence[_Sampled], total: int, census: bool) -> tuple[float, float, float]:
    rows, kept, tokens = (
        np.array(column, dtype=float)
        for column in zip(
            *((s.rows, np.count_nonzero(s.tokens), s.tokens.sum()) for s in sampled), strict=True
        )
    )
    if census:  # each shard is scaled up by itself
        factors = np.array([one.size / one.bytes for one in sampled])
    else:
        factors = np.full(len(sampled), total / sum(one.bytes for one in sampled))
    return float(rows @ factors), float(kept @ factors), float(tokens @ factors)


def _resample(
    sampled: Sequence[_Sampled], census: bool, chance: np.random.Generator
) -> list[_Sampled]:
    chosen = list(sampled)
    if not census:  # where all shards were sampled, no others could have been
        chosen = [sampled[i] for i in chance.integers(len(sampled), size=len(sampled))]
    return [
        # A shard that was read to its end is known, not sampled.
        replace(one, tokens=one.tokens[chance.integers(one.rows, size=one.rows)])
        if one.rows and one.bytes < one.size
        else one
        for one in chosen
    ]


def _stage(done: StageFigures, factor: float, cpu_seconds: float) -> StageEstimate:
    entered = done.entered * factor
    return StageEstimate(
        documents=round(entered),
        removed=round(done.removed * factor),
        cpu_seconds=round(cpu_seconds, 3),
        microseconds=round(1e6 * cpu_seconds / entered, 1) if entered else 0.0,
    )
