"""The table of a comparison: figures with intervals, differences from the best, and costs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.evaluation.bootstrap import Interval
from tamis.evaluation.plots import quality_cost_plot
from tamis.task import MetricName


class Row(BaseModel):
    """One model in one form.

    Attributes:
        name: Of the variant, with the backend where it is not as it was trained.
        family: Of the model; ``baseline`` for what knows next to nothing.
        variant: Which of the family's.
        preparation: Of texts.
        backend: As which the encoder ran; empty as it was trained.
        figure: Metric of record over the folds.
        second: Second metric over the folds.
        behind: Its gain over the best variant, paired: below zero where it is worse; None for
            the best itself.
        test: Metric of record on the task's test documents, which chose nothing.
        train_seconds: CPU time of one training, the longest of all.
        documents_per_second: Of one core's time, the median of all.
        size: Of the saved model in bytes.
        chosen: What training on the task's own split chose, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: str
    variant: str
    preparation: str
    backend: str
    figure: Interval
    second: Interval
    behind: Interval | None
    test: Interval
    train_seconds: float
    documents_per_second: float
    size: int
    chosen: str


class Comparison(BaseModel):
    """All variants of a task, best first.

    Attributes:
        task: Name of the task.
        metric: Of record.
        second_metric: Beside it.
        folds: How many.
        documents: In the folds.
        test_documents: On the task's test side.
        labels_by: Who made the labels.
        machine: What it ran on.
        rows: The variants, best first, then the baselines.
        deploy: Name of the one to deploy; empty where the policy is met by none.
        reason: Why, in a sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    metric: MetricName
    second_metric: MetricName
    folds: int
    documents: int
    test_documents: int
    labels_by: str
    machine: str
    rows: tuple[Row, ...]
    deploy: str
    reason: str

    @property
    def headers(self) -> tuple[str, ...]:
        """Of the table."""
        return (
            "model",
            "text",
            f"{self.metric}, {self.folds} folds",
            "behind the best",
            str(self.second_metric),
            f"{self.metric}, test",
            "training, CPU s",
            "documents a CPU s",
            "size, MB",
        )

    def cells(self, row: Row) -> tuple[str, ...]:
        """Of a line of the table."""
        trained = row.family != "baseline"
        return (
            row.name,
            row.preparation,
            str(row.figure),
            "" if row.behind is None else _signed(row.behind),
            f"{row.second.value:.3f}",
            str(row.test),
            f"{row.train_seconds:,.1f}" if trained else "",
            f"{row.documents_per_second:,.0f}" if trained else "",
            f"{row.size / 1e6:,.1f}" if trained else "",
        )

    @property
    def lead(self) -> str:
        """What was compared, on what, and what to deploy."""
        return (
            f"{self.documents:,} documents in {self.folds} folds, {self.test_documents:,} for "
            f"the test; labels: {self.labels_by}. {self.reason}"
        )

    def picture(self) -> bytes:
        """Quality against cost, as PNG."""
        trained = [row for row in self.rows if row.family != "baseline"]
        return quality_cost_plot(
            self.metric,
            {row.name: (row.documents_per_second, row.figure, row.family) for row in trained},
            self.deploy,
        )

    def to_html(self) -> str:
        """One self-contained page."""
        image = base64.b64encode(self.picture()).decode()
        picture = html.Html(
            f'<img alt="Quality against cost" src="data:image/png;base64,{image}" '
            'style="max-width:100%">'
        )
        body = html.join([html.table(self.headers, map(self.cells, self.rows)), picture])
        return html.page(f"Models for {self.task}", body, f"{self.lead} Machine: {self.machine}.")

    def to_markdown(self) -> str:
        """The table alone."""
        return markdown_table(self.headers, [self.cells(row) for row in self.rows], self.deploy)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], bold: str) -> str:
    """A table in Markdown; the line that begins with ``bold`` in bold."""

    def line(cells: Sequence[str], strong: str = "") -> str:
        shown = (f"{strong}{_safe(cell)}{strong}" if cell else "" for cell in cells)
        return f"| {' | '.join(shown)} |"

    body = (line(cells, "**" if cells[0] == bold else "") for cells in rows)
    return "\n".join((line(headers), f"|{'---|' * len(headers)}", *body)) + "\n"


def _safe(cell: str) -> str:
    return " ".join(escape(cell, quote=False).split()).replace("|", "\\|")


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
