"""Score once, threshold later: decide again over a finished output, without the model.

A document that was scored is decided about anew: threshold, then the stages that follow the
score, which documents below the old threshold have not met. A document that was taken out before
the score (a repetition, another language) has none: it stays out, and is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from tamis.config import override, validate
from tamis.corpus.manifest import RunInfo, read_run
from tamis.corpus.settings import FilterSettings
from tamis.corpus.store import open_store
from tamis.corpus.writers import OutputFormat
from tamis.engine.base import Engine
from tamis.errors import DataError, UsageError
from tamis.fingerprint import sha256_of
from tamis.scoring.filter_report import FilterReport
from tamis.scoring.filter_run import run_filter
from tamis.scoring.plan import SiftPlan
from tamis.scoring.progress import Progress
from tamis.scoring.scored import count_scores, scored_shards

_STAGE = "filter."


@dataclass(frozen=True)
class Criterion:
    """What to keep: from a score, a share of the scored documents, or so many tokens.

    Attributes:
        kind: Which of them.
        value: The score, the share (0-1) or the tokens.
    """

    kind: Literal["threshold", "top_share", "token_budget"]
    value: float


@dataclass(frozen=True)
class Selection:
    """What a selection did.

    Attributes:
        report: Of the new output.
        threshold: From which score documents were kept.
        unscored: Documents without a score, by the reason for which they were not scored.
        student_only: Documents whose score is a student's: its cascade promised nothing about
            another threshold than its own.
    """

    report: FilterReport
    threshold: float
    unscored: dict[str, int]
    student_only: int = 0


def select(
    scores: str,
    output: str,
    criterion: Criterion,
    *,
    settings: Iterable[str] = (),
    form: OutputFormat = "parquet",
    engine: Engine | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Selection:
    """Write an output with other decisions over the same scores.

    Args:
        scores: A finished output.
        output: Where to write the new one; it has the same shards, rows and balance.
        criterion: What to keep.
        settings: Overrides of the stages (``rules.enabled=true``); the old run's otherwise.
        form: Format of the rows.
        engine: Runs the passes.
        fresh: Start over in ``output``.
        progress: Told how far it is.

    Raises:
        UsageError: ``scores`` is no finished output, or ``output`` is the same folder.
        ConfigError: A setting is wrong.
        ResumeRefused: ``output`` was begun differently.
        DataError: A file of ``scores`` is damaged.
    """
    shards = scored_shards(scores)
    store = open_store(scores)
    if open_store(output).url.rstrip("/") == store.url.rstrip("/"):
        raise UsageError(f"--output: given {output!r}; allowed: another folder than --scores")
    before = read_report(scores)
    scale = (before.summary.low, before.summary.high)
    counts = count_scores(scores, scale)
    threshold = criterion.value
    if criterion.kind == "top_share":
        threshold = counts.top_share(criterion.value)
    elif criterion.kind == "token_budget":
        threshold = counts.token_budget(int(criterion.value))
    plan = SiftPlan(
        model_dir="",
        output=output,
        threshold=threshold,
        scale=scale,
        model_version=before.model_version,
        filter=_stages(read_run(store), settings),
        format=form,
    )
    parts = {"scores": sha256_of(f"{s.name} {s.stamp}" for s in shards)[:16]}
    report = run_filter(plan, shards, parts, engine, fresh, progress)
    return Selection(report, threshold, counts.unscored, counts.student_only)


def read_report(out: str) -> FilterReport:
    """The report of a finished output.

    Raises:
        DataError: It is damaged.
    """
    try:
        return FilterReport.model_validate_json(open_store(out).read("report.json"))
    except ValidationError:
        raise DataError(f"{out}: report.json is damaged; run the filter again") from None


def _stages(run: RunInfo, settings: Iterable[str]) -> FilterSettings:
    """The stages after the score as the old run had them, with changes."""
    parts = run.fingerprint.items()
    old = {k.removeprefix(_STAGE): json.loads(v) for k, v in parts if k.startswith(_STAGE)}
    chosen = validate(FilterSettings, override(old, settings), "--set")
    done = {
        "exact": chosen.exact.model_copy(update={"enabled": False}),
        "language": chosen.language.model_copy(update={"enabled": False}),
    }
    return chosen.model_copy(update=done)
