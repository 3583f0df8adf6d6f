"""Whose records were asked to be deleted: hashes of ids, for what cannot be rewritten at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from tamis.monitoring.segments import FORGOTTEN, lines, sync_folder, write_atomically


class _Forgotten(msgspec.Struct, frozen=True):
    sha256: str
    at: datetime


class Forgotten:
    """The ids whose records, up to a moment, are not to be kept.

    Args:
        folder: Of the log.
    """

    def __init__(self, folder: Path) -> None:
        self._until: dict[str, datetime] = {}
        decode = msgspec.json.Decoder(_Forgotten).decode
        for item in lines(folder / FORGOTTEN):
            if isinstance(item, tuple):
                try:
                    found = decode(item[1])
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
                self._until[found.sha256] = max(found.at, self._until.get(found.sha256, found.at))

    def __len__(self) -> int:
        return len(self._until)

    def holds(self, document: str, at: datetime) -> bool:
        """Whether a record of a document, made at a moment, is to go."""
        if not self._until:
            return False
        until = self._until.get(hash_of(document))
        return until is not None and at <= until


def add(folder: Path, documents: Sequence[str], at: datetime) -> None:
    """Note that records of these documents, up to a moment, are to go; durably.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = [msgspec.json.encode(_Forgotten(hash_of(document), at)) for document in documents]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    with os.fdopen(os.open(folder / FORGOTTEN, flags, 0o600), "ab") as file:
        # An empty line first: the last one may have been torn.
        file.write(b"\n" + b"\n".join(made) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def expire(folder: Path, before: datetime) -> None:
    """Leave out entries from before a moment: nothing as old is kept any longer.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / FORGOTTEN
    if not path.exists():
        return
    current = Forgotten(folder)
    left = {name: at for name, at in current._until.items() if at >= before}
    if len(left) < len(current):
        made = [msgspec.json.encode(_Forgotten(name, at)) + b"\n" for name, at in left.items()]
        write_atomically(path, b"".join(made))


def hash_of(document: str) -> str:
    """sha256 of an id, in hexadecimal."""
    return hashlib.sha256(document.encode("utf-8", "replace")).hexdigest()
