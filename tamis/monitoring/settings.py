"""The task's ``monitor`` section: what is watched, how often it may cry wolf, whom it tells."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tamis.config import Items, Strict, wrong

LABEL_SHARE = 0.1
"""Of the budget of false alarms what the checks on labels may use."""
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class FalseAlarms(Strict):
    """How many alarms may be false: ``alarms`` in ``days``, on windows that did not change."""

    alarms: Positive = 1.0
    days: Positive = 91.0


class CalibrationSettings(Strict):
    """How thresholds are found on windows drawn from the reference."""

    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1_000
    """Windows that are drawn."""
    permutations: Annotated[int, Field(ge=99, le=100_000)] = 999
    """Permutations where a test is calibrated on the window itself."""
    by_groups: bool = False
    """Documents of one page or module arrive together, and windows do not say which: thresholds are
    found on windows drawn by whole groups of the reference."""


class PerformanceLimits(Strict):
    """When labels that came for a window say that the model has got worse."""

    min_labels: Annotated[int, Field(ge=10)] = 50
    """Fewer are reported, and decide nothing."""
    loss: Positive = 0.05
    """How far the metric of record must be below the reference's, with its whole interval."""


class QualityLimits(Strict):
    """Shares of a window from which its data are said to be broken."""

    empty: Share = 0.02
    duplicates: Share = 0.3
    broken_encoding: Share = 0.02
    without_score: Share = 0.02
    dropped: Share = 0.01
    """Records that the log had no room for."""


class HealthLimits(Strict):
    """When the service is said to be ill, from its metrics."""

    errors: Share = 0.01
    """Of requests: answers of 500 and above."""
    rejected: Share = 0.05
    """Of requests: 429 and 503."""
    p95_seconds: Positive = 1.0


class SlackChannel(Strict):
    """Slack, through ZenML's alerter of the stack, or an incoming webhook."""

    kind: Literal["slack"]
    channel: str = ""
    """By default the alerter's own."""
    url_variable: str = "TAMIS_SLACK_WEBHOOK"
    """Environment variable that holds the incoming webhook where the stack has no alerter."""


class WebhookChannel(Strict):
    """Any receiver of a JSON object."""

    kind: Literal["webhook"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    token_variable: str | None = None
    """Environment variable that holds a Bearer token."""


Channel = Annotated[SlackChannel | WebhookChannel, Field(discriminator="kind")]
Severity = Literal["ok", "notice", "warning", "alarm"]


class MonitorSettings(Strict):
    """What is watched of a window of documents.

    The budget is one of false alarms in all: every test that can ring shares it.
    """

    window_hours: Annotated[float, Field(ge=0.05, le=24 * 366)] = 24.0
    """Span of the request log that is one window."""
    min_documents: Annotated[int, Field(ge=20)] = 50
    """A smaller window is reported, and never said to have drifted."""
    max_documents: Annotated[int, Field(ge=100, le=100_000)] = 2_000
    """Of a larger one, a seeded sample is looked at."""
    false_alarms: FalseAlarms = FalseAlarms()
    consecutive: Annotated[int, Field(ge=1, le=30)] = 1
    """Windows in a row that must differ before it rings."""
    cooldown_hours: Annotated[float, Field(ge=0)] = 72.0
    """After an alarm, for how long another one of the same model is not raised."""
    calibration: CalibrationSettings = CalibrationSettings()
    performance: PerformanceLimits = PerformanceLimits()
    quality: QualityLimits = QualityLimits()
    health: HealthLimits = HealthLimits()
    evidently: bool = True
    """Whether Evidently's report is made, for reading; it decides nothing."""
    alerts: Items[Channel] = ()
    """Whom alarms and what came of them are told to, besides the ledger."""

    @property
    def window_rate(self) -> float:
        """The share of unchanged windows that may ring."""
        return self.false_alarms.alarms * self.window_hours / (self.false_alarms.days * 24)

    @property
    def label_rate(self) -> float:
        """The part of it that the checks on labels may use."""
        return LABEL_SHARE * self.window_rate

    @property
    def drift_rate(self) -> float:
        """The part of it that is left to the tests of drift."""
        return self.window_rate - self.label_rate

    @model_validator(mode="after")
    def _some_windows_stay_quiet(self) -> MonitorSettings:
        if self.window_rate > 0.5:
            given = f"{self.false_alarms.alarms:g} in {self.false_alarms.days:g} days"
            allowed = f"at most every other window of {self.window_hours:g} hours"
            raise wrong("false_alarms", given, allowed)
        return self

    @model_validator(mode="after")
    def _sample_fits(self) -> MonitorSettings:
        if self.min_documents > self.max_documents:
            allowed = f"at most max_documents, which is {self.max_documents}"
            raise wrong("min_documents", self.min_documents, allowed)
        return self
