"""Settings of the request log: what is kept of a request, for how long, and at what cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tamis.config import Items, Strict, wrong

Keep = Literal["none", "text", "masked", "embedding"]
_MEGABYTE = 1 << 20


class RequestLogSettings(Strict):
    """What the log keeps of served requests.

    By default no text and nothing derived from one but its length and language: texts belong to
    those who send them, and keeping them is a decision that somebody has to make, not inherit.
    """

    enabled: bool = True
    """Whether anything is logged where the service has a folder to log to."""
    keep: Keep = "none"
    """``none``; ``embedding``: the model's vector, for tests of drift; ``masked``: the text with
    addresses, telephone numbers and IBANs masked, which retraining can use; ``text``: as it came.
    """
    pii_regions: Items[str] = ("US",)
    """With ``masked``: countries (ISO 3166) whose national telephone numbers are looked for."""
    language: bool = True
    """Whether the language of each text is told, by the model that ``filter`` uses."""
    text_characters: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    """How much of the beginning of a text is kept."""
    queue_records: Annotated[int, Field(ge=1, le=1_000_000)] = 4_096
    """Records that may wait in memory; what comes on top is dropped, and counted."""
    queue_characters: Annotated[int, Field(ge=10_000, le=1_000_000_000)] = 16_000_000
    """Likewise, in characters of text."""
    flush_seconds: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """How often what waits is written: a killed process loses what came since, and no more."""
    sync: Literal["flush", "close"] = "flush"
    """When the disk is told to keep what was written, against a machine that fails: at every
    flush, or when a segment is closed. A process that is killed loses nothing by either."""
    segment_bytes: Annotated[int, Field(ge=4_096, le=1 << 32)] = 64 * _MEGABYTE
    """A segment of this size is closed and another begun."""
    segment_seconds: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """Likewise one of this age; windows are made of closed segments."""
    window: Literal["hour", "day"] = "hour"
    """What one Parquet file holds, in UTC."""
    retention_days: Annotated[float, Field(gt=0, le=3_650)] = 30.0
    """Age from which requests, texts and feedback are deleted."""
    max_bytes: Annotated[int, Field(ge=_MEGABYTE)] = 10_240 * _MEGABYTE
    """Size from which the oldest requests are deleted before their time."""
    feedback_bytes: Annotated[int, Field(ge=_MEGABYTE)] = 64 * _MEGABYTE
    """Likewise for feedback, so that a flood of labels costs no requests."""

    @model_validator(mode="after")
    def _some_segments_fit(self) -> RequestLogSettings:
        if self.segment_bytes * 2 > self.max_bytes:
            allowed = f"at least twice segment_bytes, which is {self.segment_bytes}"
            raise wrong("max_bytes", self.max_bytes, allowed)
        return self
