"""From a request to distill to a cascade that is kept with its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from deployment.backend import backend_by
from deployment.filtering import FilterRequest, engine_of, model_plan, shards_of
from deployment.registry import Registry
from tamis import html
from tamis.config import Strict
from tamis.errors import DataError, UsageError
from tamis.fingerprint import code_fingerprint, sha256_of
from tamis.models.classifier import digest, read_info
from tamis.scoring.backends.choose import BackendChoice
from tamis.scoring.backends.folder import export
from tamis.scoring.cascade import Cascade
from tamis.scoring.distill import (
    Request,
    Taught,
    distill,
    part,
    read_taught,
    sample_plan,
    teach,
)
from tamis.scoring.distill_report import DistillReport
from tamis.scoring.filter_run import shards_fingerprint
from tamis.scoring.load import LoadScorer
from tamis.scoring.plan import SiftPlan
from tamis.task import Task

NAME = "cascade"
"""What it is called in the registry."""


class Keep(Strict):
    """What the cascade shall keep: from a score, a share of the documents, or so many tokens.

    Attributes:
        kind: Which of them; ``model`` is the model's own threshold.
        value: The score, the share (0-1), or the tokens.
    """

    kind: Literal["model", "threshold", "top_share", "token_budget"] = "model"
    value: float = 0.0


class DistillRequest(Strict):
    """What a cascade is made for.

    Attributes:
        corpus: Input, model version and engine; its output, threshold and format play no part.
        samples: Folder or URL for scored samples, which all steps see.
        keep: What shall be kept of it.
    """

    corpus: FilterRequest
    samples: str
    keep: Keep = Keep()


class TaughtSample(BaseModel):
    """Documents of a corpus that the fp32 encoder has scored.

    Attributes:
        output: Where they are, as the output of a filter.
        documents: Distinct ones.
        tokens: Of these.
        share: Of the corpus's rows that were drawn.
        threshold: Kept is what scores at least this; from the request and these scores.
        corpus: Fingerprint of the shards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: str
    documents: int
    tokens: int
    share: float
    threshold: float
    corpus: str


