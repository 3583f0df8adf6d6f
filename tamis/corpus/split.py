"""Train, validation and test, with no leak between them."""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    sides: dict[Side, tuple[str, ...]]
    groups: dict[str, str]

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


def split(
    dataset: Dataset,
    target: Target,
    shares: Shares,
    seed: int,
    known: Mapping[str, Side] | None = None,
) -> Assignment:
    """Put every labelled document on one side; groups never straddle, classes spread evenly.

    Args:
        dataset: Documents; those without a label are left out of every side.
        target: For the classes to spread.
        shares: Shares of test and validation.
        seed: The same seed gives the same split.
        known: Sides given earlier, by id: those documents, and their groups, stay there, so
            that a later model never trains on what an earlier one was tested on.

    Raises:
        DataError: Too few groups to make three sides.
    """
    labelled = dataset.take(~np.isnan(dataset.labels))
    groups = leak_groups(labelled)
    ids = labelled.strings("id")
    fixed = _sides_of_groups(ids, groups, known or {})
    free = np.array([group not in fixed for group in groups], dtype=bool)
    side = np.array([fixed.get(group, "train") for group in groups], dtype="U10")
    if free.any():
        strata = np.rint(labelled.labels[free]).astype(int)
        side[free] = _draw(strata, groups[free], shares, seed)
    if missing := [name for name in SIDES if not (side == name).any()]:
        count = len(np.unique(groups))
        raise DataError(f"split: no document left for {missing[0]}; {count} groups are too few")
    return Assignment(
        fingerprint=labelled.info.fingerprint,
        sides={name: tuple(ids[side == name].tolist()) for name in SIDES},
        groups=dict(zip(ids.tolist(), groups.tolist(), strict=True)),
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
