"""The documents that a run asks about, written down before the first request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tamis.annotation.prompt import instructions_hash
from tamis.annotation.rubric import Rubric
from tamis.annotation.settings import Strategy
from tamis.config import Strict
from tamis.corpus.store import OutputStore
from tamis.errors import DataError
from tamis.fingerprint import sha256_of
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget

SELECTION = "selection.jsonl"


class Terms(Strict):
    """What an answer hangs on besides the document.

    Attributes:
        task: Name of the task.
        target: What may be answered.
        rubric: What each score means.
        model: The judge.
        temperature: Of its answers.
        max_characters: How much of a document it is shown.
    """

    task: str
    target: Annotated[OrdinalTarget | BinaryTarget | ClassesTarget, Field(discriminator="kind")]
    rubric: Rubric
    model: str
    temperature: float
    max_characters: int

    def instructions(self, repeat: int) -> str:
        """Hash of all that the judge is told besides the document."""
        return instructions_hash(
            self.rubric, self.target, repeat, self.max_characters, self.temperature
        )


class Considered(BaseModel):
    """What the input held.

    Attributes:
        read: Rows.
        unreadable: Rows that are no documents.
        labelled: Documents that the task has a label for.
        duplicates: Copies of a document that was considered.
        considered: Documents that the strategy chose among, drawn at random.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    read: int = 0
    unreadable: int = 0
    labelled: int = 0
    duplicates: int = 0
    considered: int = 0


class Chosen(BaseModel):
    """A document to ask about.

    Attributes:
        sha256: Content hash of its normalised text.
        id: As the corpus has it.
        source: Where it comes from.
        text: The text.
        strategy: Why it was chosen.
        model_score: The champion's score, where that played a part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    id: str
    source: str
    text: str
    strategy: Strategy
    model_score: float | None = None


class Selection(BaseModel):
    """The documents of a run, in the order in which they are asked about.

    Attributes:
        terms: What the answers hang on.
        budget: How many documents were asked for.
        double_share: Share that is read twice.
        seed: Of the draw of those.
        format: Of the labels.
        considered: What the input held.
        notes: What a person should know of the choice.
        items: The documents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms: Terms
    budget: int
    double_share: float
    seed: int
    format: Literal["parquet", "jsonl"]
    considered: Considered
    notes: tuple[str, ...] = ()
    items: tuple[Chosen, ...] = ()

    def doubled(self) -> frozenset[str]:
        """Content hashes of the documents that are read twice, drawn at random."""
        drawn = sorted(
            (item.sha256 for item in self.items),
            key=lambda sha256: sha256_of((str(self.seed), "double", sha256)),
        )
        return frozenset(drawn[: round(self.double_share * len(drawn))])

    def summary(self) -> ChosenDocuments:
        """What a report says of it: no text."""
        return ChosenDocuments(
            budget=self.budget,
            chosen=len(self.items),
            doubled=len(self.doubled()),
            by_strategy=counts_of([item.strategy for item in self.items]),
            considered=self.considered,
            notes=self.notes,
        )


class ChosenDocuments(BaseModel):
    """How many documents were chosen, and why.

    Attributes:
        budget: How many were asked for.
        chosen: How many there are.
        doubled: How many of them are read twice.
        by_strategy: By the strategy that chose them.
        considered: What the input held.
        notes: What a person should know of the choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int
    chosen: int
    doubled: int
    by_strategy: dict[str, int]
    considered: Considered
    notes: tuple[str, ...] = ()


def counts_of(names: Sequence[str]) -> dict[str, int]:
    """How often each name comes, in the order of the names."""
    return {name: names.count(name) for name in sorted(set(names))}


def write_selection(store: OutputStore, selection: Selection) -> None:
    """Write the documents down, all at once."""
    lines = [selection.model_dump_json(exclude={"items"})]
    lines += [item.model_dump_json() for item in selection.items]
    store.write(SELECTION, ("\n".join(lines) + "\n").encode())


def read_selection(store: OutputStore) -> Selection | None:
    """What was written down; None where nothing was.

    Raises:
        DataError: It is damaged.
    """
    try:
        raw = store.read(SELECTION)
    except FileNotFoundError:
        return None
    try:
        head, *lines, end = raw.decode().split("\n")
        if end:
            raise ValueError("its last line is torn")
        items = [json.loads(line) for line in lines]
        return Selection.model_validate_json(json.dumps({**json.loads(head), "items": items}))
    except (ValueError, ValidationError, TypeError) as error:
        told = f"{store.url}/{SELECTION} is damaged ({str(error).splitlines()[0]})"
        raise DataError(f"{told}; --fresh begins anew") from None