class Attached(BaseModel):
    """A cascade that is kept with its model.

    Attributes:
        task: The task.
        version: Version of the model.
        digest: sha256 over what decides the cascade's scores.
        band: Student scores that go to the encoder; None is open.
        promised: Whether a band could be certified; without, the encoder decides alone.
        reason: How, or why not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    version: str
    digest: str
    band: tuple[float | None, float | None]
    promised: bool
    reason: str

    def to_html(self) -> str:
        """One self-contained page."""
        low, high = self.band
        rows = [("lower edge", low), ("upper edge", high), ("sha256", self.digest)]
        return html.page(f"Cascade of {self.task}/{self.version}", html.table(("", ""), rows),
                         self.reason)  # fmt: skip


def score_sample(task: Task, request: DistillRequest, home: Path) -> TaughtSample:
    """Have the fp32 encoder score a random sample of the corpus, or go on with that.

    Raises:
        UsageError: An input matches nothing, or the budget keeps all or nothing.
        EngineError: A shard failed for good.
    """
    shards = shards_of(request.corpus, home)
    plan = model_plan(task, request.corpus, home)
    corpus = shards_fingerprint(shards)
    documents = task.scoring.cascade.documents
    # All that the rows hang on: whatever changes begins another sample, and no resume is refused.
    wanted = sample_plan(plan, "", 1.0, task.seed)
    facts = (digest(plan.model_dir), plan.model_version, corpus, str(documents), str(task.seed),
             wanted.filter.model_dump_json(), task.corpus.model_dump_json(),
             code_fingerprint())  # fmt: skip
    output = f"{request.samples}/{task.name}/{sha256_of(facts)[:16]}"
    share = teach(plan, shards, documents, output, task.seed, engine_of(request.corpus))
    taught = read_taught(output, fitted_on(plan.model_dir))
    # Calibration and test documents have no say in the threshold.
    teaching, *_ = part(len(taught.texts), task.scoring.cascade, task.seed)
    drawn = share * len(teaching) / max(1, len(taught.texts))
    return TaughtSample(
        output=output,
        documents=len(taught.texts),
        tokens=int(taught.tokens.sum()),
        share=share,
        threshold=threshold_of(taught.take(teaching), request.keep, drawn, plan),
        corpus=corpus,
    )


def threshold_of(taught: Taught, keep: Keep, share: float, plan: SiftPlan) -> float:
    """The score from which documents are kept.

    Args:
        taught: Scored documents, drawn at random from the corpus.
        keep: What shall be kept.
        share: Of the corpus that they are.
        plan: With the model's own threshold.

    Raises:
        UsageError: The budget is less than the best document has.
        DataError: The sample is empty.
    """
    if not taught.texts:
        raise DataError("no document of the sample was scored; give --documents more")
    if keep.kind == "model":
        return plan.threshold
    if keep.kind == "threshold":
        return keep.value
    if keep.kind == "top_share":
        return round(float(np.quantile(taught.scores, 1 - keep.value)), 6)
    scores, place = np.unique(-taught.scores, return_inverse=True)
    # Documents of one score are kept together, or not at all.
    above = np.cumsum(np.bincount(place, weights=taught.tokens))
    within = int((above <= keep.value * share).sum())
    if not within:
        raise UsageError(
            f"--token-budget: given {keep.value:,.0f}; allowed: at least about "
            f"{above[0] / share:,.0f}, which documents like the best one have"
        )
    return round(-float(scores[within - 1]), 6)


def fitted_on(model_dir: str) -> frozenset[str]:
    """Ids of the documents that a classifier was fitted on or chosen by."""
    seen = read_info(model_dir).trained_on
    return frozenset((*seen.train, *seen.validation))


@dataclass(frozen=True)
class _Sides:
    """What both steps below need again."""

    plan: SiftPlan
    taught: Taught


def _sides(task: Task, request: DistillRequest, sample: TaughtSample, home: Path) -> _Sides:
    wanted = request.corpus.model_copy(update={"threshold": sample.threshold})
    plan = model_plan(task, wanted, home)
    return _Sides(plan, read_taught(sample.output, fitted_on(plan.model_dir)))


def choose_backend(
    task: Task, request: DistillRequest, sample: TaughtSample, home: Path
) -> BackendChoice:
    """The backend that will run the encoder, judged on the scored sample."""
    sides = _sides(task, request, sample, home)
    taught = sides.taught
    return backend_by(sides.plan, taught.texts, taught.scores, task.scoring, home, task.seed)


def make(
    task: Task, request: DistillRequest, sample: TaughtSample, backend: BackendChoice, home: Path
) -> tuple[Cascade, DistillReport]:
    """Fit the student, certify the band, measure the cascade.

    Raises:
        DataError: The sample is too small.
    """
    sides = _sides(task, request, sample, home)
    plan = sides.plan
    folder = export(Path(plan.model_dir), backend.backend, home / "exports")
    runtime = LoadScorer(plan.threshold, backend.margin)(str(folder))
    wanted = Request(
        task=task.name,
        encoder=backend.source,
        backend=backend.backend,
        margin=backend.margin,
        threshold=plan.threshold,
        scale=plan.scale,
        tokens=task.text.max_tokens,
        corpus=sample.corpus,
        settings=task.scoring.cascade,
        seed=task.seed,
    )
    return distill(sides.taught, runtime, wanted)


def attach(
    task: Task, request: DistillRequest, cascade: Cascade, report: DistillReport
) -> Attached:
    """Keep a cascade with the version of the model that it belongs to."""
    registry = Registry()
    version = registry.get(task.name, request.corpus.version)
    band = cascade.info.band
    with TemporaryDirectory() as name:
        folder = Path(name) / NAME
        cascade.save(folder)
        (folder / "report.json").write_text(report.model_dump_json(indent=1), "utf-8")
        (folder / "report.html").write_text(report.to_html(), "utf-8")
        found = cascade.fingerprint
        registry.attach(version, folder, NAME, found, {
            "cascade_threshold": f"{cascade.info.threshold:.6g}",
            "cascade_promised": str(report.calibration.band is not None).lower(),
        })  # fmt: skip
    return Attached(
        task=task.name,
        version=version.version,
        digest=found,
        band=(band.low, band.high),
        promised=report.calibration.band is not None,
        reason=report.calibration.reason,
    )
