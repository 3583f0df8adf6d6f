"""Whether a window's data are sound: empties, repetitions, encodings, scores, gaps in the log."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from tamis.decision import Reason
from tamis.monitoring.monitored import MonitorWindow
from tamis.monitoring.samples import Sample, Words
from tamis.monitoring.settings import QualityLimits

CONFIDENCE = 0.99
"""A share is over its limit when its lower bound is, so that one document of 50 is no alarm."""
_ALIKE = 0.8
_WORDS = 10
_COMPARED = 1_000


class Share(BaseModel):
    """Some of the documents that were looked at.

    Attributes:
        name: What they have in common, in words.
        count: How many have it.
        of: How many were looked at; with 0 it could not be measured.
        limit: Share from which the data are said to be broken; None decides nothing.
        reference: The same share among the documents behind the model; None where not known.
        broken: It is over the limit, by more than chance gives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    count: int
    of: int
    limit: float | None = None
    reference: float | None = None
    broken: bool = False

    @property
    def share(self) -> float | None:
        """None where it could not be measured."""
        return self.count / self.of if self.of else None


class Quality(BaseModel):
    """What was found of a window's data, by name.

    Attributes:
        shares: ``empty``, ``duplicates``, ``near_duplicates``, ``broken_encoding``,
            ``without_score``, ``dropped``, ``quarantined``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shares: dict[str, Share]

    @property
    def broken(self) -> bool:
        """Whether any share is over its limit."""
        return any(share.broken for share in self.shares.values())

    def reasons(self) -> tuple[Reason, ...]:
        """One for each share that has a limit and was measured."""
        return tuple(
            Reason(check=name.replace("_", " "), passed=not each.broken, detail=_told(each))
            for name, each in self.shares.items()
            if each.limit is not None and each.of
        )


def measure_quality(window: MonitorWindow, reference: Sample, limits: QualityLimits) -> Quality:
    """Look at a window's data.

    All documents count, but for near-duplicates, which are looked for in the sample. What needs
    texts is not measured where the log kept none.

    Args:
        window: The documents.
        reference: Documents behind the model.
        limits: From when data are said to be broken.
    """
    counts = window.counts
    records, with_text = counts.get("records", 0), counts.get("with_text", 0)
    came = records + counts.get("without_text", 0)
    empty = counts.get("empty", 0) + counts.get("without_text", 0)
    repeated = counts.get("repeated", 0) + counts.get("taken_out_repeated", 0)
    texts = records + counts.get("taken_out_repeated", 0) if with_text else 0
    near, compared = near_duplicates(window.sample.words)
    known, known_of = near_duplicates(reference.words)
    dropped = counts.get("dropped", 0)
    quarantined = counts.get("quarantined", 0) - counts.get("without_text", 0)
    blank = _share(int((reference.characters == 0).sum()), len(reference))
    shares = {
        "empty": _limited("no text", empty, came, limits.empty, blank),
        "duplicates": _limited("the text of another", repeated, texts, limits.duplicates),
        "near_duplicates": Share(
            name="nearly the words of another",
            count=near,
            of=compared,
            reference=_share(known, known_of),
        ),
        "broken_encoding": _limited(
            "damaged characters",
            counts.get("broken_encoding", 0),
            with_text,
            limits.broken_encoding,
        ),
        "without_score": _limited(
            "no score", counts["without_score"], counts["score_asked"], limits.without_score
        ),
        # These are counted whole, so nothing is left to chance.
        "dropped": Share(
            name="dropped by the log",
            count=dropped,
            of=records + dropped,
            limit=limits.dropped,
            broken=dropped > limits.dropped * (records + dropped),
        ),
        "quarantined": Share(
            name="not readable", count=quarantined, of=came + quarantined
        ),
    }  # fmt: skip
    return Quality(shares=shares)


def near_duplicates(words: Words | None) -> tuple[int, int]:
    """Documents that share four fifths of their words with another, and how many were compared.

    Of hashed words, so that it works where texts were not kept; the first 1,000 documents of at
    least 10 words are compared, each with each. Jaccard similarity of sets: Broder 1997, section 2.
    """
    if words is None or words.shape[0] == 0:
        return 0, 0
    sizes = np.asarray(words.sum(axis=1)).ravel()
    rows = np.flatnonzero(sizes >= _WORDS)[:_COMPARED]
    if len(rows) < 2:
        return 0, len(rows)
    some, sizes = words[rows], sizes[rows]
    shared = (some @ some.T).toarray()
    together = sizes[:, None] + sizes[None] - shared
    alike = shared >= _ALIKE * together
    np.fill_diagonal(alike, False)
    return int(alike.any(axis=1).sum()), len(rows)


def surely_above(count: int, of: int, limit: float) -> bool:
    """Whether so many of so many are more than a share gives by chance.

    The lower bound of Clopper and Pearson (1934), one-sided, at 99%.
    """
    from scipy.stats import beta

    if count <= 0 or of <= 0 or count <= limit * of:
        return False
    return bool(beta.ppf(1 - CONFIDENCE, count, of - count + 1) > limit)


def _limited(name: str, count: int, of: int, limit: float, reference: float | None = None) -> Share:
    broken = surely_above(count, of, limit)
    return Share(name=name, count=count, of=of, limit=limit, reference=reference, broken=broken)


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _told(each: Share) -> str:
    found = f"{each.count:,} of {each.of:,} documents ({each.count / each.of:.1%})"
    return f"{found}: {each.name}; limit {each.limit:.1%}"
