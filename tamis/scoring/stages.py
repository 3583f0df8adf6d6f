"""The stages that a block of documents passes in one worker, cheap ones first.

exact -> language -> score -> rules -> decontamination -> pii

A stage sees the documents that are still in; it decides about some, the rest go on. What no
stage decided about is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.document import Document
from tamis.corpus.exact import text_hash
from tamis.corpus.manifest import StageFigures
from tamis.errors import EngineError
from tamis.scoring.audit import AuditCounts
from tamis.scoring.load import Scorer, ScoresLike
from tamis.scoring.plan import SiftPlan

Decision = Literal["keep", "drop", "duplicate", "quarantine"]

_DECIMALS = 6


@dataclass(slots=True)
class Candidate:
    """A document on its way, with what the stages found out about it.

    Attributes:
        document: As it was read.
        text: The text to write; personal data may be masked in it.
        decision: None while it is still in.
        reason: Why that was decided.
        score: The one that decided; None where it was decided before.
        student_score: The student's, where there is a cascade.
        encoder_score: The encoder's; None where it was not asked.
        tokens: Of the whole text, by the model's tokenizer; None likewise.
        language: ISO 639-1 code; None where nobody looked.
        language_probability: Of that language.
        pii: Personal data that were found, by kind; None where nobody looked.
        pii_before: How many an earlier run had found, and masked; None where it did not look.
        duplicate_of: ``POSITION#ROW`` of the document that stays in its place.
    """

    document: Document
    text: str
    decision: Decision | None = None
    reason: str = ""
    score: float | None = None
    student_score: float | None = None
    encoder_score: float | None = None
    tokens: int | None = None
    language: str | None = None
    language_probability: float | None = None
    pii: dict[str, int] | None = None
    pii_before: int | None = None
    duplicate_of: str | None = None

    def decide(self, decision: Decision, reason: str) -> None:
        """Take the document out."""
        self.decision, self.reason = decision, reason


Stage = Callable[[Sequence[Candidate]], None]


class StageClock:
    """Counts and times of stages, added up over blocks."""

    def __init__(self) -> None:
        self.figures: dict[str, StageFigures] = {}

    @contextmanager
    def measure(self, name: str, entered: int = 0) -> Iterator[None]:
        """Time a stage over some documents that enter it."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.add(
                name,
                StageFigures(
                    entered=entered,
                    seconds=time.perf_counter() - wall,
                    cpu_seconds=time.process_time() - cpu,
                ),
            )

    def add(self, name: str, figures: StageFigures) -> None:
        """Add to a stage's figures."""
        self.figures[name] = self.figures.get(name, StageFigures()) + figures

    def result(self) -> dict[str, StageFigures]:
        """Figures by stage, in the order in which they first ran."""
        return {name: figures.rounded() for name, figures in self.figures.items()}


