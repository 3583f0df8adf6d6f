"""Student first, encoder where the student is not sure: what is saved, and how it scores.

cascade.json          CascadeInfo: the encoder it belongs to, the band, the promise
student.safetensors   the student's weights
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from tamis.config import Strict
from tamis.corpus.exact import text_hash
from tamis.errors import EngineError, ModelError
from tamis.models.backbone import file_sha256
from tamis.scoring.audit import AuditCounts, audited
from tamis.scoring.band import Band, Bools
from tamis.scoring.load import Scorer
from tamis.scoring.settings import BackendName, Promise
from tamis.scoring.student import FILE as STUDENT
from tamis.scoring.student import Student, StudentSettings, first_line, load_student
from tamis.target import Floats

MARK = "cascade.json"
_DECIMALS = 6


class CascadeInfo(Strict):
    """What a cascade is and what it belongs to.

    Attributes:
        task: Name of the task.
        encoder: ``digest`` of the classifier whose decisions it imitates.
        backend: That the encoder ran with when the band was calibrated.
        margin: Scores so near to the threshold were checked in fp32.
        threshold: Kept is what the encoder scores at least this.
        scale: Lowest and highest score.
        student: What the student reads.
        student_sha256: Of its weights.
        band: Student scores that go to the encoder.
        promise: What was certified.
        tokens_per_character: Of documents that the encoder keeps, and of the others: what a
            document counts whose text nobody tokenized.
        corpus: Fingerprint of the shards that it was calibrated on.
        seed: Of the audit, and of whatever was drawn.
    """

    format: Literal[1] = 1
    task: str
    encoder: str
    backend: BackendName
    margin: float = 0.0
    threshold: float
    scale: Annotated[tuple[float, float], Field(strict=False)]
    student: StudentSettings
    student_sha256: str = ""
    band: Band
    promise: Promise
    tokens_per_character: Annotated[tuple[float, float], Field(strict=False)]
    corpus: str = ""
    seed: int

    @model_validator(mode="after")
    def _holds_the_threshold(self) -> CascadeInfo:
        low, high = self.band.edges
        if not low <= self.threshold <= high:
            raise ValueError(f"the band, {low:g} to {high:g}, misses the threshold")
        return self


@dataclass(frozen=True, eq=False)
class CascadeScores:
    """What a cascade says of some texts (n).

    Attributes:
        values: The score that decides: the encoder's in the band, the student's elsewhere.
        student: The student's scores.
        encoder: The encoder's; NaN where it was not asked.
        tokens: Of each whole text; estimated from its length where it was not tokenized.
        sent: Whether the encoder decided.
        audited: Whether it was asked although the student decided.
    """

    values: Floats
    student: Floats
    encoder: Floats
    tokens: NDArray[np.int64]
    sent: Bools
    audited: Bools

    def counts(self, threshold: float) -> AuditCounts:
        """Documents by who decided, and what the audited ones turned out to be."""
        kept, encoder_keeps = self.values >= threshold, self.encoder >= threshold
        dropped, admitted = ~self.sent & ~kept, ~self.sent & kept
        return AuditCounts(
            sent=int(self.sent.sum()),
            sent_kept=int((self.sent & kept).sum()),
            dropped=int(dropped.sum()),
            dropped_audited=int((dropped & self.audited).sum()),
            dropped_missed=int((dropped & self.audited & encoder_keeps).sum()),
            kept=int(admitted.sum()),
            kept_audited=int((admitted & self.audited).sum()),
            kept_wrong=int((admitted & self.audited & ~encoder_keeps).sum()),
        )


@dataclass(frozen=True, eq=False)
class Cascade:
    """A student with its band, ready to score beside an encoder.

    Attributes:
        info: What it is.
        student: The student.
        audit: Share of the documents the student decides about that the encoder sees as well.
    """

    info: CascadeInfo
    student: Student
    audit: float = 0.0

    def score(self, texts: Sequence[str], encoder: Scorer) -> CascadeScores:
        """Scores of texts; the encoder is asked about those in the band, and the audited.

        Args:
            texts: The texts (n).
            encoder: The one that the cascade belongs to.

        Raises:
            EngineError: The encoder gave another number of scores.
        """
        info = self.info
        # Rounded before deciding, so that the score in the row explains the decision.
        student = np.around(self.student.score(texts), _DECIMALS)
        sent = info.band.sent(student)
        chosen = audited([text_hash(text) for text in texts], self.audit, info.seed) & ~sent
        asked = np.flatnonzero(sent | chosen)
        found = np.full(len(texts), np.nan)
        tokens = self._lengths(texts, student)
        if len(asked):
            scores = encoder.score([texts[row] for row in asked.tolist()])
            if scores.values.shape != asked.shape or len(scores.tokens) != len(asked):
                raise EngineError(
                    f"the model gave {scores.values.shape} scores for {len(asked)} documents"
                )
            found[asked] = np.around(scores.values, _DECIMALS)
            tokens[asked] = scores.tokens
        values = np.where(sent, found, student)
        return CascadeScores(values, student, found, tokens, sent, chosen)

    def _lengths(self, texts: Sequence[str], student: Floats) -> NDArray[np.int64]:
        characters = np.array([len(text) for text in texts], dtype=np.float64)
        kept, other = self.info.tokens_per_character
        rates = np.where(student >= self.info.threshold, kept, other)
        return np.maximum(1, np.rint(characters * rates)).astype(np.int64)

    def save(self, folder: Path) -> None:
        """Write the cascade into an empty or new folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.student.save(folder)
        info = self.info.model_copy(update={"student_sha256": file_sha256(folder / STUDENT)})
        # Last, so that a folder with this file is complete.
        (folder / MARK).write_text(info.model_dump_json(indent=1), "utf-8")

    @property
    def fingerprint(self) -> str:
        """sha256 over what decides its scores, in hexadecimal."""
        facts = self.info.model_dump_json(exclude={"student_sha256"})
        learned = (array.tobytes() for _, array in sorted(self.student.arrays().items()))
        return hashlib.sha256(f"{facts} {self.audit}".encode() + b"".join(learned)).hexdigest()


