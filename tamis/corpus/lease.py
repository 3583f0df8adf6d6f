"""A lock for object stores: an object that its holder renews, and that lapses when it stops.

The lock is made by exclusive creation, which the stores in ``_EXCLUSIVE`` check on their side
(a PUT that fails where an object exists). Elsewhere it is written, left alone for a moment and
read back; two runs that begin in the same seconds may then both be told yes, and one of them
finds out before its first commit. A lapsed lock is taken over by whoever creates the one object
named after its holder, so that of several runs one goes on.

As with every lease, a holder that is suspended between its check and its write can write once
after it lost the lock; what it writes then is a whole record of a whole shard. Clocks of the
machines must agree within minutes.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec

from tamis.errors import EngineError, OutputBusy, UsageError

RENEW_SECONDS = 60.0
STALE_SECONDS = 600.0
SETTLE_SECONDS = 3.0

# Google Cloud Storage, S3 (s3fs from 2024.10) and Azure (adlfs from 2024.12).
_EXCLUSIVE = frozenset({"memory", "gs", "gcs", "s3", "s3a", "abfs", "abfss", "az"})
_LARGEST = 4_096
_Moment = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class Held(msgspec.Struct, frozen=True):
    """Content of the lock object.

    Attributes:
        holder: Random name of this hold.
        host: Name of the machine.
        pid: Process on it.
        started: When it was taken, in seconds since 1970.
        renewed: When it was last renewed, likewise.
        kernel: Tells apart machines and containers; empty where nothing does.
    """

    holder: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]
    host: str
    pid: Annotated[int, msgspec.Meta(gt=0, lt=1 << 31)]
    started: _Moment
    renewed: _Moment
    kernel: str = ""


class Lease:
    """One hold on one lock object; ``acquire`` once, ``check`` before each commit, ``release``.

    Args:
        fs: fsspec file system.
        path: The lock object in it.
        url: What to call the output in errors.
        renew_seconds: How often a thread renews it; 0 starts none (call ``renew``).
        stale_seconds: Age from which a lock that was not renewed may be taken over.
        clock: Seconds since 1970.
        sleep: Waits so many seconds, where a store has no exclusive creation.

    Attributes:
        holder: Random name of this hold.
    """

    def __init__(
        self,
        fs: Any,
        path: str,
        url: str,
        *,
        renew_seconds: float = RENEW_SECONDS,
        stale_seconds: float = STALE_SECONDS,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.fs, self.path, self.url = fs, path, url
        self.renew_seconds, self.stale_seconds = renew_seconds, stale_seconds
        self.clock, self.sleep = clock, sleep
        self.holder = secrets.token_hex(8)
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self._exclusive = bool(protocols & _EXCLUSIVE)
        self._held: Held | None = None
        self._lost = False
        self._mutex = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, and keep it renewed from here on.

        Raises:
            OutputBusy: Another run holds it.
            UsageError: Its object is not one of ours.
            OSError: The storage failed.
        """
        now = self.clock()
        mine = Held(self.holder, socket.gethostname(), os.getpid(), now, now, _kernel())
        if not self._create(self.path, mine):
            found = self._read()
            if found is None:  # given back in between
                if not self._create(self.path, mine):
                    self._refuse(self._read())
            elif not self._lapsed(found) or not self._take_over(found, mine):
                self._refuse(self._read() or found)
        self._held = mine
        if self.renew_seconds:
            self._thread = threading.Thread(target=self._keep, daemon=True, name="tamis-lease")
            self._thread.start()

    def renew(self) -> None:
        """Write a new time into the lock, unless it was lost.

        Raises:
            OSError: The storage failed; the lock is held until it lapses.
        """
        with self._mutex:
            if self._still_ours() and self._held is not None:
                self._held = msgspec.structs.replace(self._held, renewed=self.clock())
                self._write(self.path, self._held)

    def check(self) -> None:
        """Do nothing while the lock is ours.

        Raises:
            EngineError: It lapsed, or another run took it.
            OSError: The storage failed.
        """
        with self._mutex:
            if not self._still_ours():
                raise EngineError(
                    f"the lock on {self.url} was lost: this run did not renew it for "
                    f"{_duration(self.stale_seconds)}, or another run took it or removed it; "
                    "nothing more is written, the same command resumes"
                )

    def release(self) -> None:
        """Give the lock back, if it is still ours; a storage that fails leaves it to lapse."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with self._mutex, suppress(OSError):
            if self._still_ours():
                self.fs.rm_file(self.path)
            self._lost, self._held = True, None

    def _keep(self) -> None:
        while not self._end.wait(self.renew_seconds) and not self._lost:
            with suppress(Exception):  # tried again; ``check`` tells when it lapses meanwhile
                self.renew()

    def _still_ours(self) -> bool:
        held = self._held
        if held is None or self._lost:
            return False
        lapsed = self.clock() - held.renewed >= self.stale_seconds
        found = None if lapsed else self._read()
        self._lost = found is None or found.holder != self.holder
        return not self._lost

    def _lapsed(self, found: Held) -> bool:
        return self.clock() - found.renewed >= self.stale_seconds or _is_dead(found)

    def _take_over(self, found: Held, mine: Held) -> bool:
        # Named by holder and age: one winner each time, and another chance should that one die.
        turn = max(0, int((self.clock() - found.renewed) // self.stale_seconds))
        claim = f"{self.path}-{found.holder}-{turn}"
        if not self._create(claim, mine):
            return False
        try:
            if self._read() != found:
                return False
            self._write(self.path, mine)
            return True
        finally:
            with suppress(OSError):
                self.fs.rm_file(claim)

    def _create(self, path: str, mine: Held) -> bool:
        """Exclusive creation; whether the object is ours now."""
        if not self._exclusive:
            if self._read(path) is not None:
                return False
            self._write(path, mine)
            self.sleep(SETTLE_SECONDS)
            return self._read(path) == mine
        try:
            self.fs.pipe_file(path, msgspec.json.encode(mine), mode="create")
        except FileExistsError:
            # A client that repeats a request whose answer was lost meets its own object.
            found = self._read(path)
            return found is not None and found.holder == self.holder
        return True

    def _write(self, path: str, held: Held) -> None:
        self.fs.pipe_file(path, msgspec.json.encode(held))

    def _read(self, path: str | None = None) -> Held | None:
        try:
            return msgspec.json.decode(
                self.fs.cat_file(path or self.path, start=0, end=_LARGEST), type=Held
            )
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UsageError(
                f"the lock {path or self.path} of {self.url} cannot be read; "
                "remove it if no other run is writing there"
            ) from None

    def _refuse(self, found: Held | None) -> NoReturn:
        held = ""
        if found is not None:
            now = self.clock()
            left = max(0.0, found.renewed + self.stale_seconds - now)
            held = (
                f" (process {found.pid} on {found.host[:64]!r} has held it for "
                f"{_duration(now - found.started)}; if that run is dead, its lock lapses in "
                f"{_duration(left)})"
            )
        raise OutputBusy(
            f"another run is writing to {self.url}{held}; wait for its end or choose another output"
        )


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 120 else f"{whole // 60} min"


def _kernel() -> str:
    """A name for this boot and process namespace; empty where there is none (not Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _is_dead(found: Held) -> bool:
    """Whether the holder ran here, where we can see that it runs no more."""
    if not found.kernel or found.kernel != _kernel():
        return False
    try:
        os.kill(found.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