class Stages:
    """The stages of a plan, with what they load; made once a worker.

    Raises:
        UsageError: An evaluation set cannot be read.
        ModelError: The model cannot be loaded.
    """

    def __init__(self, plan: SiftPlan) -> None:
        self.plan = plan
        chosen = plan.filter
        self.text_stages: list[tuple[str, Stage]] = []
        if chosen.rules.enabled:
            self.text_stages.append(("rules", _rules(plan)))
        if chosen.decontamination.files:
            self.text_stages.append(("decontamination", _decontamination(plan)))
        if chosen.pii.action != "none":
            self.text_stages.append(("pii", _pii(plan)))
        self.language = _language(plan) if chosen.language.enabled else None

    @cached_property
    def scorer(self) -> Scorer:
        """The model; loaded with the first document to score."""
        scorer = self.plan.load(self.plan.model_dir)
        # Workers share the cores; a library would take them all in each.
        if self.plan.threads and hasattr(scorer, "use_threads"):
            scorer.use_threads(self.plan.threads)
        return scorer

    def load(self) -> None:
        """Load the model now, so that no document pays for it."""
        _ = self.scorer

    def for_scored(self) -> ShardStages:
        """The stages for documents whose scores are known: decide again, then the rest."""
        return ShardStages([("threshold", self._decide), *self.text_stages])

    def for_shard(self, position: int, known: Mapping[int, tuple[int, int]]) -> ShardStages:
        """The stages for the blocks of one shard.

        Args:
            position: Of the shard in the run.
            known: Rows that repeat a document of the corpus: position and row of the first one.
        """
        before: list[tuple[str, Stage]] = []
        if self.plan.filter.exact.enabled:
            exact = _known(known) if self.plan.dedup_corpus else _seen(position)
            before.append(("exact", exact))
        if self.language is not None:
            before.append(("language", self.language))
        stages = ShardStages(before)
        stages.add(("score", partial(self._score, stages)), *self.text_stages)
        return stages

    def _score(self, stages: ShardStages, candidates: Sequence[Candidate]) -> None:
        texts = [candidate.text for candidate in candidates]
        cascade, found = self.plan.cascade, None
        scores: ScoresLike
        if cascade is None:
            scores = self.scorer.score(texts)
        else:
            scores = found = cascade.score(texts, self.scorer)
            stages.audit += found.counts(self.plan.threshold)
        # Rounded before deciding, so that the score in the row explains the decision.
        values: NDArray[np.float64] = np.around(scores.values, _DECIMALS).astype(np.float64)
        if values.shape != (len(candidates),) or len(scores.tokens) != len(candidates):
            raise EngineError(
                f"the model gave {values.shape} scores for {len(candidates)} documents"
            )
        finite = np.isfinite(values)
        for candidate, value, tokens, fine in zip(
            candidates, values.tolist(), scores.tokens, finite, strict=True
        ):
            if not fine:
                candidate.decide("quarantine", "no_score")
                continue
            candidate.score, candidate.tokens = value, int(tokens)
            candidate.encoder_score = value
        if found is not None:
            for candidate, student, encoder in zip(
                candidates, found.student.tolist(), found.encoder.tolist(), strict=True
            ):
                candidate.student_score = student
                candidate.encoder_score = None if math.isnan(encoder) else encoder
        self._decide([candidate for candidate in candidates if candidate.decision is None])

    def _decide(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if candidate.score is not None and candidate.score < self.plan.threshold:
                candidate.decide("drop", "score<threshold")


class ShardStages:
    """Passes blocks of one shard through the stages.

    Attributes:
        clock: Counts and times.
        audit: Documents by who decided, where there is a cascade.
    """

    def __init__(self, stages: Sequence[tuple[str, Stage]]) -> None:
        self.stages, self.clock, self.audit = list(stages), StageClock(), AuditCounts()

    def add(self, *stages: tuple[str, Stage]) -> None:
        """Append stages."""
        self.stages += stages

    def run(self, block: Sequence[Candidate]) -> None:
        """Decide about every document of a block that is not decided about yet."""
        alive = [candidate for candidate in block if candidate.decision is None]
        for name, stage in self.stages:
            with self.clock.measure(name, len(alive)):
                if alive:
                    stage(alive)
            left = [candidate for candidate in alive if candidate.decision is None]
            self.clock.add(name, StageFigures(removed=len(alive) - len(left)))
            alive = left
        for candidate in alive:
            candidate.decide("keep", "score>=threshold")


def _known(duplicates: Mapping[int, tuple[int, int]]) -> Stage:
    def stage(candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            owner = duplicates.get(candidate.document.row)
            if owner is not None:
                candidate.duplicate_of = place(*owner)
                candidate.decide("duplicate", "exact_duplicate")

    return stage


def _seen(position: int) -> Stage:
    first: dict[bytes, int] = {}

    def stage(candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            row = candidate.document.row
            owner = first.setdefault(text_hash(candidate.text), row)
            if owner != row:
                candidate.duplicate_of = place(position, owner)
                candidate.decide("duplicate", "exact_duplicate")

    return stage


def _language(plan: SiftPlan) -> Stage:
    from tamis.corpus.language import LanguageFilter

    language = LanguageFilter(plan.filter.language)

    def stage(candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            reason, code, probability = language.reason(candidate.text)
            candidate.language, candidate.language_probability = code, round(probability, 4)
            if reason is not None:
                candidate.decide("drop", reason)

    return stage


def _rules(plan: SiftPlan) -> Stage:
    from tamis.corpus.rules import TextRules

    return _dropping(TextRules(plan.filter.rules).reason)


def _decontamination(plan: SiftPlan) -> Stage:
    from tamis.corpus.decontamination import Decontaminator

    return _dropping(Decontaminator(plan.filter.decontamination).reason)


def _dropping(reason_of: Callable[[str], str | None]) -> Stage:
    def stage(candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            reason = reason_of(candidate.text)
            if reason is not None:
                candidate.decide("drop", reason)

    return stage


def _pii(plan: SiftPlan) -> Stage:
    from tamis.corpus.pii import PiiFilter

    settings = plan.filter.pii
    pii = PiiFilter(settings)

    def stage(candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            masked, found = pii.apply(candidate.text)
            candidate.pii = found
            if found and settings.action == "drop":
                candidate.decide("drop", f"pii_{next(iter(found))}")
            elif found:
                candidate.text = masked

    return stage


def place(position: int, row: int) -> str:
    """How a document of a run is named: position of its shard, and row."""
    return f"{position:05d}#{row}"
