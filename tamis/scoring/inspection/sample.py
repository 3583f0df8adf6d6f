"""Draws the documents of groups, one part of an output at a time."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tamis.scoring.inspection.account import BELOW, Account, ShardFiles
from tamis.scoring.inspection.models import (
    EXCERPT,
    NEAR,
    Group,
    Part,
    Shown,
    Stays,
    broken_of,
    from_example,
    shown_of,
)
from tamis.scoring.inspection.rows import (
    Block,
    Lowest,
    Pick,
    Row,
    RowReader,
    file_random,
    offer_by_reason,
)

FILES = 12
"""Most shards of a part that are looked at for a sample of all its groups."""
FEWEST_FILES = 4
"""So many are looked at, if there are, even where fewer would fill the groups."""
RARE_FILES = 4
"""Most further shards that are looked at for one rare reason."""

_PLACE = re.compile(r"(\d{1,18})#(\d{1,18})")


@dataclass
class _Draw:
    """What is wanted of a part, and what was offered so far."""

    part: Part
    groups: dict[str, Lowest]
    near: Lowest | None
    shards: dict[str, ShardFiles] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        wanted = [*self.groups.values(), *([self.near] if self.near else [])]
        return all(group.full for group in wanted)


class Sampler:
    """Draws documents.

    Args:
        account: Of the output.
        reader: Of its files.
        size: Most documents of a group.
        seed: Of the choice of files and rows.
    """

    def __init__(self, account: Account, reader: RowReader, size: int, seed: int) -> None:
        self.account, self.reader = account, reader
        self.size, self.seed = size, seed

    def groups(self, part: Part, names: Sequence[str]) -> Iterator[Group]:
        """Groups of a part, filled as far as was found."""
        if not names:
            return
        totals = self.account.totals[part]
        close = NEAR.get(part)
        on_side = totals["kept" if part == "kept" else BELOW]
        draw = _Draw(
            part,
            {name: Lowest(self.size, totals[name]) for name in names if name != close},
            Lowest(self.size, on_side) if close in names else None,
        )
        self._scan(draw)
        for name in names:
            if name == close and draw.near is not None:
                near = tuple(self._near(draw, draw.near.picks()))
                yield Group(name=name, part=part, total=on_side, documents=near)
                continue
            rows = self._rows(draw.groups[name].picks(), draw)
            total = max(totals[name], len(rows))
            if part == "quarantine":
                broken = tuple(broken_of(row) for _, row in rows)
                yield Group(name=name, part=part, total=total, broken=broken)
                continue
            shown = sorted((shown_of(*found) for found in rows), key=_best_first)
            if part == "duplicates":
                shown = self._with_stays(shown)
            yield Group(name=name, part=part, total=total, documents=tuple(shown))

    def _scan(self, draw: _Draw) -> None:
        """Offer the rows of some shards, and of more for what is rare."""
        shards = [shard for shard in self.account.shards if shard.files.get(draw.part)]
        random.Random(f"{self.seed} {draw.part}").shuffle(shards)
        for number, shard in enumerate(shards):
            if number >= (FEWEST_FILES if draw.full else FILES):
                break
            self._offer(draw, shard)
        for name, group in draw.groups.items():
            having = [s for s in shards if s.reasons[draw.part].get(name)]
            left = [s for s in having if not draw.shards.keys() & set(s.files[draw.part])]
            for shard in left[:RARE_FILES]:
                if not group.full:
                    self._offer(draw, shard)

    def _offer(self, draw: _Draw, shard: ShardFiles) -> None:
        for path in shard.files[draw.part]:
            draw.shards[path] = shard
            rng = file_random(self.seed, path)
            for block in self.reader.blocks(path, rng):
                offer_by_reason(
                    path, block, draw.groups, rng, "kept" if draw.part == "kept" else ""
                )
                if draw.near is not None:
                    self._offer_near(draw.near, draw.part, path, block)

    def _offer_near(self, near: Lowest, part: Part, path: str, block: Block) -> None:
        side = np.isfinite(block.scores)
        if part == "dropped":
            side &= block.scores < self.account.threshold
        where = np.flatnonzero(side)
        near.offer(path, block, where, np.abs(block.scores[where] - self.account.threshold))

    def _rows(self, picks: Sequence[Pick], draw: _Draw) -> list[tuple[int, Row]]:
        """Rows of picks, in their order, each with the position of its shard."""
        found = self.reader.complete(picks)
        keys = [(pick.path, pick.index) for pick in picks]
        return [(draw.shards[key[0]].position, found[key]) for key in keys if key in found]

    def _near(self, draw: _Draw, picks: Sequence[Pick]) -> list[Shown]:
        """The nearest of the shards' accounts and of what was looked at, nearest first."""
        seen = [shown_of(position, row) for position, row in self._rows(picks, draw)]
        found = {(shown.position, shown.row): shown for shown in seen}
        examples = self.account.nearest(draw.part)
        missing = [key for key in examples if key not in found]
        whole = self._lookup(missing, (draw.part,))
        for key in missing:
            row = whole.get(key)
            found[key] = (
                from_example(key[0], examples[key]) if row is None else shown_of(key[0], row)
            )
        ranked = sorted(found.values(), key=self._distance)
        return ranked[: self.size]

    def _distance(self, shown: Shown) -> tuple[float, int, int]:
        score = self.account.threshold if shown.score is None else shown.score
        return (abs(score - self.account.threshold), shown.position, shown.row)

    def _with_stays(self, duplicates: Sequence[Shown]) -> list[Shown]:
        """Duplicates with the documents that stay in their place, where those are found."""
        places = [_place(shown) for shown in duplicates]
        wanted = [place for place in places if place is not None]
        found = self._lookup(wanted, ("kept", "dropped", "duplicates"))
        result = []
        for shown, place in zip(duplicates, places, strict=True):
            row = found.get(place) if place is not None else None
            if row is not None:
                other = shown_of(0, row)
                stays = Stays(
                    shard=other.shard,
                    row=other.row,
                    score=other.score,
                    reason=other.reason,
                    text=other.text[:EXCERPT],
                )
                shown = shown.model_copy(update={"stays": stays})
            result.append(shown)
        return result

    def _lookup(
        self, places: Sequence[tuple[int, int]], parts: Sequence[Part]
    ) -> dict[tuple[int, int], Row]:
        """Rows by position of the shard and row, as far as they are in these parts."""
        wanted: dict[int, set[int]] = defaultdict(set)
        for position, row in places:
            wanted[position].add(row)
        found: dict[tuple[int, int], Row] = {}
        for shard in self.account.shards:
            left = wanted.get(shard.position, set())
            for path in (path for part in parts for path in shard.files.get(part, ())):
                if left:
                    rows = self.reader.numbered(path, left)
                    found |= {(shard.position, number): row for number, row in rows.items()}
                    left = left - rows.keys()
        return found


def _place(shown: Shown) -> tuple[int, int] | None:
    place = _PLACE.fullmatch(shown.duplicate_of or "")
    return (int(place[1]), int(place[2])) if place else None


def _best_first(shown: Shown) -> tuple[float, int, int]:
    score = float("-inf") if shown.score is None else shown.score
    return (-score, shown.position, shown.row)
