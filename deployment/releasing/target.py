"""Where versions serve: what a release asks of it, whatever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from tamis.serving.release_settings import Strategy

Seen = Literal["requests", "scores", "answers"]


class Histogram(BaseModel):
    """Counts of values between edges.

    Attributes:
        edges: Upper bounds, ascending; a value equal to one belongs below it.
        counts: One more than edges: the last is of values above all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)

    @property
    def total(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def since(self, before: Histogram) -> Histogram:
        """What has come since; all of it where the counters began anew in between."""
        if before.edges != self.edges:
            return self
        left = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return self if min(left) < 0 else Histogram(edges=self.edges, counts=left)

    def plus(self, other: Histogram) -> Histogram:
        """Both together, on the edges that they share."""
        if not self.total:
            return other
        if not other.total:
            return self
        edges = tuple(edge for edge in self.edges if edge in set(other.edges))
        pairs = zip(self.on(edges), other.on(edges), strict=True)
        return Histogram(edges=edges, counts=tuple(one + two for one, two in pairs))

    def on(self, edges: tuple[float, ...]) -> tuple[int, ...]:
        """The counts between some of its edges."""
        counts = [0] * (len(edges) + 1)
        for number, count in enumerate(self.counts):
            upper = self.edges[number] if number < len(self.edges) else float("inf")
            counts[bisect_left(edges, upper)] += count
        return tuple(counts)

    def quantile(self, level: float) -> tuple[float, float, float]:
        """A quantile, by interpolation within its bucket, and the bucket's bounds.

        Args:
            level: Between 0 and 1.

        Returns:
            The quantile, the lower bound and the upper bound; in the last bucket all are its edge.
        """
        rank, below = level * self.total, 0.0
        for number, count in enumerate(self.counts[: len(self.edges)]):
            if count and below + count >= rank:
                low = self.edges[number - 1] if number else min(0.0, self.edges[0])
                high = self.edges[number]
                return low + (high - low) * max(0.0, rank - below) / count, low, high
            below += count
        last = self.edges[-1] if self.edges else 0.0
        return last, last, last


class Observation(BaseModel):
    """Counters of one version, since it began to serve.

    Attributes:
        requests: Scoring requests that it was given.
        errors: Of these, answered with 5xx or not at all.
        refused: Of these, answered with 4xx.
        documents: That it scored.
        kept: Of these.
        latency: Seconds to the answer.
        scores: Of the documents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int = 0
    errors: int = 0
    refused: int = 0
    documents: int = 0
    kept: int = 0
    latency: Histogram = Histogram()
    scores: Histogram = Histogram()

    def since(self, before: Observation) -> Observation:
        """What has come since; all of it where the counters began anew in between."""
        traffic, documents = ("requests", "errors", "refused"), ("documents", "kept")
        left: dict[str, int] = {}
        for group in (traffic, documents):  # which have a source each
            parts = {name: getattr(self, name) - getattr(before, name) for name in group}
            anew = any(value < 0 for value in parts.values())
            left |= {name: getattr(self, name) for name in group} if anew else parts
        return Observation(
            **left,
            latency=self.latency.since(before.latency),
            scores=self.scores.since(before.scores),
        )


@dataclass(frozen=True)
class Answer:
    """What one version said of one document.

    Attributes:
        request_id: Of the request, which the copy for the shadow has, too.
        index: Of the document in it.
        score: On the task's scale.
        kept: Whether it keeps the document.
    """

    request_id: str
    index: int
    score: float
    kept: bool


@dataclass(frozen=True)
class Traffic:
    """What serves, as it really is.

    Attributes:
        shares: Percent of the requests that each version is given; none has 0.
        shadow: Version that gets copies of the requests, if one does.
        ready: Versions that could answer now.
        address: Where requests go to; None where nothing serves.
    """

    shares: Mapping[str, int] = field(default_factory=dict)
    shadow: str | None = None
    ready: frozenset[str] = frozenset()
    address: str | None = None

    def __str__(self) -> str:
        parts = [f"version {name}: {share}%" for name, share in sorted(self.shares.items())]
        parts += [f"version {self.shadow}: shadow"] if self.shadow else []
        return ", ".join(parts) or "nothing"


class Target(ABC):
    """Something that versions of one task's model serve on.

    Every change can be asked for again: it then does what is missing.
    """

    name: ClassVar[str]
    strategies: ClassVar[tuple[Strategy, ...]] = ("canary", "blue-green")
    sees: frozenset[Seen] = frozenset({"requests", "scores"})
    """What of its versions can be measured."""

    @abstractmethod
    def state(self) -> Traffic:
        """Versions that run, percent of each and the shadow, as they really are."""

    def running(self) -> frozenset[str]:
        """Versions that exist here at all, ready or not, and take up room."""
        return self.state().ready

    @abstractmethod
    def start(self, version: str, folder: Path, shadow: bool) -> None:
        """Run a version, without traffic; returns when it is ready.

        Raises:
            EngineError: It does not become ready in time.
        """

    @abstractmethod
    def route(self, shares: Mapping[str, int], shadow: str | None) -> None:
        """Give versions their shares, percent that sum to 100; returns when they have them."""

    @abstractmethod
    def stop(self, version: str) -> None:
        """End a version that has no traffic, once its last answers are given."""

    @abstractmethod
    def observe(self, version: str) -> Observation:
        """Counters of a version so far."""

    def answers(self, version: str) -> Iterator[Answer]:
        """What a version has said of documents, where that is kept."""
        return iter(())

    def measure(self, wanted: bool) -> None:  # noqa: B027  # most have nothing to do
        """Begin or end to count what ``observe`` tells, where counting has a cost."""
