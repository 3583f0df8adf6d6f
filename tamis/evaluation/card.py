"""The model card: what a model is, what it was made from and what it can be trusted with.

The sections follow Mitchell et al. 2019, "Model Cards for Model Reporting". The card is built
from typed data alone, once as JSON for programs and once as Markdown for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tamis.evaluation.figures import Comparison, Evaluation
from tamis.evaluation.metrics import HIGHER_IS_BETTER
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget

LLM_LABELS = (
    "The labels were made by a large language model, not by people. The model learns that "
    "reader's judgement, with its errors and leanings; figures here measure agreement with it, "
    "not truth."
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelFacts(_Frozen):
    """Who made the labels and how."""

    made_by: Literal["llm", "people", "rules", "unknown"]
    who: str = ""
    instructions: str = ""
    """Where the instructions are, such as ``data/README.md``."""


class DataFacts(_Frozen):
    """The labelled documents.

    Attributes:
        fingerprint: Hash of the documents and labels used.
        documents: How many.
        origin: Where they come from, in a sentence.
        sources: Documents by source.
        licences: Documents by licence.
        labels: Who made the labels.
        left_out: Documents that were left out, by reason.
    """

    fingerprint: str
    documents: int
    origin: str
    sources: dict[str, int]
    licences: dict[str, int]
    labels: LabelFacts
    left_out: dict[str, int] = {}


class SplitSizes(_Frozen):
    """Documents of each part."""

    train: int
    validation: int
    test: int


class ModelFacts(_Frozen):
    """The model itself.

    Attributes:
        family: Such as ``encoder``.
        backbone: Its name.
        backbone_sha256: Hash of its weights, or empty.
        layer: Hidden layer read, counted from 1; None where that means nothing.
        pooling: How tokens become one vector; empty where that means nothing.
        head: What is on top.
        max_tokens: Tokens read of a document.
        max_characters: Characters read of a document, before tokens.
        long: What is read of a document that does not fit: ``text.long``, in words.
        parameters: Number of parameters, where known.
    """

    family: str
    backbone: str
    backbone_sha256: str = ""
    layer: int | None = None
    pooling: str = ""
    head: str
    max_tokens: int
    max_characters: int
    long: str = "the beginning"
    parameters: int | None = None


class CardInput(_Frozen):
    """Everything a card is made from.

    Attributes:
        name: Of the model.
        version: Of the model.
        created: Date, ISO 8601.
        task: Name of the task.
        description: Of the task, in a sentence.
        target: What is predicted.
        intended_use: One sentence each.
        out_of_scope: One sentence each.
        limits: One sentence each; those that follow from the data are added by themselves.
        data: The labelled documents.
        split: How they were divided.
        model: What was trained.
        evaluation: Its figures.
        licence: Of the model, as far as it is settled.
        code_version: Version or commit of the code.
        seed: Of the training.
    """

    name: str
    version: str
    created: str
    task: str
    description: str
    target: Annotated[OrdinalTarget | BinaryTarget | ClassesTarget, Field(discriminator="kind")]
    intended_use: tuple[str, ...]
    out_of_scope: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    data: DataFacts
    split: SplitSizes
    model: ModelFacts
    evaluation: Evaluation
    licence: str = "not stated"
    code_version: str
    seed: int


def model_card(given: CardInput) -> tuple[dict[str, Any], str]:
    """The card as JSON data and as Markdown.

    The JSON holds everything but the single predictions, which would carry document ids into a
    file that is meant to be shared.
    """
    content = given.model_dump(mode="json", exclude={"evaluation": {"predictions"}})
    limits = _limits(given)
    content["limits"] = limits
    return content, _markdown(given, limits)


def _limits(given: CardInput) -> list[str]:
    """The limits stated, and those that can be read off the data and the figures."""
    e, found = given.evaluation, list(given.limits)
    if given.data.labels.made_by == "llm":
        found.append(LLM_LABELS)
    if given.data.labels.made_by == "unknown":
        found.append("Who made the labels is not known.")
    found.append(
        f"Of a document only {given.model.long} is read, up to {given.model.max_characters} "
        f"characters and {given.model.max_tokens} tokens at a time."
    )
    level = [name for name, own in e.gains.items() if not own[e.metric].low > 0]
    if level:
        found.append(
            f"On the {e.n} test documents it is not shown to be better in {e.metric} than: "
            f"{', '.join(level)}."
        )
    weak = [
        f"{part.name} ({', '.join(name for name, won in part.gains.items() if not won.low > 0)})"
        for part in e.slices
        if any(not won.low > 0 for won in part.gains.values())
    ]
    if weak:
        found.append(f"Within these slices it is not shown to beat a baseline: {'; '.join(weak)}.")
    if e.ceiling is None:
        found.append("No document was labelled twice, so how noisy the labels are is unknown.")
    return found


def _markdown(given: CardInput, limits: Sequence[str]) -> str:
    e, data, model = given.evaluation, given.data, given.model
    parts = [
        f"# {_safe(given.name)} {_safe(given.version)}",
        _safe(e.headline()),
        "## Intended use",
        _safe(given.description),
        _list(given.intended_use),
    ]
    if given.out_of_scope:
        parts += ["Not meant for:", _list(given.out_of_scope)]
    parts += [
        "## Task",
        f"{_safe(given.task)}: {_safe(_target(given))} "
        f"A document is kept when its score reaches {e.threshold:.3f}.",
        "## Data",
        _safe(data.origin),
        _facts(
            {
                "Documents": f"{data.documents} (fingerprint {data.fingerprint})",
                "Split": f"{given.split.train} train, {given.split.validation} validation, "
                f"{given.split.test} test",
                "Sources": _counted(data.sources),
                "Licences of the texts": _counted(data.licences),
                "Left out": _counted(data.left_out) or "none",
                "Labels": _labels(data.labels),
            }
        ),
        "## Model",
        _facts(
            {
                "Family": model.family,
                "Backbone": model.backbone,
                "Weights (sha256)": model.backbone_sha256 or "not recorded",
                "Layer": "" if model.layer is None else str(model.layer),
                "Pooling": model.pooling,
                "Head": model.head,
                "Reads": f"{model.long}; {model.max_characters} characters, "
                f"then {model.max_tokens} tokens",
                "Parameters": "" if model.parameters is None else f"{model.parameters:,}",
                "Licence": given.licence,
            }
        ),
        "## Figures",
        f"On {e.n} test documents in {e.groups} groups, with 95% intervals.",
        _figures(e),
    ]
    if e.cross_validation is not None:
        c = e.cross_validation
        parts += [f"Over {c.folds} cross-validation folds, {c.n} documents:", _figures(c)]
    parts += [
        "## What a score means",
        *_reliability(e),
        "## Ceiling",
        _ceiling(e),
        "## Slices",
        _slices(e),
        "## Limits",
        _list(limits),
    ]
    provenance = {
        "Created": given.created,
        "Code": given.code_version,
        "Seed": str(given.seed),
    }
    return (
        "\n\n".join(part for part in [*parts, "## Provenance", _facts(provenance)] if part) + "\n"
    )


def _target(given: CardInput) -> str:
    target = given.target
    if isinstance(target, OrdinalTarget):
        return (
            f"a score from {target.minimum:g} to {target.maximum:g}; labels of "
            f"{target.keep_at_least:g} and above are worth keeping."
        )
    if isinstance(target, BinaryTarget):
        return f"the probability of {target.positive} rather than {target.negative}."
    return f"the probability of {', '.join(target.keep)} among {', '.join(target.classes)}."


def _labels(labels: LabelFacts) -> str:
    made = {
        "llm": "by a large language model, not by people",
        "people": "by people",
        "rules": "by rules",
        "unknown": "by whom is not known",
    }[labels.made_by]
    who = f" ({labels.who})" if labels.who else ""
    how = f", under {labels.instructions}" if labels.instructions else ""
    return f"made {made}{who}{how}" if labels.made_by != "unknown" else made


def _ceiling(e: Evaluation) -> str:
    if e.ceiling is None:
        return "No document was labelled twice."
    c = e.ceiling
    figures = [f"the same label for {c.exact:.0%}", f"F1 of the kept class {c.f1:.3f}"]
    figures += [] if c.kappa is None else [f"kappa {c.kappa:.3f}"]
    figures += [] if c.spearman is None else [f"Spearman {c.spearman:.3f}"]
    return f"Two readings of {c.n} documents: {', '.join(figures)}."


def _figures(c: Comparison) -> str:
    scorers = (c.model, *c.baselines)
    head = ["", *(s.name for s in scorers), *(f"gain over {name}" for name in c.gains)]
    rows = []
    for metric, found in c.model.figures.items():
        name = metric if HIGHER_IS_BETTER[metric] else f"{metric} (lower is better)"
        beside = [f"{s.figures[metric].value:.3f}" for s in c.baselines]
        gains = [str(own[metric]) for own in c.gains.values()]
        rows.append([name, str(found), *beside, *gains])
    return _table(head, rows)


def _reliability(e: Evaluation) -> list[str]:
    """The gap and the table, over all folds where there are some."""
    c = e.cross_validation
    where, found = "Cross-validated", c.reliability if c is not None else None
    if found is None:
        where, found = "On the test documents", e.reliability
    if found is None:
        return ["It was not measured."]
    mean = "mean label" if e.target.kind == "ordinal" else "share to keep"
    rows = [
        [
            f"{part.score:.2f}",
            f"{part.label.value:.2f} ({part.label.low:.2f} to {part.label.high:.2f})",
            str(part.label.n),
        ]
        for part in found.bins
    ]
    return [f"{where}: {found.sentence()}", _table(["mean score", mean, "n"], rows)]


def _slices(c: Comparison) -> str:
    if not c.slices:
        return "There are too few test documents to look within slices."
    names = [baseline.name for baseline in c.baselines]
    rows = [
        [
            f"{part.name} (by {part.kind})",
            str(part.n),
            str(part.figures[c.metric]),
            *(str(part.gains[name]) if name in part.gains else "–" for name in names),
        ]
        for part in c.slices
    ]
    return _table(["slice", "n", c.metric, *(f"gain over {name}" for name in names)], rows)


def _counted(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered)


def _facts(facts: dict[str, str]) -> str:
    return "\n".join(f"- **{name}**: {_inline(value)}" for name, value in facts.items() if value)


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {_safe(sentence)}" for sentence in sentences)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(_inline(cell).replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(head), f"|{' --- |' * len(head)}", *(line(row) for row in rows)])


def _safe(text: str) -> str:
    """Text that begins a line: ``_inline``, and no heading, quotation or list either."""
    return re.sub(r"^(?=[#>+-])", r"\\", _inline(text))


def _inline(text: str) -> str:
    """Text on one line that Markdown will not read as HTML, a link, code or emphasis."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]])", r"\\\1", text)
