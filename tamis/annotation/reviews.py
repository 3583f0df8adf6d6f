"""Labels by people, kept beside the judge's answers; they overrule them."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from tamis.corpus.store import OutputStore

LEDGER = "reviews"


class HumanLabel(BaseModel):
    """What one person said of one document.

    Attributes:
        sha256: Content hash of the document.
        label: Their label: a number, or the name of a class.
        who: Who they are, as the tool names them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    sha256: str
    label: int | float | str
    who: str


class Review(BaseModel):
    """What people said of one document, together.

    Attributes:
        label: The label that most gave; of numbers, the lower median where none has most.
        who: Everyone who gave one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: int | float | str
    who: tuple[str, ...]

    @property
    def level(self) -> int | str:
        """The label as a judge would have given it: a whole number, or the name of a class."""
        if isinstance(self.label, str):
            return self.label
        return int(self.label) if self.label == int(self.label) else -(10**9)


def keep(store: OutputStore, labels: Sequence[HumanLabel]) -> None:
    """Add labels by people, durably; a person's later label replaces their earlier one.

    Raises:
        OSError: The storage failed.
    """
    if not labels:
        return
    place = sum(1 for _ in store.records(LEDGER))
    rows = [label.model_dump(mode="json") for label in labels]
    store.append(place, json.dumps({"labels": rows}, separators=(",", ":")).encode(), LEDGER)


def reviews_of(store: OutputStore) -> dict[str, Review]:
    """What people said, by content hash; where they differ and none prevails, nothing."""
    said: dict[str, dict[str, int | float | str]] = {}
    for line in store.records(LEDGER):
        try:
            items = [HumanLabel.model_validate(item) for item in json.loads(line)["labels"]]
        except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
            continue
        for item in items:
            said.setdefault(item.sha256, {})[item.who] = item.label
    return {sha256: review for sha256, by in said.items() if (review := together(by)) is not None}


def together(by: dict[str, int | float | str]) -> Review | None:
    """One label out of several people's; None where classes have equal votes."""
    ranked = Counter(by.values()).most_common(2)
    who = tuple(sorted(by))
    if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
        return Review(label=ranked[0][0], who=who)
    numbers = [label for label in by.values() if not isinstance(label, str)]
    if len(numbers) < len(by):
        return None
    return Review(label=statistics.median_low(numbers), who=who)
