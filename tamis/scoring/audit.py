"""Whether the cascade still keeps its promise: some documents that skipped the encoder see it.

A random share of the documents that the student decided about goes through the encoder as well.
The decisions stay as they are; what the encoder would have decided is counted. How many wanted
documents were dropped, and how many unwanted ones kept, follows from the audited ones of either
kind, so recall and precision *against the encoder that runs* have an estimate while the filter
does. What that encoder itself gets wrong, beside the fp32 one, is not seen here: the calibration
of the band accounts for it.

Documents are audited by a hash of their text, so those of a kind are a simple random sample
of the distinct texts. The bounds are Clopper and Pearson's, cut to what is possible: exact for
draws with replacement, and on the safe side for draws without, whose tails are lighter (Uhlmann
1966, Metrika 10). Two unknown counts share the error of a bound (Bonferroni).

A bound holds for one look. Who looks again and again rings falsely more often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tamis.decision import Decision, Reason
from tamis.scoring.band import Rate, exact_bounds
from tamis.scoring.settings import Promise

_MAIN, _OTHER = 0.9, 0.1
"""How missed and wrong documents share the error of recall, which hangs on the missed ones."""

_Count = Annotated[int, Field(ge=0)]


class AuditCounts(BaseModel):
    """Documents by who decided, and what the encoder said of the audited ones; can be added.

    Attributes:
        sent: The encoder decided, as the score lay in the band.
        sent_kept: Those of them that it kept.
        dropped: The student dropped, audited or not.
        dropped_audited: Those of them that were audited.
        dropped_missed: Those of the audited that the encoder would have kept.
        kept: The student kept, audited or not.
        kept_audited: Those of them that were audited.
        kept_wrong: Those of the audited that the encoder would have dropped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sent: _Count = 0
    sent_kept: _Count = 0
    dropped: _Count = 0
    dropped_audited: _Count = 0
    dropped_missed: _Count = 0
    kept: _Count = 0
    kept_audited: _Count = 0
    kept_wrong: _Count = 0

    @model_validator(mode="after")
    def _parts_of_wholes(self) -> AuditCounts:
        chains = (
            ("sent_kept", "sent"),
            ("dropped_missed", "dropped_audited"),
            ("dropped_audited", "dropped"),
            ("kept_wrong", "kept_audited"),
            ("kept_audited", "kept"),
        )
        for part, whole in chains:
            if getattr(self, part) > getattr(self, whole):
                raise ValueError(
                    f"{part} is {getattr(self, part)}, more than {whole}, {getattr(self, whole)}"
                )
        return self

    def __add__(self, other: AuditCounts) -> AuditCounts:
        """Counts of both."""
        names = type(self).model_fields
        return AuditCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})


