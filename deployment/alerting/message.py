"""What is said to people: a summary, a picture, and the command to run next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_MOST_LINES = 20
_LONGEST = 400


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        title: One line.
        task: The task.
        severity: ``ok``, ``notice``, ``warning`` or ``alarm``.
        lines: The summary, a sentence each.
        command: What to run next, if anything.
        report: Where the page is that shows more: a path or URL.
        picture: PNG.
    """

    title: str
    task: str
    severity: str
    lines: tuple[str, ...] = ()
    command: str | None = None
    report: str | None = None
    picture: bytes | None = None

    def shown(self) -> tuple[str, ...]:
        """The summary, cut to what people read."""
        cut = [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in self.lines]
        more = len(cut) - _MOST_LINES
        return (*cut[:_MOST_LINES], *([f"and {more} more"] if more > 0 else []))

    def text(self) -> str:
        """The message as plain text."""
        lines = [self.title, *self.shown()]
        lines += [f"Report: {self.report}"] if self.report else []
        lines += [f"Next: {self.command}"] if self.command else []
        return "\n".join(lines)

    def blocks(self) -> list[dict[str, Any]]:
        """The message as blocks of Slack."""
        body = "\n".join(f"• {_escaped(line)}" for line in self.shown())
        if self.report:
            body += f"\n*Report:* {_link(self.report)}"
        if self.command:
            body += f"\n*Next:* `{_escaped(self.command)}`"
        head = {"type": "header", "text": {"type": "plain_text", "text": self.title[:150]}}
        if not body:
            return [head]
        section = {"type": "section", "text": {"type": "mrkdwn", "text": body[:3_000]}}
        return [head, section]


def _escaped(text: str) -> str:
    """What is text in Slack's own markup, and nothing else: no link, nobody called."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _link(address: str) -> str:
    plain = _escaped(address)
    return f"<{plain}>" if address.startswith(("http://", "https://")) else f"`{plain}`"
