"""Engines that stop or wait in the middle of a pass, rows to compare, and a run that waits."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tamis.corpus.manifest import read_manifest, read_output, read_rows
from tamis.corpus.readers import list_shards
from tamis.corpus.settings import FilterSettings, NearDuplicateSettings
from tamis.corpus.store import PARTS, open_store
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


def snapshot(out, *but):
    """Content of every file below an output."""
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in Path(out).rglob("*")
        if file.is_file() and file.name not in but
    }


def on_disk(out):
    """Files of rows that are there."""
    return {f"{part}/{file.name}" for part in PARTS for file in Path(out, part).glob("*")}


def in_manifest(out):
    """Files of rows that the manifest names."""
    return {file.path for record in read_manifest(str(out)).shards for file in record.files}


def rows_on_disk(out):
    """Rows of the files that are there, whatever the manifest says."""
    store, found = open_store(str(out)), dict.fromkeys(PARTS, 0)
    for path in on_disk(out):
        parquet = path.endswith(".parquet")
        rows = (
            pq.read_metadata(Path(out, path)).num_rows
            if parquet
            else sum(1 for _ in read_rows(store, path))
        )
        found[path.partition("/")[0]] += rows
    return found


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
