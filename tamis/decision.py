"""A decision and the reasons for it: never a bare bool."""

from pydantic import BaseModel, ConfigDict


class Reason(BaseModel):
    """One condition that was looked at.

    Attributes:
        check: Short name of the condition, such as ``floor``.
        passed: Whether the condition held.
        detail: One sentence with the figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    passed: bool
    detail: str


class Decision(BaseModel):
    """The verdict over a list of conditions.

    Attributes:
        passed: True when every reason passed.
        reasons: Each condition with its outcome, in the order they were looked at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    reasons: tuple[Reason, ...]

    @classmethod
    def of(cls, reasons: list[Reason]) -> "Decision":
        """Pass when every one of ``reasons`` does (an empty list passes)."""
        return cls(passed=all(reason.passed for reason in reasons), reasons=tuple(reasons))
