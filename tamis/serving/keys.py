"""API keys: several, revocable, only their hashes kept.

A key is 32 random bytes, so one round of SHA-256 is enough: there is nothing to guess from.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tamis.config import Items, Strict
from tamis.errors import UsageError

PREFIX = "tamis_"
_LONGEST = 256


class ApiKey(Strict):
    """One key.

    Attributes:
        name: Whose it is; it stands in metrics and logs, the key nowhere.
        hash: sha256 of the key, in hexadecimal.
        revoked: Whether it has been taken back.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    revoked: bool = False


class ApiKeys(Strict):
    """The keys of a service."""

    keys: Items[ApiKey] = ()

    def who(self, key: str) -> str | None:
        """The name behind a key; None where it is unknown or revoked.

        Every hash is compared, and in constant time, so that the time tells nothing.
        """
        given = hash_of(key) if len(key) <= _LONGEST else ""
        found = None
        for known in self.keys:
            if hmac.compare_digest(known.hash, given) and not known.revoked:
                found = known.name
        return found


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    """A key that nobody has."""
    return PREFIX + secrets.token_urlsafe(32)


def parse_keys(content: str, name: str) -> ApiKeys:
    """Keys from the content of a file or a variable.

    Raises:
        UsageError: It is no such JSON; what stands in it is not repeated.
    """
    try:
        return ApiKeys.model_validate_json(content)
    except ValueError:
        allowed = '{"keys": [{"name": "...", "hash": "sha256 of the key, in hexadecimal"}]}'
        raise UsageError(f"{name}: given something else; allowed: {allowed}") from None


def read_keys(path: Path) -> ApiKeys:
    """The keys of a file; none where there is no file.

    Raises:
        UsageError: It cannot be read, or holds something else.
    """
    try:
        return parse_keys(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        return ApiKeys()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: given a file that cannot be read ({error})") from None


def write_keys(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace a file of keys at once; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.partial")
    staged.touch(mode=0o600)
    staged.write_text(ApiKeys(keys=tuple(keys)).model_dump_json(indent=1) + "\n", "utf-8")
    staged.replace(path)


class KeyRing:
    """Keys that follow their file: one that is added or revoked counts within a second.

    Args:
        fixed: Keys from the environment.
        path: Of the file, if there is one.

    Raises:
        UsageError: The file holds something else.
    """

    def __init__(self, fixed: ApiKeys, path: Path | None) -> None:
        self._fixed, self._path = fixed, path
        self._seen: tuple[int, int, int] | None = None
        self._keys = fixed
        self.refresh()

    def __len__(self) -> int:
        return sum(not key.revoked for key in self._keys.keys)

    def who(self, key: str) -> str | None:
        """The name behind a key; None where it is unknown or revoked."""
        return self._keys.who(key)

    def refresh(self) -> None:
        """Read the file again if it is another one.

        Raises:
            UsageError: It holds something else; the keys stay as they were.
        """
        if self._path is None:
            return
        try:
            found = self._path.stat()
            state = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            state = (0, 0, 0)
        if state != self._seen:
            self._keys = ApiKeys(keys=(*self._fixed.keys, *read_keys(self._path).keys))
            self._seen = state
