"""A filter to be broken, importable by workers of both engines, and storages that fail."""

import os
import random
import resource
import sys
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tamis.corpus.readers import list_shards
from tamis.corpus.settings import FilterSettings
from tamis.engine.local import LocalEngine
from tamis.errors import TamisError
from tamis.scoring.filter_run import run_filter
from tests.scoring import filter_stubs as stubs

_chance = random.Random(os.getpid())


class FlakyFile:
    """Fails in the middle of being read, now and then."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw

    def read(self, size: int = -1) -> bytes:
        if _chance.random() < 0.1:
            raise OSError("the storage hung up")
        return self.raw.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def __enter__(self) -> "FlakyFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.raw.close()


class Flaky(LocalFileSystem):
    """Local files through a storage that fails at random."""

    protocol = "flaky"

    def open(self, path, mode="rb", **more):
        if _chance.random() < 0.1:
            raise OSError("the storage did not answer")
        return FlakyFile(super().open(path, mode, **more))

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("flaky://"))

    def unstrip_protocol(self, name):
        return f"flaky://{name}"


class ReadOnly(LocalFileSystem):
    """A storage that takes nothing."""

    protocol = "readonly"

    def put_file(self, *given, **more):
        raise OSError(30, "Read-only file system")

    pipe_file = put_file

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("readonly://"))


fsspec.register_implementation("flaky", Flaky, clobber=True)
fsspec.register_implementation("readonly", ReadOnly, clobber=True)


class Tokenizing(stubs.Stub):
    """A stub whose first half runs in the process that reads and writes, as a real model's does."""

    def prepare(self, texts):
        return list(texts)

    def score_tokens(self, tokens):
        return self.score(tokens)

    @staticmethod
    def preparer_loader(model_dir):
        return load


def load(model_dir: str) -> Tokenizing:
    """A stub scorer; ``fsize=BYTES`` fills the disk of the process that writes."""
    scorer = Tokenizing(model_dir)
    if "fsize" in scorer.settings:
        most = int(scorer.settings["fsize"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return scorer


def main() -> None:
    corpus, out, engine_name, model_dir = sys.argv[1:]
    engine: Any = LocalEngine(2)
    if engine_name == "ray":
        from tamis.engine.ray import RayEngine

        engine = RayEngine(workers=2)
    plan = stubs.make_plan(out, model_dir, filter=FilterSettings(), threshold=2.0, load=load)
    try:
        run_filter(plan, list_shards([corpus]), engine=engine, progress=stubs.quiet)
    except TamisError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    # As a module of that name, so that workers can import what they are sent.
    from tests.faults.fault_stubs import main as run

    run()
