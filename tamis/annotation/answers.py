"""From what a judge wrote to an answer, or to the reason why it is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tamis.annotation.prompt import levels
from tamis.target import Target

Flaw = Literal["refusal", "truncated", "empty", "malformed", "nonsense", "out_of_scale", "rejected"]
"""Why an answer is quarantined."""

_MOST_TRIES = 50
_REASON = 1_000
_DETAIL = 300


class Unusable(Exception):
    """An answer that gives no label.

    Attributes:
        flaw: Short reason.
        detail: One sentence.
    """

    def __init__(self, flaw: Flaw, detail: str) -> None:
        super().__init__(f"{flaw}: {detail}")
        self.flaw, self.detail = flaw, detail[:_DETAIL]


@dataclass(frozen=True)
class Answer:
    """What a judge decided.

    Attributes:
        score: One of the target's levels: a whole number, or the name of a class.
        reason: Why, in its words.
    """

    score: int | str
    reason: str


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no scores")
    return value


_NotBool = BeforeValidator(_no_bool)


class _Number(BaseModel):
    model_config = ConfigDict(extra="ignore")
    score: Annotated[int, _NotBool]
    reason: Annotated[str, Field(min_length=1)]


class _Name(BaseModel):
    model_config = ConfigDict(extra="ignore")
    score: str
    reason: Annotated[str, Field(min_length=1)]


def read_answer(
    content: str | None, refusal: str | None, finish: str | None, target: Target
) -> Answer:
    """The answer in a completion.

    Args:
        content: What the judge wrote.
        refusal: What it wrote instead, where the server tells a refusal apart.
        finish: Why it stopped, as the server says.
        target: What may be answered.

    Raises:
        Unusable: It refused, was cut off, or wrote something else.
    """
    if refusal or finish == "content_filter":
        raise Unusable("refusal", refusal or "the server's filter stopped the answer")
    if finish == "length":
        raise Unusable("truncated", f"cut off after {len(content or ''):,} characters")
    text = (content or "").rpartition("</think>")[2].strip()
    if not text:
        raise Unusable("empty", "the judge wrote nothing")
    found = list(_objects(text))
    if not found:
        raise Unusable("malformed", f"no JSON object in {text[:200]!r}")
    answers, flaws = [], []
    for item in found:
        try:
            answers.append(_answer(item, target))
        except Unusable as flaw:
            flaws.append(flaw)
    if not answers:
        raise flaws[-1]
    if len({answer.score for answer in answers}) > 1:
        scores = ", ".join(str(answer.score) for answer in answers[:5])
        raise Unusable("nonsense", f"several answers that differ: {scores}")
    return answers[-1]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects in a text, outermost ones only."""
    decoder, at = json.JSONDecoder(), 0
    for _ in range(_MOST_TRIES):
        at = text.find("{", at)
        if at < 0:
            return
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        at = end
        if isinstance(found, dict):
            yield found


def _answer(item: dict[str, Any], target: Target) -> Answer:
    model = _Number if target.kind == "ordinal" else _Name
    try:
        read = model.model_validate(item)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Unusable("nonsense", f"{where}: {first['msg']}") from None
    allowed: tuple[int | str, ...] = levels(target)
    if read.score not in allowed:
        given = str(read.score)[:60]
        raise Unusable("out_of_scale", f"{given} is not one of {allowed[0]} to {allowed[-1]}")
    reason = " ".join(read.reason.encode("utf-8", "replace").decode().split())
    if not reason:
        raise Unusable("nonsense", "reason: it is blank")
    return Answer(read.score, reason[:_REASON])
