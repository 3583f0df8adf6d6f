"""What only people can say about a model: the key ``card`` of a task file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tamis.config import Items, Strict

Sentence = Annotated[str, Field(min_length=1, max_length=1_000)]


class CardSettings(Strict):
    """The parts of the model card that no figure tells."""

    intended_use: Items[Sentence] = ()
    out_of_scope: Items[Sentence] = ()
    limits: Items[Sentence] = ()
    """Beside those that the card reads off the data and the figures."""
    contacts: Items[Sentence] = ()
    licence: Sentence | None = None
    """Of the model."""
    labels: Literal["llm", "people", "rules", "unknown"] | None = None
    """Who made the labels; by default a language model where the sources say so, else unknown."""
    rubric: Sentence | None = None
    """Where the instructions for labelling are."""
