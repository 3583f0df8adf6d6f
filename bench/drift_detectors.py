"""Detectors of drift, each on the same windows with what it can use of them.

tamis                  ``tamis.monitoring``: all its tests as one p-value, at the level that the
                       budget of false alarms gives; where labels came, its test of performance too
evidently-default      Evidently's ``DataDriftPreset`` as it comes: half of the columns drifted
evidently-any-column   the same report, taken for an alarm when any column drifted
ks-bonferroni          Kolmogorov-Smirnov on each column and on 32 principal components of the
                       vectors, chi-square on the language, Bonferroni at 0.05 (Rabanser, Guennemann
                       and Lipton 2019, "Failing Loudly", sections 2 and 3.2)
ks-bonferroni-budget   the same at the level of the budget

Columns are score, characters, words, sentences, share of what is no letter, and language; with
labels also the label and how far the score is from it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.drift_windows import SCALE, Feedback, Window

if TYPE_CHECKING:
    from tamis.monitoring.profile import ReferenceProfile
    from tamis.monitoring.settings import MonitorSettings

COMPONENTS = 32
BONFERRONI = 0.05
LANGUAGE = "language"


@dataclass(frozen=True)
class Verdict:
    """What a detector says of a window; ``p`` where it has one."""

    alarm: bool
    p: float | None = None


Verdicts = dict[str, Verdict]
Judge = Callable[[Window, int], Verdicts]
"""A window and a seed to verdicts by name."""


def judged(judge: Judge, window: Window, seed: int) -> tuple[Verdicts, float]:
    """Verdicts, and the CPU seconds that they took."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = judge(window, seed)
    return found, time.process_time() - start


def tamis(reference: Window, settings: MonitorSettings) -> Judge:
    """The project's own."""
    from tamis.monitoring.drift import drift_between
    from tamis.monitoring.performance import measure_performance
    from tamis.task import load_task

    target = load_task("edu_quality").target
    profile = _profile(reference)

    def judge(window: Window, seed: int) -> Verdicts:
        from tamis.monitoring.monitored import Labelled

        report = drift_between(reference.sample, window.sample, settings, seed)
        alarm = report.drifted
        if (told := window.feedback) is not None:
            came = Labelled(told.scores, told.labels, told.groups)
            performance = measure_performance(
                target, "spearman", profile, came, window.sample,
                settings.performance, settings.label_rate, seed,
            )  # fmt: skip
            alarm = alarm or performance.alarming
        return {"tamis": Verdict(alarm, report.p)}

    return judge


def _profile(reference: Window) -> ReferenceProfile:
    """What a model would keep of the labelled documents."""
    from tamis.monitoring.profile import ProfileFacts, ReferenceProfile
    from tamis.monitoring.samples import Sample

    told = reference.feedback
    if told is None:
        raise ValueError("a reference has labels")
    count = len(told.labels)
    names = np.array([str(number) for number in range(count)])
    sample = Sample(
        ids=names,
        scores=told.scores,
        characters=np.ones(count, dtype=np.int64),
        languages=np.full(count, "en"),
        sources=np.full(count, "requests"),
        groups=told.groups,
    )
    facts = ProfileFacts(
        task="edu_quality", data="", documents=count, threshold=3.0, scale=SCALE, metric="spearman"
    )
    every, none = np.ones(count, dtype=bool), np.zeros(count, dtype=bool)
    return ReferenceProfile(facts, sample, told.labels, every, none, {})


def columns(window: Window, feedback: Feedback | None) -> dict[str, NDArray[np.float64]]:
    """Columns of numbers (n,); those of labels are NaN where none came."""
    found = {"score": window.sample.scores, **window.columns}
    if feedback is not None:
        blank = np.full(len(window.sample), np.nan)
        known = slice(len(feedback.labels))
        label, error = blank.copy(), blank.copy()
        label[known] = feedback.labels
        error[known] = np.abs(feedback.labels - feedback.scores)
        found |= {"label": label, "error": error}
    return found


def evidently(reference: Window) -> Judge:
    """Evidently's default preset, a fresh report a window."""
    import pandas as pd  # type: ignore[import-untyped]
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    def dataset(window: Window, feedback: Feedback | None) -> Any:
        table = columns(window, feedback)
        definition = DataDefinition(numerical_columns=list(table), categorical_columns=[LANGUAGE])
        frame = pd.DataFrame(table | {LANGUAGE: window.sample.languages})
        return Dataset.from_pandas(frame, data_definition=definition)

    kept = {told: dataset(reference, reference.feedback if told else None) for told in (0, 1)}

    def judge(window: Window, seed: int) -> Verdicts:
        told = window.feedback is not None
        names = [*columns(window, window.feedback), LANGUAGE]
        report = Report([DataDriftPreset(columns=names)])
        found = report.run(dataset(window, window.feedback), kept[told]).dict()["metrics"]
        drifted = next(m for m in found if m["metric_name"].startswith("DriftedColumnsCount"))
        share = drifted["config"]["drift_share"]
        value = drifted["value"]
        return {
            "evidently-default": Verdict(value["share"] >= share),
            "evidently-any-column": Verdict(value["count"] > 0),
        }

    return judge


def ks_bonferroni(reference: Window, settings: MonitorSettings) -> Judge:
    """A test a column and a component, corrected for their number."""
    from sklearn.decomposition import PCA

    vectors = reference.sample.vectors
    if vectors is None:
        raise ValueError("a reference has vectors")
    axes = PCA(min(COMPONENTS, *vectors.shape), random_state=0).fit(vectors)

    def table(window: Window, feedback: Feedback | None) -> dict[str, NDArray[np.float64]]:
        projected = axes.transform(window.sample.vectors)
        named = {f"component {at}": values for at, values in enumerate(projected.T)}
        return columns(window, feedback) | named

    kept = {told: table(reference, reference.feedback if told else None) for told in (0, 1)}

    def judge(window: Window, seed: int) -> Verdicts:
        from scipy.stats import ks_2samp

        told = window.feedback is not None
        values = [language_p(reference.sample.languages, window.sample.languages)]
        for name, found in table(window, window.feedback).items():
            before = kept[told][name]
            known = found[~np.isnan(found)], before[~np.isnan(before)]
            values.append(float(ks_2samp(*known, method="asymp").pvalue))
        p = min(1.0, min(values) * len(values))
        return {
            "ks-bonferroni": Verdict(p <= BONFERRONI, p),
            "ks-bonferroni-budget": Verdict(p <= settings.window_rate, p),
        }

    return judge


def language_p(before: NDArray[np.str_], after: NDArray[np.str_]) -> float:
    """p-value of a chi-square test; languages that are rare in both count as one."""
    from scipy.stats import chi2_contingency

    names, which = np.unique(np.concatenate([before, after]), return_inverse=True)
    table = np.zeros((2, len(names)))
    np.add.at(table, (np.repeat([0, 1], [len(before), len(after)]), which), 1)
    expected = table.sum(0) * min(len(before), len(after)) / (len(before) + len(after))
    rare = expected < 5
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    table = table[:, table.sum(0) > 0]
    return float(chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0


def judges(reference: Window, settings: MonitorSettings) -> dict[str, Judge]:
    """Every detector, ready for windows beside a reference; by the name it is timed under."""
    return {
        "tamis": tamis(reference, settings),
        "evidently": evidently(reference),
        "ks-bonferroni": ks_bonferroni(reference, settings),
    }
