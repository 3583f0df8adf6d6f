"""The model card: what a model is, what it was made from and what it can be trusted with.

The sections follow Mitchell et al. 2019, "Model Cards for Model Reporting". The card is built
from typed data alone: as JSON for programs, as Markdown and as a page for people.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tamis import html
from tamis.evaluation.behaviour_figures import BehaviourReport
from tamis.evaluation.figures import Evaluation, Reliability
from tamis.evaluation.footprint import Footprint
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget

LLM_LABELS = (
    "The labels were made by a large language model, not by people. The model learns that "
    "reader's judgement, with its errors and leanings; figures here measure agreement with it, "
    "not truth."
)
RELIABILITY = "reliability.png"
"""The picture that the Markdown shows, as a file beside it."""


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
        family: Such as ``encoder``, with its variant.
        head: What turns features into scores.
        own: What only this family has, in words, such as the backbone and its hash.
        preparation: What is done to a text before it is read, in order.
        max_tokens: Tokens read of a document.
        max_characters: Characters read of a document, before tokens.
        long: What is read of a document that does not fit: ``text.long``, in words.
    """

    family: str
    head: str
    own: dict[str, str] = {}
    preparation: tuple[str, ...] = ()
    max_tokens: int
    max_characters: int
    long: str = "the beginning"


class CardInput(_Frozen):
    """Everything a card is made from.

    Attributes:
        name: Of the model.
        version: Of the model.
        created: Date, ISO 8601.
        task: Name of the task.
        task_fingerprint: Hash of the whole task file.
        description: Of the task, in a sentence.
        target: What is predicted.
        intended_use: One sentence each; the card says so where nobody stated it.
        out_of_scope: One sentence each.
        limits: One sentence each; those that follow from the data are added by themselves.
        contacts: Whom to ask.
        data: The labelled documents.
        split: How they were divided.
        model: What was trained.
        evaluation: Its figures.
        behaviour: Its behaviour tests; None or none where they were not run.
        footprint: What training cost.
        licence: Of the model, as far as it is settled.
        code_version: Version or commit of the code.
        seed: Of the training.
    """

    name: str
    version: str
    created: str
    task: str
    task_fingerprint: str = ""
    description: str
    target: Annotated[OrdinalTarget | BinaryTarget | ClassesTarget, Field(discriminator="kind")]
    intended_use: tuple[str, ...] = ()
    out_of_scope: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    contacts: tuple[str, ...] = ()
    data: DataFacts
    split: SplitSizes
    model: ModelFacts
    evaluation: Evaluation
    behaviour: BehaviourReport | None = None
    footprint: Footprint = Footprint()
    licence: str = "not stated"
    code_version: str
    seed: int

    @property
    def reliability(self) -> Reliability | None:
        """Labels beside scores over all folds, where there are some, else on the test side."""
        validated = self.evaluation.cross_validation
        found = validated.reliability if validated is not None else None
        return found or self.evaluation.reliability


class ModelCard(_Frozen):
    """A card: the facts, and the limits that were stated or follow from them."""

    given: CardInput
    limits: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """The card as JSON data, without what would name single documents."""
        content = self.given.model_dump(mode="json", exclude={"evaluation": {"predictions"}})
        return content | {"limits": list(self.limits)}

    def to_markdown(self) -> str:
        """The card as Markdown; the picture it shows is a file beside it."""
        from tamis.evaluation.card_markdown import markdown

        return markdown(self.given, self.limits)

    def summary(self) -> str:
        """A few sentences, for places that have no room for the card."""
        given = self.given
        parts = [given.description, given.evaluation.headline()]
        if given.behaviour is not None and given.behaviour.tests:
            parts.append(given.behaviour.sentence())
        if given.data.labels.made_by == "llm":
            parts.append("The labels were made by a large language model, not by people.")
        parts.append("The whole card is report/MODEL_CARD.md of the run.")
        return " ".join(parts)

    def pictures(self) -> dict[str, bytes]:
        """The pictures that the Markdown shows, as PNG by file name."""
        from tamis.evaluation.plots import reliability_plot  # matplotlib loads when it draws

        found = self.given.reliability
        return {} if found is None else {RELIABILITY: reliability_plot(self.given.target, found)}

    def to_html(self) -> str:
        """One self-contained page: the Markdown, rendered, with its pictures inside."""
        from markdown_it import MarkdownIt

        # Markup in a text of the card stays text.
        reader = MarkdownIt("commonmark", {"html": False}).enable("table")
        _, _, rest = self.to_markdown().partition("\n")
        for name, content in self.pictures().items():
            inside = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            rest = rest.replace(f"]({name})", f"]({inside})")
        title = f"{self.given.name}, version {self.given.version}"
        return html.page(title, html.Html(_STYLE + reader.render(rest)), "Model card")


_STYLE = """<style>
table { display: block; overflow-x: auto; width: fit-content; max-width: 100%; }
td, th { min-width: 3.5rem; overflow-wrap: normal; }
img { background: #fff; max-width: 26rem; width: 100%; }
</style>
"""


def model_card(given: CardInput) -> ModelCard:
    """The card of a model; single predictions and ids of documents do not go into it."""
    bare = given.evaluation.model_copy(update={"predictions": ()})
    behaviour = given.behaviour and given.behaviour.without_examples()
    shared = given.model_copy(update={"evaluation": bare, "behaviour": behaviour})
    return ModelCard(given=shared, limits=tuple(_limits(given)))


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
    if given.behaviour is None or not given.behaviour.tests:
        found.append("Its behaviour was not tested.")
    else:
        failed = [test for test in given.behaviour.tests if not test.passed]
        found += [f"It fails a behaviour test: {test.detail}" for test in failed]
    return found
