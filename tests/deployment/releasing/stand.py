"""A stand for releases: real nginx, real processes of the stub service, a registry on disk."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import deployment
from deployment.ledger import Ledger, promote
from deployment.releasing.front import binary
from deployment.releasing.journal import Journals, Spec
from deployment.releasing.local import LocalTarget
from deployment.releasing.processes import Program, free_port
from deployment.releasing.run import Controller
from tamis.config import validate
from tamis.errors import EngineError, UsageError
from tamis.serving.release_settings import ReleaseSettings
from tests.deployment.releasing.load import ask

ROOT = Path(deployment.__file__).parent.parent
STUB = Path(__file__).with_name("stub_service.py")
FAST = {
    "min_requests": 20, "min_seconds": 0.0, "max_seconds": 20.0, "look_seconds": 0.05,
    "drain_seconds": 5.0, "ready_seconds": 10.0, "steps": [50],
}  # fmt: skip


def nginx_there():
    try:
        binary()
    except EngineError:
        return False
    return True


@dataclass
class FakeVersion:
    version: str


class FileRegistry:
    """Aliases in a file, so that a process that is killed leaves them as they were."""

    def __init__(self, path):
        self.path = path

    @property
    def aliases(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def with_alias(self, task, alias):
        return FakeVersion(self.aliases[alias]) if alias in self.aliases else None

    def champion(self, task):
        found = self.with_alias(task, "champion")
        if found is None:
            raise UsageError(f"{task}: no champion is registered")
        return found

    def get(self, task, version):
        return FakeVersion(version)

    def set_alias(self, task, alias, version):
        known = self.aliases
        known.pop(alias, None)
        if version is not None:
            known[alias] = version
        staged = self.path.with_suffix(".partial")
        staged.write_text(json.dumps(known))
        staged.replace(self.path)


class Stand:
    """Everything about releases of a task ``toy`` below one folder."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.port = free_port()
        given = FAST | {"local": {"port": self.port}} | settings
        self.settings = validate(ReleaseSettings, given, "release")
        self.registry = FileRegistry(folder / "aliases.json")
        self.ledger = Ledger(str(folder / "ledger"), "toy")
        self.journals = Journals(str(folder / "ledger"), "toy")
        self.log = folder / "requests"
        self.target = self.make_target()
        self.progress = []

    def make_target(self, kind=LocalTarget):
        return kind(
            self.folder / "serving", self.settings, self.program, log=self.log, task="toy"
        )  # fmt: skip

    def program(self, version, folder, port):
        # Without site-packages: it starts in a tenth of the time.
        command = [sys.executable, "-S", "-E", str(STUB), str(folder), str(port), str(self.log)]
        return Program(command, {"PATH": "/usr/bin:/bin"}, ROOT)

    def version(self, version, **how):
        folder = self.folder / "models" / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stub.json").write_text(json.dumps({"task": "toy", "version": version} | how))

    def folder_of(self, version):
        return self.folder / "models" / version

    def controller(self, journals=None, target=None):
        return Controller(
            "toy", self.registry, self.ledger, journals or self.journals, target or self.target,
            self.folder_of, self.settings, 1.0, self.progress.append,
        )  # fmt: skip

    def spec(self, version, strategy="canary", kind="release"):
        champion = self.registry.with_alias("toy", "champion")
        return Spec(
            kind=kind, version=version, champion=champion.version if champion else None,
            target="local", strategy=strategy, settings=self.settings, reasons=("gate passed",),
        )  # fmt: skip

    def serve(self, version="1", **how):
        """Make a version champion and have it serve."""
        self.version(version, **how)
        promote(self.registry, self.ledger, "toy", version, (), "test")
        return self.controller().release(self.spec(version, kind="deploy"))

    def agreed(self):
        """The one version that registry, ledger and traffic name; else what each of them says."""
        said = {
            self.registry.aliases.get("champion"),
            self.ledger.entries()[-1].champion,
            *self.target.state().shares,
            *self.ask_versions(),
        }
        return said.pop() if len(said) == 1 else said

    def ask_versions(self, times=5):
        return {ask(self.port, "agreed?")[1]["model"]["version"] for _ in range(times)}
