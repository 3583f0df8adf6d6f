"""Settings of the service, from the task file's section ``serve``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tamis.config import Strict
from tamis.monitoring.log_settings import RequestLogSettings

_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0, le=600)]


class RequestLimits(Strict):
    """What one request may ask for; more is refused with a 4xx that names the limit."""

    body_bytes: Annotated[int, Field(ge=1_024, le=256 * 1024**2)] = 4 * 1024**2
    documents: Annotated[int, Field(ge=1, le=10_000)] = 256
    characters: Annotated[int, Field(ge=100, le=10_000_000)] = 200_000
    """Of one document."""
    explained: Annotated[int, Field(ge=1, le=256)] = 4
    """Documents of a request that asks for explanations."""
    seconds: _Seconds = 30.0
    """From the first byte to the answer."""
    body_seconds: _Seconds = 10.0
    """To send the head of a request in, and then its body."""


class RateLimit(Strict):
    """How often one key may ask; counted in each process, over a sliding minute."""

    requests_per_minute: Annotated[int, Field(ge=0)] = 6_000
    """0 sets no limit."""


class Batching(Strict):
    """Whether waiting requests are scored together."""

    mode: Literal["auto", "on", "off"] = "auto"
    """``auto`` batches on a GPU; on a CPU padding costs more than it saves."""
    documents: Annotated[int, Field(ge=2, le=4_096)] = 32
    """Most documents of a batch made of several requests."""


class ServeSettings(Strict):
    """How a model is served."""

    auth: Literal["keys", "none"] = "keys"
    """``none`` is for a service that something else guards; it has to be asked for."""
    limits: RequestLimits = RequestLimits()
    rate: RateLimit = RateLimit()
    batching: Batching = Batching()
    queue_documents: _Count = 512
    """Documents that may wait in a process; what comes on top is sent away with 503."""
    processes: Annotated[int, Field(ge=0, le=64)] = 1
    """Worker processes; 0 makes one for each core."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """Threads that score in each process, each with one core; 0 shares the cores out."""
    log: RequestLogSettings = RequestLogSettings()
