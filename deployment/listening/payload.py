"""What Alertmanager sends (webhook, version 4), as far as it is read."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tamis.fingerprint import sha256_of

MOST_ALERTS = 500
_LONGEST = 100


class Alert(BaseModel):
    """One alert of a notification.

    Attributes:
        status: ``firing`` or ``resolved``.
        labels: Its labels.
        starts: Since when it fires: with the fingerprint, what makes it this one.
        fingerprint: Hash of its labels.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Literal["firing", "resolved"]
    labels: dict[str, str] = {}
    starts: Annotated[AwareDatetime, Field(alias="startsAt")]
    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]

    @property
    def key(self) -> str:
        """The same whenever it is sent."""
        starts = self.starts.astimezone(UTC).isoformat()
        return sha256_of((self.fingerprint, starts))[:16]

    @property
    def name(self) -> str:
        """What the rule is called."""
        return self.labels.get("alertname", "")[:_LONGEST]

    def is_for(self, task: str) -> bool:
        """Whether it is about a task, or about none in particular."""
        return self.labels.get("task", task) == task


class Notification(BaseModel):
    """A group of alerts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal["4"]
    alerts: Annotated[tuple[Alert, ...], Field(max_length=MOST_ALERTS)]
