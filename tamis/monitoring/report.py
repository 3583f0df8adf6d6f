"""What monitoring found of a window: a verdict with reasons, the figures, and what to do next."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from tamis.decision import Decision, Reason
from tamis.monitoring.alarm import Ringing
from tamis.monitoring.drift import DriftReport
from tamis.monitoring.health import Health
from tamis.monitoring.novelty import Novelty
from tamis.monitoring.performance import Performance
from tamis.monitoring.pictures import Beside
from tamis.monitoring.quality import Quality
from tamis.monitoring.settings import Severity


class Looks(BaseModel):
    """Distributions of the window beside the reference, for pictures.

    Attributes:
        scores: Of the model; None where no document has one.
        characters: Lengths of the texts.
        languages: Share of the window and of the reference by language; None where not known.
        sources: Likewise by source.
        kept: Share that the model keeps, of the window and of the reference.
        threshold: Score from which a document is kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scores: Beside | None
    characters: Beside | None
    languages: dict[str, tuple[float, float | None]]
    sources: dict[str, tuple[float, float | None]]
    kept: tuple[float | None, float | None]
    threshold: float


class MonitorReport(BaseModel):
    """A window beside the reference of the model that is served.

    Attributes:
        task: Name of the task.
        version: Of the model.
        at: When it was looked at.
        start: Of the window; None where files do not say.
        end: Likewise, exclusive.
        source: What was read, for people.
        documents: That were looked at: each text once, at most ``monitor.max_documents``.
        fingerprint: Of the window's content.
        counts: Of all documents, see ``MonitorWindow``.
        texts: Texts were kept.
        calibrated: The alarm was set for this model, so its rate of false alarms is known.
        drift: None where there is no document to compare.
        performance: On labels that came, and estimated.
        quality: Of the data.
        health: Of the service; None where nobody asked.
        novelty: What is new.
        looks: Distributions.
        ringing: Whether the alarm rings, after windows in a row and cool-down.
        severity: ``alarm`` rings; ``warning`` is something for a person to look at; ``notice`` is
            something that limits what can be said.
        reasons: Each condition that was looked at, with figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str
    version: str
    at: datetime
    start: datetime | None
    end: datetime | None
    source: str
    documents: int
    fingerprint: str
    counts: dict[str, int]
    texts: bool
    calibrated: bool
    drift: DriftReport | None
    performance: Performance
    quality: Quality
    health: Health | None
    novelty: Novelty
    looks: Looks
    ringing: Ringing
    severity: Severity
    reasons: tuple[Reason, ...]

    @property
    def drifted(self) -> bool:
        """Whether the documents differ from the reference."""
        return self.drift is not None and self.drift.drifted

    def decision(self) -> Decision:
        """Passed when every condition held."""
        return Decision.of(list(self.reasons))

    def headline(self) -> str:
        """The verdict in one sentence."""
        causes = self.causes()
        if self.severity == "alarm":
            return f"Alarm: {_and(causes)}."
        if self.severity == "warning":
            return f"Look at it: {_and(causes)}."
        if self.severity == "notice":
            return f"Nothing is wrong that can be seen, but {_and(self.limits())}."
        return "All is well: the window resembles what the model was trained on."

    def causes(self) -> list[str]:
        """What is wrong, each in a few words."""
        found = []
        if self.drifted:
            found.append("the documents differ from those that the model was trained on")
        if self.performance.worse:
            found.append("the model does worse on the labels that came")
        if self.performance.shifted:
            found.append("labels no longer mean what scores promise")
        broken = [share.name for share in self.quality.shares.values() if share.broken]
        if broken:
            found.append(f"the data are damaged ({', '.join(broken)})")
        if self.health is not None and self.health.ill:
            failed = [reason.check for reason in self.health.reasons() if not reason.passed]
            found.append(f"the service is ill ({', '.join(failed)})")
        return found

    def limits(self) -> list[str]:
        """What keeps the report from saying more."""
        found = []
        if not self.calibrated:
            found.append("the alarm is not set, so its rate of false alarms is not known")
        if self.novelty.measured == 0:
            found.append("there are too few documents with vectors to say what is new")
        return found

    def next_steps(self) -> list[tuple[str, str]]:
        """What to do, and the command that does it (or nothing)."""
        run = f"python run.py monitor --task {self.task}"
        found = []
        if self.quality.broken:
            found.append(("Look at what feeds the service: the data are damaged.", ""))
        if self.health is not None and self.health.ill:
            found.append(("Look after the service: docs/runbook.md.", ""))
        if self.drifted or self.performance.alarming:
            told = "Look at the documents below. If the model is to learn them, train a challenger."
            found.append((told, f"{run} --retrain-on-drift"))
        if self.drifted and self.performance.labels < self.performance.needed:
            told = (
                f"Have some documents labelled: {self.performance.labels:,} labels came, and "
                f"{self.performance.needed:,} are needed to say how the model does."
            )
            found.append((told, f"python run.py annotate --task {self.task}"))
        if not self.calibrated:
            found.append(("Set the alarm for windows of this size.", f"{run} --calibrate"))
        return found or [("Nothing is to be done.", "")]

    def to_html(self) -> str:
        """One self-contained page."""
        from tamis.monitoring.report_html import render

        return render(self)

    def picture(self) -> bytes:
        """The scores of the window beside the reference's as PNG, to send with an alert."""
        from tamis.monitoring.report_picture import draw

        return draw(self)


def _and(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
