"""Evidently's report on a window, for reading; it decides nothing. Only this module imports it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from tamis.monitoring.samples import Sample

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

    from tamis.monitoring.monitored import MonitorWindow
    from tamis.monitoring.profile import ReferenceProfile

_ROWS = 2_000
_CATEGORIES = 20
_FEWEST = 2
_ODD = re.compile(r"[^\w .,:/@+-]")


def evidently_html(profile: ReferenceProfile, window: MonitorWindow, seed: int = 0) -> str:
    """A page of Evidently's on scores, decisions, lengths, languages and sources.

    No text is in it. Names of sources are cut to plain characters, since the page carries them
    inside a script.

    Args:
        profile: Of the model.
        window: Beside it.
        seed: Of the samples of at most 2,000 documents a side.

    Returns:
        The page, about 4 MB; empty where either side has too few documents to compare.
    """
    theirs = profile.current().at_most(_ROWS, seed)
    mine = window.sample.at_most(_ROWS, seed)
    if min(len(theirs), len(mine)) < _FEWEST:
        return ""
    columns = _columns(theirs, mine)
    if not columns:
        return ""
    from evidently import (  # type: ignore[import-untyped]
        DataDefinition,
        Dataset,
        Report,
    )
    from evidently.presets import (  # type: ignore[import-untyped]
        DataDriftPreset,
        DataSummaryPreset,
    )

    definition = DataDefinition(
        numerical_columns=[name for name, kind in columns.items() if kind == "number"],
        categorical_columns=[name for name, kind in columns.items() if kind == "name"],
    )
    names = _known_names(theirs, mine)
    sides = [
        Dataset.from_pandas(
            _frame(side, columns, names, profile.threshold), data_definition=definition
        )
        for side in (mine, theirs)
    ]
    wanted = list(columns)
    report = Report([DataDriftPreset(columns=wanted), DataSummaryPreset(columns=wanted)])
    found: Any = report.run(sides[0], sides[1])
    return str(found.get_html_str(as_iframe=False))


def _columns(theirs: Sample, mine: Sample) -> dict[str, str]:
    """Columns that both sides have something in, and whether they are numbers or names."""
    found: dict[str, str] = {}
    if all(np.isfinite(side.scores).sum() >= _FEWEST for side in (theirs, mine)):
        found |= {"score": "number", "decision": "name"}
    if all((side.characters > 0).any() for side in (theirs, mine)):
        found["characters"] = "number"
    for name in ("languages", "sources"):
        if all((getattr(side, name) != "").any() for side in (theirs, mine)):
            found[name.removesuffix("s")] = "name"
    return found


def _known_names(theirs: Sample, mine: Sample) -> dict[str, set[str]]:
    """The names that are frequent on either side."""
    found: dict[str, set[str]] = {}
    for name in ("languages", "sources"):
        both = np.concatenate([getattr(theirs, name), getattr(mine, name)])
        values, counts = np.unique(both, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_CATEGORIES]
        found[name] = {str(values[i]) for i in order}
    return found


def _frame(
    side: Sample, columns: dict[str, str], names: dict[str, set[str]], threshold: float
) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(index=range(len(side)))
    if "score" in columns:
        frame["score"] = side.scores
        decided = np.where(side.scores >= threshold, "keep", "drop")
        frame["decision"] = np.where(np.isfinite(side.scores), decided, "none")
    if "characters" in columns:
        frame["characters"] = side.characters.astype(np.float64)
    for name in ("languages", "sources"):
        if name.removesuffix("s") in columns:
            frame[name.removesuffix("s")] = [
                _plain(value) if value in names[name] else "other"
                for value in getattr(side, name).tolist()
            ]
    return frame


def _plain(name: str) -> str:
    return _ODD.sub(" ", name)[:60].strip() or "none"
