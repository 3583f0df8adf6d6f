"""Stages that do nothing but leave traces, and journals that kill their process."""

import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta

from deployment.alerting.channels import Delivery
from deployment.retraining.journal import Retrains, Run
from deployment.retraining.ledger import Ledger
from deployment.retraining.request import (
    Challenger,
    Facts,
    Labels,
    Released,
    Trigger,
    TriggerRequest,
)
from tamis.config import validate
from tamis.errors import EngineError
from tamis.monitoring.retrain_settings import RetrainPolicy

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANNOTATE = {"documents": 20, "documents_per_month": 50}


def policy(**given):
    return validate(RetrainPolicy, {"min_labelled": 10, **given}, "retrain")


def facts(**given):
    return Facts(**({"version": "1", "fingerprint": "f1", "documents": 100, "labelled": 30,
                     "drifted": True, "rings": True, "severity": "alarm"} | given))  # fmt: skip


def request(kind="cron", **given):
    return TriggerRequest(task="toy", stack="local", trigger=Trigger(kind=kind), **given)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(action):
    """Run something in a process of its own; whether it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException as error:
            sys.stderr.write(repr(error))
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


class FakeStages:
    """Traces in a folder: each call is a line, each version a line of what is registered once."""

    def __init__(self, folder, found=None, passed=True, end="promoted", wait=None, fails=None):
        self.folder, self.found = folder, found or facts()
        self.passed, self.end, self.wait, self.fails = passed, end, wait, fails
        self.messages = []
        folder.mkdir(exist_ok=True)

    def trace(self, name, line):
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def traces(self, name):
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls(self):
        return [call for call, _ in self.traces("calls")]

    def _call(self, name, work):
        self.trace("calls", (name, work.run))
        if self.fails == name:
            raise EngineError("the judge is away")

    def monitor(self, work):
        self._call("monitor", work)
        self.trace("windows", work.at.isoformat())
        if self.wait:
            self.wait()
        return self.found

    def annotate(self, work, facts, documents):
        self._call("annotate", work)
        return Labels(files=("labels.parquet",), asked=documents, labelled=documents - 1, by="m")

    def retrain(self, work, facts, labels):
        self._call("retrain", work)
        known = dict(self.traces("versions"))
        if facts.fingerprint not in known:
            known[facts.fingerprint] = str(len(known) + 2)
            self.trace("versions", (facts.fingerprint, known[facts.fingerprint]))
        reasons = () if self.passed else ("failed: gain: no better",)
        return Challenger(version=known[facts.fingerprint], passed=self.passed, reasons=reasons)

    def release(self, work, challenger):
        self._call("release", work)
        return Released(end=self.end, champion=challenger.version)

    def tell(self, message):
        self.trace("messages", message.title)
        return (Delivery("webhook", True, "told"),)


def books_at(folder, **how):
    """Books whose journal does as it is told: ``place`` is where it kills the process."""
    made = Retrains(str(folder / "ledger"), "toy")
    place, seen = how.get("place"), how.get("seen")

    def moment(here):
        if seen is not None:
            seen.append(here)
        if place == here:
            die()

    class ThisRun(Run):
        def write(self, event):
            here = (event.step, event.phase)
            moment((*here, "before"))
            super().write(event)
            moment((*here, "after"))

    class ThisLedger(Ledger):
        def append(self, key, entry):
            moment(("ledger", entry.action, "before"))
            super().append(key, entry)
            moment(("ledger", entry.action, "after"))

    made.run_kind = ThisRun
    made.ledger = ThisLedger(made.fs, made.ledger.folder)
    return made


def hours(number):
    return NOW + timedelta(hours=number)
