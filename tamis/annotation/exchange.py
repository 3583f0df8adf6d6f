"""Labels to and from the tools in which people review them: Argilla and Label Studio.

Argilla: the list of records that ``Dataset.records.to_json`` writes and
``rg.Record.from_dict`` reads, with ``id``, ``fields``, ``metadata``, ``suggestions`` by question
and ``responses`` by question. Label Studio: the list of tasks of its JSON format, with ``data``,
``predictions`` and ``annotations``, whose ``result`` is of the type ``choices``. In both the
question is called ``score``, and its answers are text, as neither has numbers below 0.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

import fsspec
from pydantic import BaseModel, ConfigDict

from tamis.annotation.output import Labelled
from tamis.annotation.prompt import levels
from tamis.annotation.reviews import HumanLabel
from tamis.annotation.selection import Selection
from tamis.corpus.document import content_hash, normalise
from tamis.errors import DataError, UsageError
from tamis.target import Target

Tool = Literal["argilla", "label-studio"]
QUESTION = "score"
MOST_BYTES = 2**30
_WHO = 200


class Imported(BaseModel):
    """What came back from people.

    Attributes:
        labels: That were taken.
        documents: That have one.
        people: Who gave them.
        skipped: What was not taken, by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: int
    documents: int
    people: tuple[str, ...]
    skipped: dict[str, int]


def export(tool: Tool, file: str, selection: Selection, found: list[Labelled]) -> int:
    """Write what was asked about for review, with the judge's scores as suggestions.

    Documents whose answer is unusable are written without one; those that remain are not.

    Args:
        tool: Whose format.
        file: Path or fsspec URL.
        selection: What was asked about.
        found: What is known of each document.

    Returns:
        How many documents were written.

    Raises:
        UsageError: The file cannot be written.
    """
    make = _argilla if tool == "argilla" else _label_studio
    rows = [
        make(number, item, selection)
        for number, item in enumerate(found, 1)
        if item.first is not None or item.review is not None
    ]
    try:
        with fsspec.open(file, "w", encoding="utf-8") as out:
            json.dump(rows, out, ensure_ascii=False, indent=1)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"--export: given {file!r}; allowed: a file to write ({error})") from None
    return len(rows)


def _argilla(number: int, item: Labelled, selection: Selection) -> dict[str, Any]:
    suggestions = {}
    if item.first is not None and item.first.score is not None:
        suggestions[QUESTION] = {
            "value": str(item.first.score),
            "score": None,
            "agent": selection.terms.model,
        }
    return {
        "id": item.chosen.sha256,
        "fields": {"text": item.chosen.text},
        "metadata": _facts(item, selection),
        "suggestions": suggestions,
        "responses": {},
        "vectors": {},
    }


def _label_studio(number: int, item: Labelled, selection: Selection) -> dict[str, Any]:
    predictions = []
    if item.first is not None and item.first.score is not None:
        choice = {
            "id": f"{QUESTION}-{item.chosen.sha256[:10]}",
            "from_name": QUESTION,
            "to_name": "text",
            "type": "choices",
            "value": {"choices": [str(item.first.score)]},
        }
        predictions.append({"model_version": selection.terms.model, "result": [choice]})
    return {
        "id": number,
        "data": {"text": item.chosen.text, **_facts(item, selection)},
        "predictions": predictions,
    }


def _facts(item: Labelled, selection: Selection) -> dict[str, Any]:
    first = item.first
    return {
        "sha256": item.chosen.sha256,
        "document": item.chosen.id,
        "source": item.chosen.source,
        "strategy": item.chosen.strategy,
        "rubric": f"{selection.terms.rubric.name} {selection.terms.rubric.version}",
        "reason": (first.reason or first.detail) if first is not None else "",
    }


