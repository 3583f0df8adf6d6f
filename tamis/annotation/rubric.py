"""A rubric: the text that says what each score means, in a file with a version.

The file is Markdown that opens with front matter::

    ---
    name: clarity
    version: "1.0"
    ---
    What each score means.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from tamis.config import Strict, parse_yaml, validate
from tamis.errors import ConfigError
from tamis.fingerprint import sha256_of

RUBRICS = Path(__file__).resolve().parents[2] / "configs" / "rubrics"
_LARGEST = 100_000
_PARTS = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n(.*)\Z", re.DOTALL)


class Rubric(Strict):
    """What each score means.

    Attributes:
        name: Of the rubric.
        version: As its authors number it.
        text: What the judge is told.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    version: Annotated[str, Field(min_length=1, max_length=40)]
    text: Annotated[str, Field(min_length=1)]

    @property
    def sha256(self) -> str:
        """Of version and text, in hexadecimal."""
        return sha256_of((self.version, self.text))


def load_rubric(name: str) -> Rubric:
    """Load a rubric by the name of a file in ``configs/rubrics``, or by a path.

    Raises:
        ConfigError: There is no such file, or it is no rubric.
    """
    path = Path(name) if name.endswith(".md") else RUBRICS / f"{name}.md"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RUBRICS.glob("*.md")))
        raise ConfigError("annotate.rubric", "", name, f"a Markdown file, or one of {known}")
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig") if len(raw) <= _LARGEST else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "", name, f"a readable UTF-8 file ({error})") from None
    parts = _PARTS.match(text)
    if parts is None or not parts[2].strip():
        allowed = f"front matter between two lines ---, then text; {_LARGEST:,} bytes at most"
        raise ConfigError(str(path), "", f"{len(raw):,} bytes", allowed)
    try:
        front = parse_yaml(parts[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        front = None
    if not isinstance(front, dict):
        raise ConfigError(str(path), "front matter", parts[1][:80], "YAML with name and version")
    return validate(Rubric, {**front, "text": parts[2].strip()}, str(path))
