"""Look at an output: some documents of every group, and how many there are of each.

Sampling reads a bounded number of files and rows, whatever the size of the output; the counts
come from the manifest and cover all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from tamis.corpus.manifest import RunInfo, read_records, read_run
from tamis.corpus.store import open_store
from tamis.errors import DataError, UsageError
from tamis.scoring.inspection.account import Account
from tamis.scoring.inspection.models import (
    NEAR,
    PARTS,
    Broken,
    Group,
    Inspection,
    Part,
    Shown,
    Stays,
)
from tamis.scoring.inspection.rows import RowReader
from tamis.scoring.inspection.sample import Sampler

__all__ = ["Broken", "Group", "Inspection", "Shown", "Stays", "inspect_output"]

_WORDS = ("kept", "near", "dropped", "duplicates", "quarantined")


def inspect_output(
    out: str, per_group: int = 8, seed: int = 0, only: Sequence[str] = (), text: int = 1_500
) -> Inspection:
    """Look at some documents of every group of an output; its run may be unfinished.

    Kept documents and those of each reason are drawn at random from the files that are looked at.
    Those near the threshold are the nearest of every shard's account and of what was looked at.

    Args:
        out: Local folder or fsspec URL.
        per_group: Most documents of a group.
        seed: Of the choice of files and rows.
        only: ``kept``, ``near``, ``dropped``, ``duplicates``, ``quarantined`` or reasons; all by
            default.
        text: Characters of a document's text.

    Raises:
        UsageError: There is no output of ours, or ``only`` has an unknown name.
        DataError: Its manifest is damaged.
    """
    store = open_store(out)
    run = read_run(store)
    account = Account(per_group)
    try:
        for record in read_records(store):
            account.add(record)
    except ValidationError as error:
        told = error.errors()[0]["msg"]
        raise DataError(f"{out}: a summary in the manifest is damaged ({told})") from None
    account.shards.sort(key=lambda shard: shard.position)
    wanted = _wanted(account, only)
    reader = RowReader(store, text)
    sampler = Sampler(account, reader, per_group, seed)
    groups = [group for part in PARTS for group in sampler.groups(part, wanted[part])]
    low, high, threshold = account.scale or (0.0, 0.0, None)
    expected = _expected(run)
    return Inspection(
        output=out,
        model=run.fingerprint.get("model", ""),
        # The report is written at the end of a run.
        finished="report.json" in store.names() and expected in (None, len(account.shards)),
        shards=len(account.shards),
        expected=expected,
        counts=account.counts,
        threshold=threshold,
        low=low,
        high=high,
        histogram=tuple(account.histogram.tolist()),
        groups=tuple(groups),
        looked_at=reader.looked_at,
        problems=reader.problems,
    )


def _expected(run: RunInfo) -> int | None:
    """Shards of the input: their number leads its part of the fingerprint."""
    number = run.fingerprint.get("input", "").partition(" files ")[0]
    return int(number) if number.isdecimal() else None


def _wanted(account: Account, only: Sequence[str]) -> dict[Part, list[str]]:
    """Names of the groups to fill, by part, in the order to show them."""
    every: dict[Part, list[str]] = {part: account.reasons(part) for part in PARTS}
    reasons = [name for part in PARTS[1:] for name in every[part]]
    every["kept"] = ["kept"]
    if account.scale is not None:
        every["kept"].append(NEAR["kept"])
        every["dropped"].insert(0, NEAR["dropped"])
    for name in only:
        if name not in _WORDS and name not in reasons:
            there = ", ".join([*_WORDS, *reasons])
            raise UsageError(f"--only: given {name!r}; there is {there}")
    if not only:
        return every
    chosen = set(only)
    if "near" in chosen:
        chosen |= set(NEAR.values())
    if "quarantined" in chosen:
        chosen.add("quarantine")
    return {
        part: names if part in chosen else [name for name in names if name in chosen]
        for part, names in every.items()
    }
