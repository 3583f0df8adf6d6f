"""What a package says of itself: ``package.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tamis.config import Strict
from tamis.errors import ModelError
from tamis.fingerprint import sha256_of
from tamis.models.backbone import file_sha256
from tamis.scoring.settings import BackendName

FILE = "package.json"


class Sizes(Strict):
    """Bytes of what an image holds besides its base; packages as they lie installed here."""

    code: int
    model: int
    packages: int


class Package(Strict):
    """A package.

    Attributes:
        task: The task.
        version: Of its model, in the registry.
        digest: sha256 over the registered classifier's files.
        registered: When the version was, ISO 8601.
        backend: That the model was prepared for.
        reason: Why that one.
        margin: Scores so near to the threshold are checked in fp32.
        threshold: Kept is what scores at least this.
        code: Version of the code in it.
        image: The base of its image.
        packages: How many packages of others it needs.
        hashed: Whether its lock file has their hashes.
        bento: Tag of the Bento.
        packed: When it was, ISO 8601, UTC.
        tried: Whether the service was started from it and gave the right score.
        inputs: sha256 over what it was made of: the same makes the same package.
        fingerprint: sha256 over all its files.
        files: sha256 of each, by its path.
        sizes: Bytes.
    """

    format: Literal[1] = 1
    task: str
    version: str
    digest: str
    registered: str
    backend: BackendName
    reason: str
    margin: float
    threshold: float
    code: str
    image: str
    packages: int
    hashed: bool
    bento: str
    packed: str
    tried: bool
    inputs: str
    fingerprint: str
    files: dict[str, str]
    sizes: Sizes


def hashes_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder but its record, by path.

    Raises:
        ModelError: A link is among them: it would not travel.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ModelError(f"{folder}: {name} is a link; remove the folder")
        if path.is_file() and name != FILE:
            found[name] = file_sha256(path)
    return found


def fingerprint_of(files: dict[str, str]) -> str:
    """sha256 over the files of a package."""
    return sha256_of(part for pair in sorted(files.items()) for part in pair)


def read_package(folder: Path) -> Package:
    """The record of a package, once its files are found to be those that it names.

    Raises:
        ModelError: There is none, it is damaged, or a file is another one.
    """
    try:
        found = Package.model_validate_json((folder / FILE).read_text("utf-8"))
        actual = hashes_of(folder)
    except OSError as error:
        raise ModelError(f"{folder}: {error.strerror or error}") from None
    except (ValidationError, UnicodeDecodeError):
        raise ModelError(f"{folder}: {FILE} is damaged or of another format") from None
    wrong = sorted(name for name, _ in set(actual.items()) ^ set(found.files.items()))
    if wrong or fingerprint_of(actual) != found.fingerprint:
        what = wrong[0] if wrong else FILE
        raise ModelError(f"{folder}: {what} is not as it was packed; remove the folder")
    return found
