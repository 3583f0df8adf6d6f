"""What behaviour tests found, as one typed, readable object."""

from __future__ import annotations

import base64
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.decision import Decision, Reason
from tamis.evaluation.bootstrap import Interval

Kind = Literal["invariance", "direction", "minimum", "robustness"]

KINDS: dict[Kind, str] = {
    "invariance": "What should not matter does not",
    "direction": "Without its explanation a text loses",
    "minimum": "Hand-written texts",
    "robustness": "Errors in the characters",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Example(_Frozen):
    """One document or hand-written text of a test.

    Attributes:
        id: Of the document, or the name of the text.
        before: Its score; of a pair, that of the text that ought to be lower.
        after: The score of the changed text; of a pair, of the one that ought to be higher.
    """

    id: str
    before: float
    after: float


class BehaviourTest(_Frozen):
    """One test.

    Attributes:
        kind: What it asks.
        name: Of the change, or of what was asked.
        passed: Whether the figures are within the limits.
        n: Documents or hand-written texts.
        figures: What was measured, with 95% intervals; shares of the scale for changes.
        limits: By the same names, what was allowed.
        detail: The same in a sentence.
        changes: Score afterwards less score before at the 5th, 25th, 50th, 75th and 95th
            percentile, in points of the scale; empty where nothing was changed.
        examples: The documents that speak most against the model, worst first.
    """

    kind: Kind
    name: str
    passed: bool
    n: int
    figures: dict[str, Interval]
    limits: dict[str, float]
    detail: str
    changes: tuple[float, ...] = ()
    examples: tuple[Example, ...] = ()


class BehaviourReport(_Frozen):
    """All behaviour tests of one model.

    Attributes:
        task: Name of the task.
        family: Of the model.
        low: Lower end of the scale.
        high: Upper end.
        threshold: A document is kept when its score reaches it.
        documents: How many the tests were tried on.
        groups: Groups among them.
        seed: Of the changes and resamples.
        tests: None where none were asked for.
    """

    task: str
    family: str
    low: float
    high: float
    threshold: float
    documents: int
    groups: int
    seed: int
    tests: tuple[BehaviourTest, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return all(test.passed for test in self.tests)

    def sentence(self) -> str:
        """How many tests passed, and on what."""
        if not self.tests:
            return "No behaviour tests were asked for."
        right = sum(test.passed for test in self.tests)
        return (
            f"{right} of {len(self.tests)} behaviour tests passed, on {self.documents} documents "
            f"in {self.groups} groups."
        )

    def decision(self) -> Decision:
        """Pass when every test does; one reason a test."""
        return Decision.of(
            [
                Reason(check=f"behaviour_{t.kind}_{t.name}", passed=t.passed, detail=t.detail)
                for t in self.tests
            ]
        )

    def without_examples(self) -> BehaviourReport:
        """The same without ids of documents, for files that are meant to be shared."""
        bare = tuple(test.model_copy(update={"examples": ()}) for test in self.tests)
        return self.model_copy(update={"tests": bare})

    def to_html(self) -> str:
        """One self-contained page."""
        lead = f"{self.sentence()} Scale {self.low:g} to {self.high:g}, kept from "
        lead += f"{self.threshold:.3f}. Intervals cover 95%; documents of a group count together."
        parts: list[str] = [
            html.cards(
                [
                    (f"{sum(t.passed for t in own)} of {len(own)}", KINDS[kind])
                    for kind in KINDS
                    if (own := [test for test in self.tests if test.kind == kind])
                ]
            )
        ]
        if drawn := {f"{t.name}": t.changes for t in self.tests if t.changes}:
            from tamis.evaluation.plots import change_plot  # matplotlib loads only when it draws

            picture = base64.b64encode(change_plot(drawn)).decode()
            image = f'<img alt="Changes of scores" src="data:image/png;base64,{picture}">'
            figure = html.Html(f"<figure style='background:#fff'>{image}</figure>")
            parts.append(html.section("How scores change", figure))
        for kind, title in KINDS.items():
            own = [test for test in self.tests if test.kind == kind]
            if own:
                parts.append(html.section(title, html.join(_shown(test) for test in own)))
        return html.page(f"Behaviour of {self.task} ({self.family})", html.join(parts), lead)


def _shown(test: BehaviourTest) -> html.Html:
    mark = "kept" if test.passed else ""
    verdict = "passed" if test.passed else "failed"
    head = html.Html(
        f'<div class="doc {mark}"><b>{html.text(test.name)}</b>: {verdict}'
        f"<p>{html.text(test.detail)}</p></div>"
    )
    if not test.examples:
        return head
    rows = [(e.id, f"{e.before:.3f}", f"{e.after:.3f}") for e in test.examples]
    columns = ("text", "lower", "higher") if test.kind == "minimum" else ("id", "before", "after")
    table = html.table(columns, rows)
    return html.Html(f"{head}<details><summary>examples</summary>{table}</details>")
