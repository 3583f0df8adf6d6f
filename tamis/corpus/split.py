"""Train, validation and test, with no leak between them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from fractions import Fraction
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.model_selection import StratifiedGroupKFold

from tamis.corpus.dataset import Dataset
from tamis.corpus.dedup import connected, near_duplicate_clusters
from tamis.errors import DataError
from tamis.target import Target
from tamis.task import Split as Shares

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


class Assignment(BaseModel):
    """On which side each document stands.

    Attributes:
        fingerprint: Of the dataset that was split.
        sides: Ids by side, in the dataset's order.
        groups: Leak group of every document by id: one page, one module, near-duplicates.
        window: Ids of the documents that came in with a window, this one or an earlier one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    sides: dict[Side, tuple[str, ...]]
    groups: dict[str, str]
    window: tuple[str, ...] = ()

    def digest(self) -> str:
        """sha256 over documents and sides, in hexadecimal."""
        return hashlib.sha256(self.model_dump_json().encode("utf-8", "surrogatepass")).hexdigest()

    def rows(self, dataset: Dataset, side: Side) -> NDArray[np.int64]:
        """Positions in the dataset of the documents of a side."""
        wanted = set(self.sides[side])
        ids = dataset.table["id"].to_pylist()
        return np.array([row for row, name in enumerate(ids) if name in wanted], dtype=np.int64)

    def leak_groups(self, dataset: Dataset) -> NDArray[np.str_]:
        """Leak group of each document of the dataset (n,)."""
        return np.array([self.groups[name] for name in dataset.table["id"].to_pylist()], dtype=str)


def leak_groups(dataset: Dataset) -> NDArray[np.str_]:
    """Group of each document (n,): same page or module, or near-duplicates, chained."""
    groups = dataset.strings("group")
    _, group_code = np.unique(groups, return_inverse=True)
    clusters = near_duplicate_clusters(dataset.texts())
    size = len(groups)
    offset = int(group_code.max(initial=0)) + 1
    pairs = [(row, size + int(code)) for row, code in enumerate(group_code)]
    pairs += [(row, size + offset + int(code)) for row, code in enumerate(clusters)]
    component = connected(size + offset + int(clusters.max(initial=0)) + 1, pairs)[:size]
    # A component is called after its first group in the alphabet: the same in any order.
    names = {code: min(groups[component == code]) for code in np.unique(component)}
    return np.array([names[code] for code in component], dtype=str)


def split(dataset: Dataset, target: Target, shares: Shares, seed: int) -> Assignment:
    """Put every labelled document on one side; groups never straddle, classes spread evenly.

    Args:
        dataset: Documents; those without a label are left out of every side.
        target: For the classes to spread.
        shares: Shares of test and validation.
        seed: The same seed gives the same split.

    Raises:
        DataError: Too few groups to make three sides.
    """
    labelled = dataset.take(~np.isnan(dataset.labels))
    groups = leak_groups(labelled)
    side = np.full(len(groups), "train", dtype="U10")
    if len(groups):
        side = _draw(np.rint(labelled.labels).astype(int), groups, shares, seed)
    return _assignment(labelled, groups, side, ())


