"""Checks on labelled documents before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.corpus.dataset import SCHEMA, Dataset
from tamis.corpus.dedup import near_duplicate_clusters
from tamis.corpus.language import LanguageFilter
from tamis.corpus.settings import LanguageSettings
from tamis.errors import DataError
from tamis.task import Task

NAMED_ROWS = 5


class Check(BaseModel):
    """One condition on the documents.

    Attributes:
        name: Short name.
        passed: Whether it held.
        detail: One sentence with the figures.
        rows: Origins of documents concerned, the first few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    detail: str
    rows: tuple[str, ...] = ()


class ValidationReport(BaseModel):
    """All checks on one dataset.

    Attributes:
        task: Name of the task.
        fingerprint: Of the dataset.
        documents: Documents looked at.
        checks: Each condition, passed or not.
        languages: Documents by language (ISO 639-1).
        labels: Documents by rounded label or class.
        left_out: Documents that ingest could not use, by reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    fingerprint: str
    documents: int
    checks: tuple[Check, ...]
    languages: dict[str, int]
    labels: dict[str, int]
    left_out: dict[str, int]

    def require(self) -> None:
        """Do nothing when every check passed.

        Raises:
            DataError: Names the checks that failed, with the first rows concerned.
        """
        failed = [check for check in self.checks if not check.passed]
        if failed:
            texts = []
            for check in failed:
                rows = f" ({', '.join(check.rows)})" if check.rows else ""
                texts.append(f"{check.name}: {check.detail}{rows}")
            raise DataError(f"{self.task}: the documents fail validation; " + "; ".join(texts))

    def to_html(self) -> str:
        """One self-contained page."""
        rows = [
            ("passed" if c.passed else "FAILED", c.name, c.detail, ", ".join(c.rows))
            for c in self.checks
        ]
        parts = [html.table(("", "check", "found", "documents"), rows)]
        for title, counts in (
            ("Labels", self.labels),
            ("Languages", self.languages),
            ("Left out at ingest", self.left_out),
        ):
            parts.append(html.section(title, html.table(("", "documents"), list(counts.items()))))
        title = f"Validation of {self.documents:,} documents of {self.task}"
        return html.page(title, html.join(parts))


def validate(dataset: Dataset, task: Task) -> ValidationReport:
    """Look at schema, empties, duplicates, labels and languages.

    Label range and types were checked when the labels were encoded; what failed there is in
    ``dataset.info.left_out`` and counted here.
    """
    languages = detect_languages(dataset.texts())
    labels = dataset.labels
    rounded = np.rint(labels[~np.isnan(labels)]).astype(int)
    values, counts = np.unique(rounded, return_counts=True)
    reasons = [item.reason for item in dataset.info.left_out]
    policy = task.validation
    checks = (
        _schema(dataset),
        _enough(dataset, policy.min_documents),
        _unreadable(dataset),
        _share(
            "empty",
            dataset,
            np.array([not text for text in dataset.texts()], dtype=bool),
            policy.max_empty,
        ),
        _share(
            "exact_duplicates", dataset, _repeats(dataset.strings("sha256")), policy.max_duplicates
        ),
        _share(
            "near_duplicates",
            dataset,
            _repeats(near_duplicate_clusters(dataset.texts())),
            policy.max_near_duplicates,
        ),
        _conflicts(dataset),
        _both_sides(dataset, task),
        _languages(dataset, languages, policy.languages, policy.max_foreign_language),
    )
    names, numbers = np.unique(languages, return_counts=True)
    return ValidationReport(
        task=task.name,
        fingerprint=dataset.info.fingerprint,
        documents=len(dataset),
        checks=checks,
        languages=dict(zip(names.tolist(), numbers.tolist(), strict=True)),
        labels={str(v): int(c) for v, c in zip(values, counts, strict=True)},
        left_out={reason: reasons.count(reason) for reason in sorted(set(reasons))},
    )


def detect_languages(texts: Sequence[str]) -> NDArray[np.str_]:
    """Language of each text (ISO 639-1 or -3), as ``filter`` tells it."""
    identify = LanguageFilter(LanguageSettings()).identify
    return np.array([identify(text)[0] for text in texts], dtype=str)


def _named(dataset: Dataset, which: NDArray[np.bool_]) -> tuple[str, ...]:
    origins = dataset.table["origin"].to_pylist()
    return tuple(origins[row] for row in np.flatnonzero(which)[:NAMED_ROWS])


def _share(name: str, dataset: Dataset, which: NDArray[np.bool_], allowed: float) -> Check:
    share = float(which.mean()) if len(which) else 0.0
    detail = f"{int(which.sum())} of {len(which)} ({share:.1%}); at most {allowed:.1%} allowed"
    return Check(name=name, passed=share <= allowed, detail=detail, rows=_named(dataset, which))


def _repeats(keys: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Which documents repeat an earlier one's key."""
    _, first = np.unique(keys, return_index=True)
    repeats = np.ones(len(keys), dtype=bool)
    repeats[first] = False
    return repeats


def _schema(dataset: Dataset) -> Check:
    same = dataset.table.schema.equals(SCHEMA)
    ids = dataset.strings("id")
    repeated = _repeats(ids)
    detail = f"columns {'as expected' if same else 'differ'}; {int(repeated.sum())} repeated ids"
    passed = same and not repeated.any()
    return Check(name="schema", passed=passed, detail=detail, rows=_named(dataset, repeated))


def _enough(dataset: Dataset, least: int) -> Check:
    count = dataset.info.labelled
    detail = f"{count} labelled documents; at least {least} needed"
    return Check(name="documents", passed=count >= least, detail=detail)


def _unreadable(dataset: Dataset) -> Check:
    """Left-out documents are shown, and fail the check when they are more than a tenth."""
    bad = [item for item in dataset.info.left_out if item.reason != "not_installed"]
    total = len(dataset) + len(dataset.info.left_out)
    rows = tuple(f"{item.origin} ({item.detail})" for item in bad[:NAMED_ROWS])
    detail = f"{len(bad)} of {total} could not be used; at most 10% allowed"
    return Check(name="usable", passed=len(bad) <= 0.1 * total, detail=detail, rows=rows)


def _conflicts(dataset: Dataset) -> Check:
    """The same text with different labels: no model can satisfy both."""
    texts, labels = dataset.strings("sha256"), dataset.labels
    seen: dict[str, float] = {}
    conflict = np.zeros(len(texts), dtype=bool)
    for row, (text, label) in enumerate(zip(texts.tolist(), labels.tolist(), strict=True)):
        if not np.isnan(label):
            conflict[row] = seen.setdefault(text, label) != label
    return _share("conflicting_labels", dataset, conflict, 0.01)


def _both_sides(dataset: Dataset, task: Task) -> Check:
    labels = dataset.labels[~np.isnan(dataset.labels)]
    kept = int(task.target.kept(labels).sum())
    dropped = len(labels) - kept
    least = task.validation.min_per_side
    detail = f"{kept} on the kept side, {dropped} on the other; at least {least} needed on each"
    return Check(name="classes", passed=min(kept, dropped) >= least, detail=detail)


def _languages(
    dataset: Dataset, languages: NDArray[np.str_], accepted: Sequence[str], allowed: float
) -> Check:
    if not accepted:
        return Check(name="language", passed=True, detail="every language is accepted")
    return _share("language", dataset, ~np.isin(languages, accepted), allowed)