def load_cascade(folder: Path, encoder: str, audit: float) -> Cascade:
    """Load a cascade for a given encoder.

    Args:
        folder: What ``Cascade.save`` wrote.
        encoder: ``digest`` of the classifier that it will run beside.
        audit: Share of the documents to audit.

    Raises:
        ModelError: A file is missing or damaged, or it belongs to another encoder.
    """
    found = read_cascade(folder)
    if found.info.encoder != encoder:
        raise ModelError(
            f"cascade {folder}: its student imitates the encoder {found.info.encoder[:12]}…, and "
            f"is not used beside {encoder[:12]}…; distill one for that"
        )
    return replace(found, audit=audit)


def read_cascade(folder: Path) -> Cascade:
    """Load a cascade, whichever encoder it belongs to; it audits nothing.

    Raises:
        ModelError: A file is missing or damaged.
    """
    try:
        info = CascadeInfo.model_validate_json((folder / MARK).read_text("utf-8"))
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"])) or "the file"
        raise ModelError(f"{folder / MARK} is damaged: {key}: {wrong['msg']}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / MARK} cannot be read: {first_line(error)}") from None
    student = load_student(folder, info.student, info.scale)
    if file_sha256(folder / STUDENT) != info.student_sha256:
        raise ModelError(f"{folder / STUDENT}: it is not the student that {MARK} was written for")
    return Cascade(info, student)


def describe(info: CascadeInfo) -> str:
    """A cascade in a line."""
    low, high = info.band.edges
    promise: Any = info.promise
    return (
        f"threshold {info.threshold:.3f}; student decides below {low:.3f} and from {high:.3f} on; "
        f"promised recall >= {promise.recall:g} and precision >= {promise.precision:g} with "
        f"{promise.confidence:.0%} confidence"
    )