def split_keeping(
    dataset: Dataset,
    shares: Shares,
    seed: int,
    known: Mapping[str, Side],
    window: Collection[str] = (),
    window_test: float | None = None,
) -> Assignment:
    """A split in which nothing that was tested on is ever trained on, whatever comes later.

    Documents of ``known``, and their groups, stay on their side. The side of any other depends
    on the seed and on its own group or, where it was given none, its own text, and on no other
    document: a document that comes again with a later window, under another id or beside other
    documents, falls on the same side. Of a leak group the most protected side counts, so that
    a near-duplicate of a test document is tested and not trained on.

    Args:
        dataset: Documents; those without a label are left out of every side.
        shares: Shares of test and validation.
        seed: Of the sides of what is not known.
        known: Sides given earlier, by id.
        window: Ids of the documents that came in with windows.
        window_test: Share of those that test; by default that of ``shares``. What is left of
            them validates in the proportion that ``shares`` has.

    Raises:
        DataError: No document is left for one of the sides.
    """
    labelled = dataset.take(~np.isnan(dataset.labels))
    groups, ids = leak_groups(labelled), labelled.strings("id")
    fixed = _sides_of_groups(ids, groups, known)
    come = set(window)
    new = np.array([name in come for name in ids.tolist()], dtype=bool)
    shares_of = {True: window_test or shares.test, False: shares.test}
    own = {
        name: _own_side(key, shares, shares_of[bool(is_new)], seed)
        for name, key, is_new in zip(ids.tolist(), _keys(labelled), new, strict=True)
    }
    drawn = _sides_of_groups(ids, groups, own)
    side = np.array([fixed.get(group, drawn[group]) for group in groups.tolist()], dtype="U10")
    return _assignment(labelled, groups, side, tuple(ids[new].tolist()))


def _keys(dataset: Dataset) -> list[str]:
    """What a document's side hangs on: the group it was given, else its text."""
    columns = ("group", "origin", "sha256")
    rows = zip(*(dataset.strings(name).tolist() for name in columns), strict=True)
    return [sha256 if group == origin else group for group, origin, sha256 in rows]


def _own_side(key: str, shares: Shares, test: float, seed: int) -> Side:
    digest = hashlib.sha256(f"{seed}\t{key}".encode("utf-8", "surrogatepass")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    validation = shares.validation / (1 - shares.test) * (1 - test)
    # At either end, so that another share of tests makes no test document validate.
    if place < test:
        return "test"
    return "validation" if place >= 1 - validation else "train"


def _assignment(
    labelled: Dataset, groups: NDArray[np.str_], side: NDArray[np.str_], window: tuple[str, ...]
) -> Assignment:
    ids = labelled.strings("id")
    if missing := [name for name in SIDES if not (side == name).any()]:
        count = len(np.unique(groups))
        raise DataError(f"split: no document left for {missing[0]}; {count} groups are too few")
    return Assignment(
        fingerprint=labelled.info.fingerprint,
        sides={name: tuple(ids[side == name].tolist()) for name in SIDES},
        groups=dict(zip(ids.tolist(), groups.tolist(), strict=True)),
        window=window,
    )


def _sides_of_groups(
    ids: NDArray[np.str_], groups: NDArray[np.str_], known: Mapping[str, Side]
) -> dict[str, Side]:
    """Side of each group that has a known document; of several, the most protected one."""
    found: dict[str, Side] = {}
    for name, group in zip(ids.tolist(), groups.tolist(), strict=True):
        side = known.get(name)
        if side and (group not in found or SIDES.index(side) > SIDES.index(found[group])):
            found[group] = side
    return found


def _draw(
    strata: NDArray[np.int64], groups: NDArray[np.str_], shares: Shares, seed: int
) -> NDArray[np.str_]:
    side = np.full(len(strata), "train", dtype="U10")
    rest = np.arange(len(strata))
    left = 1.0
    for name, share in (("test", shares.test), ("validation", shares.validation)):
        # A fifth of what is left is one fold of five, two fifths are two.
        part = Fraction(share / left).limit_denominator(20)
        folds = part.denominator
        if len(np.unique(groups[rest])) < folds:
            count = len(np.unique(groups))
            raise DataError(f"split: {count} groups of documents are too few for {name}")
        classes = strata[rest]
        if np.bincount(classes - classes.min()).max() < folds:
            classes = np.zeros_like(classes)  # too few of each class to spread
        splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
        parts = islice(splitter.split(rest, classes, groups[rest]), part.numerator)
        chosen = np.concatenate([test for _, test in parts])
        side[rest[chosen]] = name
        rest = np.delete(rest, chosen)
        left -= share
    return side
