"""The request log: what a service answered, kept for monitoring without making anybody wait.

``put`` adds a record to a bounded list in memory. A thread takes what is there several times a
second, masks texts, tells languages, and appends JSON lines to a segment (``segments``). What
does not fit is dropped and counted, here and in the log. ``windows`` makes Parquet of segments.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tamis.errors import OutputBusy, UsageError
from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.segments import SEGMENTS, SETTINGS, SegmentWriter, write_atomically

logger = logging.getLogger("tamis.monitoring")

_AT_ONCE = 64
"""Records written together: what is prepared and not yet written is lost with the process."""
_SLACK = 400
"""Characters read beyond what is kept, so that no personal data are cut in two and missed."""
_LANGUAGE_CHARACTERS = 500
_LARGEST_EMBEDDING = 8_192
_HALF_FULL = 2


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="served"):
    """One document that was scored.

    Attributes:
        id: Of the document: the client's, or ``REQUEST_ID-INDEX``.
        request_id: Of the request it came in.
        index: Its place in the request.
        at: When it was scored, UTC.
        model_version: ``TASK/VERSION``.
        score: On the task's scale.
        decision: ``keep`` or ``drop``.
        characters: Of the text as it came.
        tokens: As the model counted them.
        language: ISO 639; None has the log tell it.
        text: The text; the log keeps of it what its settings say.
        embedding: The model's vector (d,), of anything that numpy makes an array of.
        shadow: Whether the answer was only compared, not given.
        key: Name of the API key, so that only its owner's labels count; None where there is none.
    """

    id: str
    request_id: str
    index: int
    at: datetime
    model_version: str
    score: float
    decision: str
    characters: int
    tokens: int
    language: str | None = None
    text: str | None = None
    embedding: Any = None
    shadow: bool = False
    key: str | None = None


class Dropped(msgspec.Struct, frozen=True, tag_field="kind", tag="dropped"):
    """Records that were dropped since the last line of this kind.

    Attributes:
        at: When that was noticed, UTC.
        count: How many.
    """

    at: datetime
    count: int


class RequestLog:
    """A log that one process writes to; several may share a folder.

    Args:
        folder: Of the log; made if it is not there.
        settings: What is kept, and how.
        model: ``TASK/VERSION``, for whoever looks into the folder.

    Attributes:
        written: Records that were handed to the operating system.
        dropped: Records that were not: the queue was full, or the disk failed.

    Raises:
        UsageError: The folder cannot be written to, or personal data cannot be masked.
    """

    def __init__(self, folder: Path, settings: RequestLogSettings, model: str) -> None:
        self.folder, self.settings = folder, settings
        self.written = self.dropped = 0
        self._told = 0
        self._lock = threading.Lock()
        self._pending: list[RequestRecord] = []
        self._characters = 0
        self._records, self._most = settings.queue_records, settings.queue_characters
        self._half = max(1, settings.queue_records // _HALF_FULL)
        self._cut = _characters_needed(settings)
        self._open = settings.enabled
        self._ended = threading.Event()
        self._due = threading.Event()
        if not settings.enabled:
            return
        self._prepare = Preparation(settings)
        try:
            segments = folder / SEGMENTS
            self._out = SegmentWriter(segments, settings.segment_bytes, settings.segment_seconds)
            facts = {"model": model, "settings": settings.model_dump(mode="json")}
            write_atomically(folder / SETTINGS, msgspec.json.encode(facts) + b"\n")
        except OSError as error:
            raise UsageError(f"request log {str(folder)!r} cannot be written: {error}") from None
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def put(self, record: RequestRecord) -> bool:
        """Take a record in, without waiting; False where there is no room and it is dropped."""
        text = record.text
        length = 0
        if text is not None:
            length = len(text)
            if length > self._cut:
                length = self._cut
                record = msgspec.structs.replace(record, text=text[:length])
        with self._lock:
            waiting = len(self._pending)
            full = waiting >= self._records or self._characters + length > self._most
            # A text longer than the queue has to fit into an empty one.
            if (full and waiting) or not self._open:
                self.dropped += 1
                return False
            self._pending.append(record)
            self._characters += length
        if waiting == self._half:
            self._due.set()
        return True

    @property
    def pending(self) -> int:
        """Records that wait to be written."""
        return len(self._pending)

    def close(self, timeout: float = 10.0) -> None:
        """Write what waits and end the thread; what comes later is dropped.

        Args:
            timeout: Seconds to wait for that.
        """
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            self._ended.set()
            self._due.set()
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._due.wait(self.settings.flush_seconds)
            ended = self._ended.is_set()
            self._due.clear()
            try:
                self._flush()
                if self._out.rotate():
                    self._tidy()
            except Exception:  # a writer that died would drop all that comes, in silence
                logger.exception("request log: a flush failed")
            if ended:
                break
        self._out.close()

    def _flush(self) -> None:
        """Write all that waits, some records at a time."""
        with self._lock:
            taken, self._pending = self._pending, []
            self._characters = 0
        for first in range(0, len(taken), _AT_ONCE):
            self._write(taken[first : first + _AT_ONCE])
        taken.clear()
        untold = self.dropped - self._told
        if untold:
            try:
                line = msgspec.json.encode(Dropped(datetime.now(UTC), untold))
                self._out.append(line + b"\n")
                self._told += untold
            except OSError as error:
                logger.error("request log: %s", error)
        if self.settings.sync == "flush":
            self._out.sync()

    def _write(self, records: Sequence[RequestRecord]) -> None:
        found = [line for line in map(self._line, records) if line is not None]
        failed = len(records) - len(found)
        try:
            self._out.append(b"".join(found))
            self.written += len(found)
        except OSError as error:
            failed = len(records)
            logger.error("request log: %d records are lost: %s", failed, error)
        if failed:
            with self._lock:
                self.dropped += failed

    def _line(self, record: RequestRecord) -> bytes | None:
        try:
            return self._prepare(record)
        except Exception as error:  # of one record, whatever a caller put into it
            logger.error("request log: a record is lost: %s", type(error).__name__)
            return None

    def _tidy(self) -> None:
        """Hold the log to its limits; where another process is at it, leave it to that one."""
        from tamis.monitoring.retention import purge

        try:
            purge(self.folder, self.settings, datetime.now(UTC))
        except OutputBusy:
            return


class Preparation:
    """Makes a line of a record: tells the language, masks, and leaves out what is not to stay.

    Args:
        settings: What is kept.

    Raises:
        UsageError: Personal data are to be masked, and what that takes is not installed, or a
            region is none.
    """

    def __init__(self, settings: RequestLogSettings) -> None:
        self._keep = settings.keep
        self._most = settings.text_characters
        self._encode = msgspec.json.Encoder().encode
        self._language = settings.language
        self._identify: Callable[[str], tuple[str, float]] | None = None
        self._mask = _masking(settings.pii_regions) if settings.keep == "masked" else None

    def __call__(self, record: RequestRecord) -> bytes:
        """A line, with its line feed."""
        text, language = record.text, record.language
        if language is None and text is not None and self._language:
            language = self._tell(text)
        vector = record.embedding
        record = msgspec.structs.replace(
            record,
            language=language,
            text=self._kept(text) if text is not None else None,
            embedding=_packed(vector) if self._keep == "embedding" and vector is not None else None,
        )
        try:
            return self._encode(record) + b"\n"
        except UnicodeEncodeError:
            return self._encode(_encodable(record)) + b"\n"

    def _kept(self, text: str) -> str | None:
        if self._keep not in ("text", "masked"):
            return None
        cut = len(text) > self._most
        if self._mask is None:
            return text[: self._most]
        masked = self._mask(text)[0]
        # What was cut off may have left half an address at the end, which no form tells.
        return masked[:-_SLACK][: self._most] if cut else masked

    def _tell(self, text: str) -> str | None:
        if self._identify is None:
            try:
                from tamis.corpus.language import LanguageFilter
                from tamis.corpus.settings import LanguageSettings

                identify = LanguageFilter(LanguageSettings()).identify
                identify("")
                identify("language")
            except ImportError as error:
                logger.warning("request log: languages are not told: %s", error)
                self._language = False
                return None
            self._identify = identify
        return self._identify(text)[0]


def _characters_needed(settings: RequestLogSettings) -> int:
    """Characters of a text that the writer has to see."""
    if settings.keep in ("text", "masked"):
        return settings.text_characters + _SLACK
    return _LANGUAGE_CHARACTERS if settings.language else 0


def _masking(regions: tuple[str, ...]) -> Callable[[str], tuple[str, dict[str, int]]]:
    from tamis.corpus.pii import PiiFilter
    from tamis.corpus.settings import PiiSettings

    try:
        mask = PiiFilter(PiiSettings(action="mask", regions=regions)).apply
        # Every library that masking takes is loaded by these two.
        mask("DE89 3704 0044 0532 0130 00, telephone +1 212 555 0123")
    except ImportError as error:
        raise UsageError(f"log.keep: given 'masked', which takes {error.name}") from None
    return mask


def _packed(vector: Any) -> bytes | None:
    """A vector as half-precision floats, little-endian; None for what is none."""
    import numpy as np

    with np.errstate(over="ignore"):
        array = np.asarray(vector, dtype="<f2").ravel()
    usable = 0 < array.size <= _LARGEST_EMBEDDING and np.isfinite(array).all()
    return array.tobytes() if usable else None


def _encodable(record: RequestRecord) -> RequestRecord:
    """The record with a question mark for each lone surrogate, which UTF-8 has no bytes for."""
    plain = {
        name: value.encode("utf-8", "replace").decode()
        for name in record.__struct_fields__
        if isinstance(value := getattr(record, name), str)
    }
    return msgspec.structs.replace(record, **plain)
