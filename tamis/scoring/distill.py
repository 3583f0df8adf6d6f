"""Make a cascade for a corpus: score a sample, fit a student, certify a band.

The sample is drawn from the whole corpus by a hash of the text, and scored by the fp32 encoder in
an ordinary filter run that keeps everything: it resumes, and what is scored once stays there. Its
distinct documents are parted at random: one part teaches the student, one chooses the band, one
judges the result.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.manifest import read_output
from tamis.corpus.settings import (
    DecontaminationSettings,
    NearDuplicateSettings,
    PiiSettings,
    RulesSettings,
)
from tamis.corpus.shards import Shard
from tamis.engine.base import Engine
from tamis.errors import DataError
from tamis.scoring.band import Band, Sample, band_path, calibrate, measure
from tamis.scoring.cascade import Cascade, CascadeInfo
from tamis.scoring.distill_report import DistillReport, StudentTrial
from tamis.scoring.estimate import count_documents
from tamis.scoring.filter_run import run_filter
from tamis.scoring.load import Scorer
from tamis.scoring.plan import SiftPlan
from tamis.scoring.progress import Progress
from tamis.scoring.settings import BackendName, CascadeSettings
from tamis.scoring.student import Student, StudentSettings, fit_folds
from tamis.target import Floats

FOLDS = 5


def students(request: Request) -> list[StudentSettings]:
    """What is tried: a student that reads about as much as the encoder sends fewest to it."""
    low, high = request.scale
    return [
        StudentSettings(
            characters=max(100, each * request.tokens),
            threshold=request.threshold,
            width=width * (high - low),
        )
        for each in (4, 5)
        for width in (0.1, 0.2)
    ]


def sample_plan(plan: SiftPlan, output: str, share: float, seed: int) -> SiftPlan:
    """A plan that scores a share of the rows and keeps them all.

    Args:
        plan: Of the filter that the cascade is for.
        output: Where the scores go.
        share: Of the rows, 0-1.
        seed: Of the draw.
    """
    before = plan.filter.model_copy(
        update={
            "rules": RulesSettings(),
            "decontamination": DecontaminationSettings(),
            "pii": PiiSettings(),
            "near_duplicates": NearDuplicateSettings(enabled=False),
        }
    )
    return replace(
        plan,
        output=output,
        threshold=plan.scale[0],
        filter=before,
        format="parquet",
        share=share,
        seed=seed,
        cascade=None,
    )


@dataclass(frozen=True)
class Taught:
    """Documents that the fp32 encoder has scored.

    Attributes:
        texts: The documents (n), no two alike.
        scores: The encoder's (n,).
        tokens: Of each whole text (n,).
    """

    texts: list[str]
    scores: Floats
    tokens: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Taught:
        """Some of them."""
        return Taught([self.texts[row] for row in rows], self.scores[rows], self.tokens[rows])


def teach(
    plan: SiftPlan,
    shards: Sequence[Shard],
    documents: int,
    output: str,
    seed: int,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> float:
    """Score a random sample of a corpus into ``output``, or go on with that.

    Args:
        plan: Of the filter that the cascade is for, with the fp32 encoder.
        shards: The corpus.
        documents: About how many rows to draw.
        output: Folder or URL.
        seed: Of the draw.
        engine: Runs the passes.
        progress: Told how far it is.

    Returns:
        The share of the rows that was drawn.

    Raises:
        UsageError: The corpus has no row.
        EngineError: A shard failed for good.
    """
    total = count_documents(plan, shards, seed)
    share = min(1.0, documents / total)
    # To two digits: a count from a sample must not change what a resumed run draws.
    share = float(f"{share:.2g}")
    run_filter(sample_plan(plan, output, share, seed), shards, {}, engine, False, progress)
    return share


def read_taught(output: str, leave_out: Collection[str] = ()) -> Taught:
    """The distinct documents of a scored sample, in the order of the corpus.

    Args:
        output: Where ``teach`` put it.
        leave_out: Ids of documents that the encoder was trained on: it is surer about them than
            about others.
    """
    rows: dict[str, tuple[float, int]] = {}
    for row in read_output(output, "kept"):
        if row["id"] in leave_out:
            continue
        rows.setdefault(row["text"], (row["score"], row["tokens"]))
    return Taught(
        list(rows),
        np.array([score for score, _ in rows.values()], dtype=np.float64),
        np.array([tokens for _, tokens in rows.values()], dtype=np.int64),
    )


@dataclass(frozen=True)
class Request:
    """What a cascade is made for.

    Attributes:
        task: Name of the task.
        encoder: ``digest`` of the classifier.
        backend: That will run the encoder.
        margin: Scores so near to the threshold are checked in fp32.
        threshold: Kept is what the encoder scores at least this.
        scale: Lowest and highest score.
        tokens: That the encoder reads of a document.
        corpus: Fingerprint of the shards.
        settings: Shares and promise.
        seed: Of the parting, the folds and the audit.
    """

    task: str
    encoder: str
    backend: BackendName
    margin: float
    threshold: float
    scale: tuple[float, float]
    tokens: int
    corpus: str
    settings: CascadeSettings
    seed: int


def distill(taught: Taught, runtime: Scorer, request: Request) -> tuple[Cascade, DistillReport]:
    """Fit students, take the one that sends least, certify a band, and measure the result.

    Args:
        taught: The scored sample.
        runtime: The encoder as it will run; asked about the calibration and test documents.
        request: What the cascade is for.

    Returns:
        The cascade, with a band that sends everything where none could be certified; the report.

    Raises:
        DataError: The sample is too small to part.
    """
    parts = part(len(taught.texts), request.settings, request.seed)
    train, calibration, test = map(taught.take, parts)
    kept = train.scores >= request.threshold
    if not len(calibration.texts) or not len(test.texts):
        raise DataError(
            f"{len(taught.texts):,} documents are too few to calibrate a cascade and to test it: "
            "give --documents more"
        )
    if not 10 <= int(kept.sum()) <= len(kept) - 10:
        raise DataError(
            f"of {len(kept):,} documents the encoder keeps {int(kept.sum()):,}; a student needs at "
            "least 10 on either side: give --documents more, or another threshold"
        )
    trials, student, path = _fit_students(train, request)
    held_out = [_sample(each, student, runtime, request) for each in (calibration, test)]
    found = calibrate(path, held_out[0], request.settings.promise)
    report = DistillReport(
        task=request.task,
        encoder=request.encoder,
        backend=request.backend,
        threshold=request.threshold,
        documents={
            "train": len(train.texts),
            "calibration": len(calibration.texts),
            "test": len(test.texts),
        },
        kept=int((taught.scores >= request.threshold).sum()),
        students=trials,
        calibration=found,
        test=None if found.band is None else measure(found.band, held_out[1]),
        encoder_only=measure(Band(), held_out[1]),
        documents_per_cpu_second=_speeds(student, runtime, test.texts),
    )
    info = CascadeInfo(
        task=request.task,
        encoder=request.encoder,
        backend=request.backend,
        margin=request.margin,
        threshold=request.threshold,
        scale=request.scale,
        student=student.settings,
        band=found.band or Band(),
        promise=request.settings.promise,
        tokens_per_character=_token_rates(train, kept),
        corpus=request.corpus,
        seed=request.seed,
    )
    return Cascade(info, student, request.settings.audit), report


def part(documents: int, settings: CascadeSettings, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Positions of the documents that teach, that calibrate, and that test.

    Args:
        documents: In all.
        settings: Shares.
        seed: Of the draw.
    """
    order = np.random.default_rng(seed).permutation(documents)
    test = round(documents * settings.test)
    calibration = round(documents * settings.calibration)
    return order[test + calibration :], order[test : test + calibration], order[:test]


