"""The phases that a strategy leads a challenger through."""

from __future__ import annotations

from dataclasses import dataclass

from tamis.serving.release_settings import ReleaseSettings, Strategy


@dataclass(frozen=True)
class Phase:
    """A time in which the traffic is split in one way.

    Attributes:
        name: Unique in a plan.
        share: Percent of the requests that the challenger answers.
        shadow: Whether it gets copies of the requests that the champion answers.
        judged: Whether the challenger is; a phase that is not only measures the champion.
        before: Name of an earlier phase whose champion it is compared with; None compares with
            the champion beside it.
        min_requests: Of the one that is measured, before the phase may end.
        min_seconds: Shortest time.
        max_seconds: Longest time.
    """

    name: str
    share: int
    shadow: bool
    judged: bool
    before: str | None
    min_requests: int
    min_seconds: float
    max_seconds: float


def phases(strategy: Strategy, settings: ReleaseSettings) -> list[Phase]:
    """The phases of a strategy, in their order; after the last the challenger is promoted.

    A shadow answers nobody. A canary answers a rising share. With blue-green the champion is
    measured alone, then the challenger gets everything at once and is compared with that.
    """

    def phase(
        name: str, share: int, *, shadow: bool = False, judged: bool = True,
        before: str | None = None,
    ) -> Phase:  # fmt: skip
        return Phase(
            name, share, shadow, judged, before,
            settings.min_requests, settings.min_seconds, settings.max_seconds,
        )  # fmt: skip

    if strategy == "shadow":
        return [phase("shadow", 0, shadow=True)]
    if strategy == "canary":
        return [phase(f"canary {percent}%", percent) for percent in settings.steps]
    return [phase("blue", 0, judged=False), phase("green", 100, before="blue")]


def shares(phase: Phase, champion: str, challenger: str) -> dict[str, int]:
    """Percent of each version in a phase; a version without a share is left out."""
    split = {champion: 100 - phase.share, challenger: phase.share}
    return {version: percent for version, percent in split.items() if percent}