class AuditEstimate(BaseModel):
    """What an audit says about recall and precision, against the encoder alone.

    Attributes:
        counts: What it follows from.
        promise: What should hold.
        recall: Estimate and two-sided interval; ``n`` are the audited documents that the student
            dropped. None where none of those it dropped was audited, or nothing is kept.
        precision: Likewise; ``n`` are the audited documents that the student kept.
        recall_at_most: Upper end of the one-sided interval at ``promise.confidence``.
        precision_at_most: Likewise.
        broken: One of these lies below what is promised. Where the promise holds, each of them
            rings at most as often as the confidence allows.
        undecided: Recall or precision cannot be judged, as no document was audited for it.
        decision: The conditions, with figures; does not pass where broken or undecided.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    counts: AuditCounts
    promise: Promise
    recall: Rate | None
    precision: Rate | None
    recall_at_most: float
    precision_at_most: float
    broken: bool
    undecided: bool
    decision: Decision


@dataclass(frozen=True)
class _Side:
    """One of the two figures that are judged.

    Attributes:
        name: Of the figure.
        promised: Least value.
        verb: What the student did to the documents it hangs on.
        decided: How many those are.
        audited: How many of them were audited.
        against: How many of these count against the student.
        found: What the audit found of them.
        estimate: Of the figure; None where nothing is kept.
        bounds: Lower and upper bound, each wrong at most as often as told.
    """

    name: str
    promised: float
    verb: str
    decided: int
    audited: int
    against: int
    found: str
    estimate: float | None
    bounds: Callable[[float], tuple[float, float]]


def audit(counts: AuditCounts, promise: Promise) -> AuditEstimate:
    """Estimate recall and precision, and ring where the promise is surely broken.

    Args:
        counts: Of a run, or of a part of it.
        promise: That the band was calibrated for.
    """
    right, all_kept = _right(counts), counts.sent_kept + counts.kept
    missed = counts.dropped * _share(counts.dropped_missed, counts.dropped_audited)
    sides = (
        _Side(
            name="recall",
            promised=promise.recall,
            verb="dropped",
            decided=counts.dropped,
            audited=counts.dropped_audited,
            against=counts.dropped_missed,
            found="should have been kept",
            estimate=right / (right + missed) if right + missed else None,
            bounds=lambda tail: _recall_bounds(counts, tail),
        ),
        _Side(
            name="precision",
            promised=promise.precision,
            verb="kept",
            decided=counts.kept,
            audited=counts.kept_audited,
            against=counts.kept_wrong,
            found="should have been dropped",
            estimate=right / all_kept if all_kept else None,
            bounds=lambda tail: _precision_bounds(counts, tail),
        ),
    )
    documents = counts.sent + counts.dropped + counts.kept
    judged = [_judge(side, promise.confidence, documents) for side in sides]
    (recall, recall_at_most, _), (precision, precision_at_most, _) = judged
    return AuditEstimate(
        counts=counts,
        promise=promise,
        recall=recall,
        precision=precision,
        recall_at_most=recall_at_most,
        precision_at_most=precision_at_most,
        broken=recall_at_most < promise.recall or precision_at_most < promise.precision,
        undecided=not documents or any(side.decided and not side.audited for side in sides),
        decision=Decision.of([reason for *_, reason in judged]),
    )


def _judge(side: _Side, confidence: float, documents: int) -> tuple[Rate | None, float, Reason]:
    """Estimate with interval, one-sided upper end, and the reason that follows."""

    def reason(passed: bool, detail: str) -> Reason:
        return Reason(check=side.name, passed=passed, detail=detail)

    at_most = side.bounds(1 - confidence)[1]
    if not documents:
        return None, at_most, reason(False, f"No document yet: {side.name} cannot be judged.")
    if side.decided and not side.audited:
        detail = (
            f"None of the {side.decided:,} documents that the student {side.verb} was audited: "
            f"{side.name} cannot be judged."
        )
        return None, at_most, reason(False, detail)
    if side.estimate is None:
        return None, at_most, reason(True, f"Nothing is kept: {side.name} has no value.")
    low, high = side.bounds((1 - confidence) / 2)
    figure = Rate(value=side.estimate, low=low, high=high, n=side.audited, confidence=confidence)
    found = (
        f"{side.decided:,} documents, of which {side.audited:,} were audited and "
        f"{side.against:,} {side.found}"
        if side.decided
        else "no document"
    )
    detail = f"{side.name} is {figure}, as the student {side.verb} {found}"
    detail += f"; {side.promised:g} is promised"
    if at_most < side.promised:
        detail += f", but at confidence {confidence:g} it is at most {at_most:.3f}"
    return figure, at_most, reason(at_most >= side.promised, f"{detail[0].upper()}{detail[1:]}.")


def _share(hits: int, audited: int) -> float:
    return hits / audited if audited else 0.0


def _right(counts: AuditCounts) -> float:
    """Estimate of the documents that are kept rightly; where none was audited, all are."""
    wrong = counts.kept * _share(counts.kept_wrong, counts.kept_audited)
    return counts.sent_kept + counts.kept - wrong


def _bounds(hits: int, audited: int, total: int, tail: float) -> tuple[float, float]:
    """Bounds of how many of ``total`` documents count, by those audited."""
    if not audited:
        return 0.0, float(total)
    low, high = exact_bounds(hits, audited, tail)
    return max(hits, total * low), min(total - (audited - hits), total * high)


def _recall_bounds(counts: AuditCounts, tail: float) -> tuple[float, float]:
    missed = _bounds(counts.dropped_missed, counts.dropped_audited, counts.dropped, _MAIN * tail)
    wrong = _bounds(counts.kept_wrong, counts.kept_audited, counts.kept, _OTHER * tail)
    least, most = (counts.sent_kept + counts.kept - wrong[end] for end in (1, 0))
    low = least / (least + missed[1]) if least + missed[1] else 0.0
    high = most / (most + missed[0]) if most + missed[0] else 1.0
    return low, high


def _precision_bounds(counts: AuditCounts, tail: float) -> tuple[float, float]:
    kept = counts.sent_kept + counts.kept
    if not kept:
        return 0.0, 1.0
    low, high = _bounds(counts.kept_wrong, counts.kept_audited, counts.kept, tail)
    return 1 - high / kept, 1 - low / kept


def audited(
    hashes: NDArray[np.uint64] | Sequence[bytes], share: float, seed: int
) -> NDArray[np.bool_]:
    """Which documents are audited: a random share, the same ones whenever they are asked about.

    Args:
        hashes: Of the texts (n,), as numbers or as digests; a number and its big-endian bytes
            are the same hash.
        share: Of documents to audit.
        seed: Of the choice; another seed audits others.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    import xxhash

    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1: {share}")
    if isinstance(hashes, np.ndarray):
        data = np.ascontiguousarray(hashes, dtype=">u8").tobytes()
        hashes = [data[start : start + 8] for start in range(0, len(data), 8)]
    limit = int(share * 2**64)
    seed %= 2**64
    chosen = (xxhash.xxh3_64_intdigest(digest, seed) < limit for digest in hashes)
    return np.fromiter(chosen, dtype=np.bool_, count=len(hashes))
