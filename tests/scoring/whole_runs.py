"""Engines that stop or wait in the middle of a pass, rows to compare, and a run that waits."""

import json
import sys

from tamis.corpus.manifest import read_output
from tamis.corpus.readers import list_shards
from tamis.corpus.settings import FilterSettings, NearDuplicateSettings
from tamis.corpus.store import PARTS
from tamis.engine.local import LocalEngine
from tamis.errors import EngineError
from tamis.scoring.filter_run import run_filter
from tamis.scoring.passes import finish_shard
from tests.scoring import filter_stubs as stubs

FEW_BANDS = NearDuplicateSettings(bands=3, rows=2)
"""Enough to find nearly all near-duplicates, in few passes."""
SMALL = FilterSettings(near_duplicates=FEW_BANDS)


def lines(rows):
    """Rows as JSON with sorted keys, ordered by id."""
    return sorted((row.get("id", ""), json.dumps(row, sort_keys=True)) for row in rows)


def parts(out):
    """All rows of an output by part; hashes of the files are compared on the way."""
    return {part: lines(read_output(str(out), part, verify=True)) for part in PARTS}


class Interrupted(LocalEngine):
    """Works in this process; calls ``act`` once ``after`` items of the pass ``work`` are done."""

    def __init__(self, act, work=finish_shard, after=2):
        super().__init__(0)
        self.act, self.work, self.after = act, work, after

    def run(self, items, work, on_done, **more):
        if work is not self.work:
            super().run(items, work, on_done, **more)
            return
        super().run(items[: self.after], work, on_done, **more)
        self.act()
        super().run(items[self.after :], work, on_done, **more)


class Borrowed:
    """An engine that stays open when a run is done with it."""

    def __init__(self, engine):
        self.engine = engine

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def stop():
    raise EngineError("stopped on purpose")


def run(corpus, out, engine=None, fresh=False, **changes):
    """A whole run, with exact and near-duplicates unless told otherwise."""
    plan = stubs.make_plan(out, **{"filter": SMALL, **changes})
    shards = list_shards([str(corpus)])
    return run_filter(plan, shards, None, engine or LocalEngine(0), fresh, stubs.quiet)


def wait():
    """Say that the run has come this far, and go on when told."""
    sys.stdout.write("waiting\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    run(*sys.argv[1:], Interrupted(wait))
