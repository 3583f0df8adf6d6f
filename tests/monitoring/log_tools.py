"""Records to log, and a process that logs until it is killed."""

import sys
import textwrap
from datetime import UTC, datetime

from tamis.monitoring.log_settings import RequestLogSettings
from tamis.monitoring.request_log import RequestLog, RequestRecord

NOON = datetime(2026, 3, 14, 12, 0, tzinfo=UTC)
TEXT = "The teacher explains how plants make sugar from light, water and air. "


def record(number=0, text=TEXT, **given):
    """A record that was served just now."""
    facts = {
        "id": f"doc-{number}",
        "request_id": f"request-{number}",
        "index": 0,
        "at": datetime.now(UTC),
        "model_version": "toy/1",
        "score": 2.5,
        "decision": "keep",
        "characters": len(text or ""),
        "tokens": 9,
        "text": text,
    }
    return RequestRecord(**{**facts, **given})


def fill(folder, records, **settings):
    """Log records and close the log."""
    log = RequestLog(folder, RequestLogSettings(**settings), "toy/1")
    for each in records:
        assert log.put(each)
    log.close()
    return log


LOGGER = textwrap.dedent("""
    import os, sys, time
    from datetime import UTC, datetime
    from pathlib import Path
    from tamis.monitoring.log_settings import RequestLogSettings
    from tests.monitoring.log_tools import TEXT, record
    from tamis.monitoring.request_log import RequestLog

    folder, told, rate = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    settings = RequestLogSettings(keep="masked", segment_bytes=1 << 18, segment_seconds=0.7)
    log = RequestLog(folder, settings, "toy/1")
    out = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    text = "Write to jane@example.org. " + TEXT * 20
    number = 0
    while True:
        served = record(number, f"{number} {text}", id=f"{os.getpid()}-{number}")
        if log.put(served):
            # What a client would have seen: the answer, and when.
            os.write(out, f"{served.id} {served.at.timestamp()}\\n".encode())
        number += 1
        time.sleep(1 / rate)
    """)


def logger(folder, told, rate):
    """The command of a process that logs at a rate, and tells a file what it has answered."""
    return [sys.executable, "-c", LOGGER, str(folder), str(told), str(rate)]
