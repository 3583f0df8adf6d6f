"""What changed between two sets of labelled documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.corpus.dataset import Dataset
from tamis.errors import DataError
from tamis.target import BinaryTarget, OrdinalTarget, Target

EXAMPLES = 5
TRANSITIONS = 20
# From the surest sign that two rows are one document to the weakest.
_PASSES = (("id", "sha256", "label"), ("id", "sha256"), ("id",), ("sha256", "label"), ("sha256",))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(_Part):
    """A document that a change concerns.

    Attributes:
        id: Its id, in the new set where it is there.
        old: Label or id before, where that is what changed.
        new: Label or id after, likewise.
    """

    id: str
    old: str = ""
    new: str = ""


class Change(_Part):
    """Documents that changed in one way.

    Attributes:
        documents: How many.
        sources: How many by source: of removed documents the old one, of others the new one.
        examples: A few of them.
    """

    documents: int
    sources: dict[str, int]
    examples: tuple[Example, ...]


class Transition(_Part):
    """Documents whose label went from one value to another."""

    old: str
    new: str
    documents: int


class Relabelled(Change):
    """Documents that had a label and have another one now.

    Attributes:
        transitions: From which label to which, the most frequent first; at most 20.
        mean_change: Mean of new minus old on an ordinal scale; None elsewhere.
        mean_size: Mean of the absolute difference, likewise.
    """

    transitions: tuple[Transition, ...]
    mean_change: float | None
    mean_size: float | None


class Side(_Part):
    """One of the two sets.

    Attributes:
        fingerprint: sha256 over every id, content hash and label.
        documents: How many documents there are.
        labelled: How many of them carry a label.
        sources: Documents by source.
    """

    fingerprint: str
    documents: int
    labelled: int
    sources: dict[str, int]


class DataDiff(_Part):
    """Two sets of labelled documents beside each other.

    A document of both sets may have changed in several ways at once and is then counted in each:
    ``old.documents`` is ``removed`` plus the documents of both, ``new.documents`` is ``added``
    plus these.

    Attributes:
        task: Name of the task.
        old: The set that is compared with.
        new: The set that is looked at.
        both: Documents of both sets.
        unchanged: Those of them with the same id, text and label.
        added: Documents of the new set only.
        removed: Documents of the old set only.
        relabelled: Documents of both with another label.
        labelled: Documents of both that had no label before.
        unlabelled: Documents of both that have no label any more.
        text_changed: Documents of both with another text under the same id.
        renamed: Documents of both with the same text under another id.
    """

    task: str
    old: Side
    new: Side
    both: int
    unchanged: int
    added: Change
    removed: Change
    relabelled: Relabelled
    labelled: Change
    unlabelled: Change
    text_changed: Change
    renamed: Change

    def changes(self) -> dict[str, Change]:
        """Every kind of change, by its name in words."""
        return {
            "added": self.added,
            "removed": self.removed,
            "relabelled": self.relabelled,
            "labelled for the first time": self.labelled,
            "label taken away": self.unlabelled,
            "text changed": self.text_changed,
            "same text, another id": self.renamed,
        }

    def to_html(self) -> str:
        """One self-contained page."""
        changes = self.changes()
        names = [name for name, change in changes.items() if change.documents]
        parts = [html.cards([(name, f"{c.documents:,}") for name, c in changes.items()])]
        if names:
            parts.append(html.section("By source", _by_source(self, names)))
        if self.relabelled.documents:
            parts.append(html.section("Relabelled", _relabelled(self.relabelled)))
        for name in names:
            rows = [(each.id, each.old, each.new) for each in changes[name].examples]
            table = html.table(("id", "before", "after"), rows)
            parts.append(html.section(f"Examples: {name}", table))
        lead = (
            f"{self.old.fingerprint[:12]} ({self.old.documents:,} documents) and "
            f"{self.new.fingerprint[:12]} ({self.new.documents:,}); {self.unchanged:,} are the same"
        )
        return html.page(f"Two versions of the documents of {self.task}", html.join(parts), lead)


def diff(old: Dataset, new: Dataset, target: Target) -> DataDiff:
    """Compare two sets of labelled documents.

    Rows are taken for the same document by id and, where no row of that id is left, by content
    hash: the ids of files without a column of ids hold the row number, which moves when a row is
    put in above. A document that occurs several times is paired as often as both sets have it.

    Args:
        old: The set that is compared with.
        new: The set that is looked at.
        target: By which the labels of both were encoded.

    Raises:
        DataError: A label is none of the target's.
    """
    before, after = _columns(old), _columns(new)
    pairs, removed, added = _pair(before, after)
    first, second = pairs[:, 0], pairs[:, 1]
    labels, relabels = old.labels[first], new.labels[second]
    had, has = ~np.isnan(labels), ~np.isnan(relabels)
    other_text = np.array([before["sha256"][i] != after["sha256"][j] for i, j in pairs], dtype=bool)
    other_id = np.array([before["id"][i] != after["id"][j] for i, j in pairs], dtype=bool)
    other_label = had & has & (labels != relabels)
    changed = other_text | other_id | other_label | (had != has)

    def named(label: float) -> str:
        if np.isnan(label):
            return ""
        meant = decode(target, float(label))
        return meant if isinstance(meant, str) else f"{meant:g}"

    def by_label(pair: int) -> Example:
        row = second[pair]
        return Example(id=after["id"][row], old=named(labels[pair]), new=named(relabels[pair]))

    def by_id(pair: int) -> Example:
        here = after["id"][second[pair]]
        return Example(id=here, old=before["id"][first[pair]], new=here)

    def of_both(mask: NDArray[np.bool_], example: Callable[[int], Example]) -> Change:
        chosen = np.flatnonzero(mask)
        return _change((after["source"][row] for row in second[chosen]), chosen, example)

    return DataDiff(
        task=new.info.task,
        old=_side(old),
        new=_side(new),
        both=len(pairs),
        unchanged=int((~changed).sum()),
        added=_change(
            (after["source"][row] for row in added), added, lambda row: Example(id=after["id"][row])
        ),
        removed=_change(
            (before["source"][row] for row in removed),
            removed,
            lambda row: Example(id=before["id"][row]),
        ),
        relabelled=_relabelling(
            [after["source"][row] for row in second],
            labels,
            relabels,
            other_label,
            by_label,
            named,
            isinstance(target, OrdinalTarget),
        ),
        labelled=of_both(~had & has, by_label),
        unlabelled=of_both(had & ~has, by_label),
        text_changed=of_both(other_text, lambda pair: Example(id=after["id"][second[pair]])),
        renamed=of_both(other_id, by_id),
    )


def decode(target: Target, label: float) -> float | str:
    """A label as the task's files have it, from its encoded value.

    Raises:
        DataError: It is none of the target's; the target is not the one it was encoded by.
    """
    if isinstance(target, OrdinalTarget):
        fits = target.minimum <= label <= target.maximum
        names: Sequence[float | str] = (label,)
        position = 0
    else:
        binary = isinstance(target, BinaryTarget)
        names = (target.negative, target.positive) if binary else target.classes  # type: ignore[union-attr]
        fits = label.is_integer() and 0 <= label < len(names)
        position = int(label) if fits else 0
    if not fits:
        raise DataError(
            f"label {label:g} is none of the task's target as it is now; the documents were "
            "ingested under another one"
        )
    return names[position]


def _columns(dataset: Dataset) -> dict[str, list[Any]]:
    found = {name: dataset.table[name].to_pylist() for name in ("id", "sha256", "source")}
    # A missing label equals another one, which NaN would not.
    labels = [None if label != label else label for label in dataset.labels.tolist()]
    return found | {"label": labels}


def _pair(
    before: dict[str, list[Any]], after: dict[str, list[Any]]
) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """Rows of both sets (m, 2), and what is left of the old one and of the new one."""
    pairs: list[tuple[int, int]] = []
    left, right = list(range(len(before["id"]))), list(range(len(after["id"])))
    for names in _PASSES:
        places: dict[tuple[Any, ...], list[int]] = {}
        for row in reversed(left):
            places.setdefault(tuple(before[name][row] for name in names), []).append(row)
        rest = []
        for row in right:
            found = places.get(tuple(after[name][row] for name in names))
            if found:
                pairs.append((found.pop(), row))
            else:
                rest.append(row)
        left, right = sorted(row for rows in places.values() for row in rows), rest
    pairs.sort(key=lambda pair: pair[1])
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), left, right


def _change(
    sources: Iterable[str], chosen: Sequence[int] | NDArray[np.int64], example: Any
) -> Change:
    counts = Counter(sources)
    return Change(
        documents=len(chosen),
        sources=dict(sorted(counts.items())),
        examples=tuple(example(each) for each in chosen[:EXAMPLES]),
    )


def _relabelling(
    sources: Sequence[str],
    labels: NDArray[np.float64],
    relabels: NDArray[np.float64],
    mask: NDArray[np.bool_],
    example: Callable[[int], Example],
    named: Callable[[float], str],
    ordinal: bool,
) -> Relabelled:
    rows = np.flatnonzero(mask)
    size = relabels[rows] - labels[rows]
    # On a scale the largest changes are worth a look first; between classes there is no size.
    order = rows[np.argsort(-np.abs(size), kind="stable")] if ordinal else rows
    plain = _change((sources[row] for row in rows.tolist()), order, example)
    moves = Counter(zip(labels[rows].tolist(), relabels[rows].tolist(), strict=True))
    common = sorted(moves.items(), key=lambda item: (-item[1], item[0]))[:TRANSITIONS]
    return Relabelled(
        **dict(plain),
        transitions=tuple(
            Transition(old=named(a), new=named(b), documents=n) for (a, b), n in common
        ),
        mean_change=float(size.mean()) if ordinal and len(size) else None,
        mean_size=float(np.abs(size).mean()) if ordinal and len(size) else None,
    )


def _side(dataset: Dataset) -> Side:
    info = dataset.info
    return Side(
        fingerprint=info.fingerprint,
        documents=info.documents,
        labelled=info.labelled,
        sources=info.sources,
    )


def _by_source(found: DataDiff, names: Sequence[str]) -> html.Html:
    changes = found.changes()
    sources = sorted({source for name in names for source in changes[name].sources})
    rows = [(source, *(changes[name].sources.get(source, 0) for name in names))
            for source in sources]  # fmt: skip
    return html.table(("source", *names), rows)


def _relabelled(change: Relabelled) -> html.Html:
    rows = [(each.old, each.new, each.documents) for each in change.transitions]
    table = html.table(("from", "to", "documents"), rows)
    if change.mean_change is None:
        return table
    told = f"Mean change {change.mean_change:+.3f}, mean size {change.mean_size:.3f}."
    return html.join([html.Html(f"<p>{html.text(told)}</p>"), table])