def _fit_students(
    train: Taught, request: Request
) -> tuple[tuple[StudentTrial, ...], Student, list[Band]]:
    """All that are tried, the best fitted on all training documents, and its path of bands."""
    from scipy.stats import spearmanr

    reference = train.scores >= request.threshold
    promise = request.settings.promise
    trials: list[StudentTrial] = []
    best: tuple[float, Student, Floats] | None = None
    for settings in students(request):
        student, unseen = fit_folds(
            train.texts, train.scores, settings, request.scale, FOLDS, request.seed
        )
        share = _oracle_share(unseen, reference, request)
        constant = unseen.min() == unseen.max()  # has no ranks
        rank = 0.0 if constant else float(spearmanr(unseen, train.scores).statistic)
        trials.append(StudentTrial(settings=settings, sent=share, spearman=rank))
        if best is None or share < best[0]:
            best = (share, student, unseen)
    assert best is not None  # noqa: S101
    path = band_path(Sample(best[2], reference, reference), promise, request.threshold)
    return tuple(trials), best[1], path


def _oracle_share(unseen: Floats, reference: NDArray[np.bool_], request: Request) -> float:
    """Share sent to the encoder by the narrowest band that keeps the promise on these documents."""
    promise = request.settings.promise
    sample = Sample(unseen, reference, reference)
    share = 1.0
    for band in band_path(sample, promise, request.threshold):
        figures = measure(band, sample)
        if figures.recall is None or figures.precision is None or figures.sent is None:
            break
        if figures.recall.value < promise.recall or figures.precision.value < promise.precision:
            break
        share = figures.sent.value
    return share


def _sample(taught: Taught, student: Student, runtime: Scorer, request: Request) -> Sample:
    runs = np.around(runtime.score(taught.texts).values, 6)
    return Sample(
        student=np.around(student.score(taught.texts), 6),
        reference=taught.scores >= request.threshold,
        encoder=runs >= request.threshold,
    )


def _token_rates(train: Taught, kept: NDArray[np.bool_]) -> tuple[float, float]:
    characters = np.array([len(text) for text in train.texts], dtype=np.float64)
    return tuple(  # type: ignore[return-value]
        float(train.tokens[side].sum() / max(1.0, characters[side].sum())) for side in (kept, ~kept)
    )


def _speeds(student: Student, runtime: Scorer, texts: Sequence[str]) -> dict[str, float]:
    """Documents per CPU-second of both, on some documents."""
    found: dict[str, float] = {}
    for name, scorer, size in (("student", student, 2_000), ("encoder", runtime, 200)):
        some = texts[:size]
        started = time.process_time()
        scorer.score(some)
        speed = len(some) / max(time.process_time() - started, 1e-6)
        found[name] = float(f"{speed:.4g}")
    return found