def labelling_interface(target: Target) -> str:
    """Label Studio's labelling configuration that the exported tasks fit, as XML."""
    from xml.sax.saxutils import quoteattr

    choices = "".join(f"<Choice value={quoteattr(str(level))}/>" for level in levels(target))
    return (
        f'<View><Text name="text" value="$text"/><Text name="reason" value="$reason"/>'
        f'<Choices name="{QUESTION}" toName="text" choice="single" required="true">'
        f"{choices}</Choices></View>"
    )


def read_labels(tool: Tool, file: str, selection: Selection) -> tuple[list[HumanLabel], Imported]:
    """Labels by people from an export of a tool.

    A label counts if its document was asked about, its text is the one that was shown, and the
    label is one of the task's; suggestions, drafts and what was discarded do not.

    Args:
        tool: Whose format.
        file: Path or fsspec URL.
        selection: What was asked about.

    Raises:
        UsageError: There is no such file.
        DataError: It is no export of the tool.
    """
    read: Callable[[dict[str, Any]], Iterator[_Said]] = (
        _from_argilla if tool == "argilla" else _from_label_studio
    )
    known = {item.sha256 for item in selection.items}
    skipped: Counter[str] = Counter()
    labels: list[HumanLabel] = []
    for row in _rows(tool, file):
        try:
            sha256, said = _document(row), list(read(row))
        except (AttributeError, TypeError, KeyError, IndexError, ValueError):
            skipped["malformed"] += 1
            continue
        if not said:
            skipped["no label by a person"] += 1
        elif sha256 not in known:
            skipped["not a document of this output"] += len(said)
        else:
            for value, who in said:
                label = _label(value, selection.terms.target)
                if label is None:
                    skipped["not a label of the task"] += 1
                else:
                    labels.append(HumanLabel(sha256=sha256, label=label, who=who))
    return labels, Imported(
        labels=len(labels),
        documents=len({label.sha256 for label in labels}),
        people=tuple(sorted({label.who for label in labels})),
        skipped=dict(sorted(skipped.items())),
    )


_Said = tuple[Any, str]
"""A label, and who gave it."""


def _rows(tool: Tool, file: str) -> list[dict[str, Any]]:
    try:
        with fsspec.open(file, "rb") as raw:
            data = raw.read(MOST_BYTES + 1)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"--import: given {file!r}; allowed: a file to read ({error})") from None
    if len(data) > MOST_BYTES:
        raise DataError(f"--import: {file} has over {MOST_BYTES:,} bytes")
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"--import: {file} is no JSON ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"--import: {file} is no list of {tool} records")
    return rows


def _document(row: dict[str, Any]) -> str:
    """Content hash of the text that a person saw."""
    shown = row["fields"] if "fields" in row else row["data"]
    text = shown["text"]
    return content_hash(normalise(text))


def _from_argilla(row: dict[str, Any]) -> Iterator[_Said]:
    for answer in (row.get("responses") or {}).get(QUESTION) or []:
        if answer.get("status", "submitted") == "submitted":
            yield answer["value"], _person(answer.get("user_id"))


def _from_label_studio(row: dict[str, Any]) -> Iterator[_Said]:
    for annotation in row.get("annotations") or []:
        if annotation.get("was_cancelled"):
            continue
        for result in annotation.get("result") or []:
            if result.get("from_name") != QUESTION:
                continue
            value = result["value"]
            given = value.get(result["type"])
            if isinstance(given, list):
                (given,) = given
            yield given, _person(annotation.get("completed_by"))


def _person(given: Any) -> str:
    """Who it was: an address where the tool gives one, else a number or an id."""
    if isinstance(given, dict):
        given = given.get("email") or given.get("username") or given.get("id")
    return str(given)[:_WHO] if given not in (None, "") else "unknown"


def _label(value: Any, target: Target) -> int | float | str | None:
    """The label as the task has it; None where it is none."""
    try:
        code = target.encode(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if target.kind == "ordinal":
        return int(code) if code.is_integer() else code
    return levels(target)[int(code)]
