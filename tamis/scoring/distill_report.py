"""What came of a distillation: the students tried, the band, and what it costs and saves."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.scoring.band import Calibration, Figures, Rate
from tamis.scoring.settings import BackendName
from tamis.scoring.student import StudentSettings


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudentTrial(_Frozen):
    """A student that was tried, judged out of fold on its training documents.

    Attributes:
        settings: What it reads and how it was fitted.
        sent: Share of the documents that goes to the encoder, if the band fits these very ones.
        spearman: Rank correlation with the encoder's scores.
    """

    settings: StudentSettings
    sent: float
    spearman: float


class DistillReport(_Frozen):
    """How a cascade was made, and what it does to documents that had no say in it.

    Attributes:
        task: Name of the task.
        encoder: ``digest`` of the classifier.
        backend: That the encoder ran with.
        threshold: Kept is what the encoder scores at least this.
        documents: By part: ``train``, ``calibration``, ``test``.
        kept: Documents of all parts that the fp32 encoder keeps.
        students: All that were tried; the one that sends least was taken.
        calibration: The band, or why there is none.
        test: The cascade on the test documents, against the fp32 encoder; None without a band.
        encoder_only: The backend alone on the same documents, likewise.
        documents_per_cpu_second: Of ``student`` and ``encoder``.
    """

    task: str
    encoder: str
    backend: BackendName
    threshold: float
    documents: dict[str, int]
    kept: int
    students: tuple[StudentTrial, ...]
    calibration: Calibration
    test: Figures | None
    encoder_only: Figures
    documents_per_cpu_second: dict[str, float]

    @property
    def gain(self) -> float:
        """How many times as many documents a CPU-second as with the encoder alone, expected."""
        if self.test is None or self.test.sent is None:
            return 1.0
        student, encoder = (self.documents_per_cpu_second[n] for n in ("student", "encoder"))
        return (1 / encoder) / (1 / student + self.test.sent.value / encoder)

    def to_html(self) -> str:
        """One self-contained page."""
        found = self.calibration
        parts = [
            html.cards(self._cards()),
            html.section("Against the fp32 encoder alone", self._figures()),
            html.section(
                "The promise",
                html.table(
                    ("", ""),
                    [
                        ("result", found.reason),
                        ("method", found.method),
                        ("assumptions", found.assumptions),
                        ("bands tested", f"{found.tested} of {found.steps}"),
                        ("p-value, recall", f"{found.p_recall:.4f}"),
                        ("p-value, precision", f"{found.p_precision:.4f}"),
                    ],
                ),
            ),
            html.section("Students tried, out of fold on the training documents", self._students()),
        ]
        lead = (
            f"Encoder {self.encoder[:16]}…, {self.backend}, threshold {self.threshold:.4g}; "
            f"{sum(self.documents.values()):,} documents scored once, of which the encoder keeps "
            f"{self.kept:,}."
        )
        return html.page(f"Cascade for {self.task}", html.join(parts), lead)

    def _cards(self) -> list[tuple[str, str]]:
        speeds = self.documents_per_cpu_second
        found = [
            (f"{speeds['student']:,.0f}", "student, documents a CPU-second"),
            (f"{speeds['encoder']:,.0f}", "encoder, documents a CPU-second"),
        ]
        if self.test is None or self.test.sent is None:
            return [("none", "band: the encoder decides alone"), *found]
        return [
            (f"{self.test.sent.value:.1%}", "sent to the encoder (test documents)"),
            (f"{self.gain:.1f} x", "expected speed, beside the encoder alone"),
            *found,
        ]

    def _figures(self) -> html.Html:
        rows = [("this backend, encoder alone, test", *_cells(self.encoder_only))]
        if self.calibration.band is not None:
            rows.append(("cascade, calibration", *_cells(self.calibration)))
        if self.test is not None:
            rows.append(("cascade, test", *_cells(self.test)))
        headers = ("", "documents", "kept by fp32", "recall", "precision", "F1", "sent")
        return html.table(headers, rows)

    def _students(self) -> html.Html:
        rows = [
            (
                f"{s.settings.characters:,}",
                f"1-{s.settings.longest_gram}",
                f"2^{s.settings.bits}",
                f"{s.settings.width:g}",
                f"{s.spearman:.4f}",
                f"{s.sent:.1%}",
            )
            for s in self.students
        ]
        headers = ("characters", "n-grams", "columns", "width", "Spearman", "sent")
        return html.table(headers, rows)


def _cells(figures: Figures) -> tuple[str, ...]:
    rates: tuple[Rate | None, ...] = (
        figures.recall, figures.precision, figures.f1, figures.sent
    )  # fmt: skip
    shown = ("" if rate is None else str(rate) for rate in rates)
    return (f"{figures.documents:,}", f"{figures.reference_kept:,}", *shown)
