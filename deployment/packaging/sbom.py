"""The list of materials of a package, in CycloneDX 1.6."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from deployment.packaging.closure import Pin
from tamis.errors import EngineError

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

FILE = "sbom.cdx.json"
_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "tamis/package")
_LONGEST = 100
"""Characters of a licence that is told by name; what is longer is the licence's text."""


@dataclass(frozen=True)
class Contents:
    """What is in a package.

    Attributes:
        task: The task.
        version: Of its model, in the registry.
        digest: sha256 over the registered classifier's files.
        backend: That the model was prepared for.
        code: Version of this project's code.
        code_files: sha256 of its files.
        model_files: sha256 of the model's files.
        pins: Packages of others.
        hashes: sha256 of their wheels, by ``name==version``.
        image: The base image, ``name:tag@sha256:...``.
        at: When the version was registered; a list that says when it was made would be another
            one each time.
    """

    task: str
    version: str
    digest: str
    backend: str
    code: str
    code_files: Mapping[str, str]
    model_files: Mapping[str, str]
    pins: tuple[Pin, ...]
    hashes: Mapping[str, str]
    image: str
    at: datetime


def make_sbom(contents: Contents) -> str:
    """The list as JSON, checked against the schema.

    Raises:
        EngineError: It does not keep to the schema.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    service = _service(contents)
    model, image = _model(contents), _image(contents.image)
    packages = {pin.key: _package(pin, contents.hashes) for pin in contents.pins}
    facts = (contents.digest, contents.code, contents.backend, contents.image)
    bom = Bom(
        components=[model, image, *packages.values()],
        serial_number=uuid.uuid5(_SPACE, "\n".join((*facts, *map(str, contents.pins)))),
        metadata=BomMetaData(component=service, timestamp=contents.at.astimezone(UTC)),
    )
    for pin in contents.pins:
        others = [packages[name] for name in packages if name in pin.requires]
        bom.register_dependency(packages[pin.key], others)
    required = {name for pin in contents.pins for name in pin.requires}
    direct = [part for key, part in packages.items() if key not in required]
    bom.register_dependency(service, [model, image, *direct])
    made = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    # The library writes sets in the order of their hashes.
    text = json.dumps(_ordered(json.loads(made)), indent=1, ensure_ascii=False) + "\n"
    validate(text)
    return text


def validate(text: str) -> None:
    """Check a list against the schema of CycloneDX 1.6.

    Raises:
        EngineError: It does not keep to it.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        said = str(error.data).splitlines()[0]
        raise EngineError(f"{FILE}: not CycloneDX 1.6: {said[:300]}")


def _service(contents: Contents) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=f"tamis-{contents.task}",
        version=contents.version,
        type=ComponentType.APPLICATION,
        bom_ref="service",
        description="Scores documents behind an HTTP API.",
        licenses=_licence("Apache-2.0"),
        properties=_properties({"tamis:code": contents.code, "tamis:backend": contents.backend}),
        components=_files("code", contents.code_files),
    )


def _model(contents: Contents) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=contents.task,
        version=contents.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        description="The registered classifier, prepared for the backend.",
        properties=_properties(
            {"tamis:digest": contents.digest, "tamis:backend": contents.backend}
        ),
        components=_files("model", contents.model_files),
    )


def _image(image: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    name, _, digest = image.partition("@")
    repository, _, tag = name.partition(":")
    link = PackageURL(
        "oci",
        name=repository,
        version=digest,
        qualifiers={"repository_url": f"docker.io/library/{repository}", "tag": tag},
    )
    return Component(
        name=repository,
        version=tag,
        type=ComponentType.CONTAINER,
        bom_ref="base-image",
        description="What the image is built on; its own contents are not listed here.",
        purl=link,
    )


def _package(pin: Pin, hashes: Mapping[str, str]) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    found = hashes.get(f"{pin.key}=={pin.version}")
    facts: Any = metadata.metadata(pin.key)
    link = PackageURL("pypi", name=pin.key, version=pin.version)
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(link),
        description=facts.get("Summary"),
        licenses=_licence(_licence_of(facts)),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=found)] if found else None,
        purl=link,
    )


def _licence_of(facts: Any) -> str:
    """What a package says of its licence: an expression, a name, or its classifiers."""
    stated = facts.get("License-Expression") or (facts.get("License") or "").strip()
    vague = stated.upper() in ("", "UNKNOWN", "DUAL LICENSE", "OTHER/PROPRIETARY LICENSE")
    if not vague and len(stated) <= _LONGEST and "\n" not in stated:
        return str(stated)
    named = [
        line.rpartition(" :: ")[2]
        for line in facts.get_all("Classifier") or ()
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    return ", ".join(named) or "not stated"


def _licence(stated: str) -> list[Any]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(stated)]


def _properties(values: Mapping[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=name, value=value) for name, value in values.items()]


def _files(kind: str, files: Mapping[str, str]) -> Iterable[Component]:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(
            name=name,
            type=ComponentType.FILE,
            bom_ref=f"{kind}/{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=found)],
        )
        for name, found in files.items()
    ]


def _ordered(value: Any) -> Any:
    """The same with lists in an order of their own, so that equal contents make equal files."""
    if isinstance(value, dict):
        return {key: _ordered(each) for key, each in value.items()}
    if isinstance(value, list):
        return sorted(
            (_ordered(each) for each in value), key=lambda x: json.dumps(x, sort_keys=True)
        )
    return value
