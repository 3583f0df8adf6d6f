"""Behaviour tests of a trained model, through its scores alone.

After Ribeiro et al. 2020, "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList"
(ACL), section 2: invariance, directional expectation and minimum functionality, and besides them
robustness to errors in the characters. No labels are needed but for the hand-written texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment, leak_groups
from tamis.errors import DataError
from tamis.evaluation import perturbations
from tamis.evaluation.behaviour_figures import BehaviourReport, BehaviourTest, Example, Kind
from tamis.evaluation.behaviour_settings import (
    BehaviourSettings,
    Case,
    DirectionLimits,
    InvarianceLimits,
    Noise,
)
from tamis.evaluation.bootstrap import Interval, Resamples, interval, resample, sample
from tamis.evaluation.spread import quantile, share_of
from tamis.models.classifier import ClassifierInfo, Scores
from tamis.models.encoder import Progress
from tamis.target import Floats, OrdinalTarget
from tamis.task import Task

MIN_DOCUMENTS = 10
"""Fewer say nothing; a test of so few fails."""
PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_EXAMPLES = 5


class Scorer(Protocol):
    """What is tested: a ``Classifier``, or whatever scores as one does."""

    @property
    def info(self) -> ClassifierInfo:
        """What it is."""

    def score(self, texts: Sequence[str], progress: Progress | None = None) -> Scores:
        """Scores of texts."""


@dataclass(frozen=True)
class Documents:
    """What the tests are tried on, as columns (n,); documents of a group resemble each other."""

    ids: list[str]
    texts: list[str]
    groups: list[str]


@dataclass(frozen=True)
class _Trial:
    """Texts of one test before and after, and the rows of the documents behind them (m,)."""

    kind: Kind
    name: str
    rows: NDArray[np.int64]
    before: list[str]
    after: list[str]
    limits: InvarianceLimits | DirectionLimits | Noise


@dataclass(frozen=True)
class _Scored:
    """A trial with its scores (m,), and what they are judged by."""

    trial: _Trial
    ids: list[str]
    before: Floats
    after: Floats
    resamples: Resamples
    info: ClassifierInfo

    @property
    def width(self) -> float:
        low, high = self.info.target.scale
        return high - low


def draw(dataset: Dataset, ids: Sequence[str], size: int, seed: int) -> Documents:
    """At most so many of the named documents that are not empty, whatever their order.

    Raises:
        DataError: Fewer than ten of them are there.
    """
    wanted = set(ids)
    present = dataset.strings("id")
    filled = [bool(text.strip()) for text in dataset.texts()]
    rows = np.flatnonzero(np.isin(present, list(wanted)) & np.array(filled, dtype=bool))
    if len(rows) < MIN_DOCUMENTS:
        raise DataError(
            f"{dataset.info.task}: {len(rows)} of the {len(wanted)} documents that the model was "
            f"tested on are there; behaviour tests need {MIN_DOCUMENTS}"
        )
    rows = rows[np.argsort(present[rows])]
    if len(rows) > size:
        places = np.random.default_rng(seed).choice(len(rows), size, replace=False)
        rows = rows[np.sort(places)]
    part = dataset.take(rows)
    return Documents(part.strings("id").tolist(), part.texts(), leak_groups(part).tolist())


def of_test_side(
    task: Task,
    classifier: Scorer,
    dataset: Dataset,
    assignment: Assignment,
    progress: Progress | None = None,
) -> BehaviourReport:
    """The tests that the task asks for, on documents that the model has not seen.

    Nothing is scored where ``behaviour.gate`` is ``off``: the report then has no tests.
    """
    if not task.behaviour.asked:
        return _report(classifier.info, Documents([], [], []), task.seed, [])
    documents = draw(dataset, assignment.sides["test"], task.behaviour.sample, task.seed)
    return behave(classifier, task.behaviour, documents, task.seed, progress)


def behave(
    classifier: Scorer,
    settings: BehaviourSettings,
    documents: Documents,
    seed: int,
    progress: Progress | None = None,
) -> BehaviourReport:
    """Run the tests, whatever ``settings.gate`` says.

    Every text is scored once: first the documents, then all that was made of them.

    Args:
        classifier: What is tested.
        settings: Which tests, with their limits.
        documents: At least ten that the model was not trained on.
        seed: Of the changes and resamples.
        progress: Told how many texts were scored.

    Raises:
        DataError: There are too few documents.
    """
    if len(documents.texts) < MIN_DOCUMENTS:
        raise DataError(
            f"{len(documents.texts)} documents are too few for behaviour tests; "
            f"they need {MIN_DOCUMENTS}"
        )
    clean = [text[: perturbations.MOST_CHARACTERS] for text in documents.texts]
    score_of: dict[str, float] = {}
    _score(classifier, clean, score_of, progress)
    reach = np.array([score_of[text] >= classifier.info.threshold for text in clean])
    trials = _trials(settings, clean, reach, seed)
    written = [text for case in settings.texts for text in _texts_of(case)]
    made = [text for trial in trials for text in (*trial.before, *trial.after)]
    _score(classifier, [*made, *written], score_of, progress)
    tests = [_judge(trial, score_of, documents, classifier.info, seed) for trial in trials]
    if settings.texts:
        tests.append(_minimum(settings, score_of))
    return _report(classifier.info, documents, seed, tests)


def _report(
    info: ClassifierInfo, documents: Documents, seed: int, tests: Sequence[BehaviourTest]
) -> BehaviourReport:
    low, high = info.target.scale
    return BehaviourReport(
        task=info.task,
        family=f"{info.family}, {info.variant}",
        low=low,
        high=high,
        threshold=info.threshold,
        documents=len(documents.texts),
        groups=len(set(documents.groups)),
        seed=seed,
        tests=tuple(tests),
    )


def _score(
    classifier: Scorer, texts: Sequence[str], score_of: dict[str, float], progress: Progress | None
) -> None:
    """Score what has no score yet."""
    new = [text for text in dict.fromkeys(texts) if text not in score_of]
    if new:
        score_of.update(zip(new, classifier.score(new, progress).values.tolist(), strict=True))


def _trials(
    settings: BehaviourSettings, texts: list[str], reach: NDArray[np.bool_], seed: int
) -> list[_Trial]:
    """What is to be scored; only documents that ``reach`` the threshold lose their explanation."""
    every = np.arange(len(texts))
    trials = []
    for kept, limits in settings.invariance.items():
        pairs = [perturbations.invariance(kept, text, seed) for text in texts]
        before, after = ([pair[side] for pair in pairs] for side in (0, 1))
        trials.append(_Trial("invariance", kept, every, before, after, limits))
    for lost, bound in settings.direction.items():
        changed = {row: perturbations.direction(lost, texts[row], seed) for row in every[reach]}
        # A text of one short sentence may be its own outline: nothing was taken out of it.
        rows = [row for row, text in changed.items() if text.split() != texts[row].split()]
        before, after = [texts[row] for row in rows], [changed[row] for row in rows]
        places = np.array(rows, dtype=np.int64)
        trials.append(_Trial("direction", lost, places, before, after, bound))
    for noise in settings.noise:
        after = [perturbations.noisy(noise, text, seed) for text in texts]
        name = f"{noise.kind} {noise.share:.0%}"
        trials.append(_Trial("robustness", name, every, texts, after, noise))
    return trials


def _judge(
    trial: _Trial,
    score_of: Mapping[str, float],
    documents: Documents,
    info: ClassifierInfo,
    seed: int,
) -> BehaviourTest:
    before = np.array([score_of[text] for text in trial.before], dtype=np.float64)
    after = np.array([score_of[text] for text in trial.after], dtype=np.float64)
    rows = trial.rows
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return _unjudged(trial, len(rows), "Some scores are not finite numbers.")
    if len(rows) < MIN_DOCUMENTS:
        which = "reach the threshold" if trial.kind == "direction" else "are there"
        told = f"Only {len(rows)} documents {which}; {MIN_DOCUMENTS} are needed to judge."
        return _unjudged(trial, len(rows), told)
    ids = [documents.ids[row] for row in rows]
    draws = resample([documents.groups[row] for row in rows], seed)
    scored = _Scored(trial, ids, before, after, draws, info)
    if isinstance(trial.limits, InvarianceLimits):
        return _invariance(scored, trial.limits)
    if isinstance(trial.limits, DirectionLimits):
        return _direction(scored, trial.limits)
    return _robustness(scored, trial.limits)


def _unjudged(trial: _Trial, n: int, detail: str) -> BehaviourTest:
    return BehaviourTest(
        kind=trial.kind, name=trial.name, passed=False, n=n, figures={}, limits={}, detail=detail
    )


def _invariance(scored: _Scored, limits: InvarianceLimits) -> BehaviourTest:
    moved = np.abs(scored.after - scored.before) / scored.width
    threshold = scored.info.threshold
    flipped = (scored.before >= threshold) != (scored.after >= threshold)
    figures = {
        "median": quantile(moved, 0.5, scored.resamples),
        "p95": quantile(moved, 0.95, scored.resamples),
        "flipped": share_of(flipped, scored.resamples),
    }
    allowed = {"median": limits.median, "p95": limits.p95, "flipped": limits.flipped}
    detail = (
        f"{_ADDED[scored.trial.name]}: the score of {len(moved)} documents moves by "
        f"{_percent(figures['median'])} of the scale in the median (at most {limits.median:.1%}) "
        f"and by {_percent(figures['p95'])} at the 95th percentile (at most {limits.p95:.1%}); "
        f"{_percent(figures['flipped'])} change sides of the threshold (at most "
        f"{limits.flipped:.1%})."
    )
    passed = all(figures[name].value <= most for name, most in allowed.items())
    return _test(scored, passed, figures, allowed, detail, moved)


_ADDED = {
    "whitespace": "Other white space",
    "casing": "A menu and a footer in capitals instead of as they are written",
    "navigation": "A menu in front and a footer behind",
    "cookies": "A cookie notice in front",
    "link": "A link at the end",
    "mention": "The name of a user in front",
}


def _direction(scored: _Scored, limits: DirectionLimits) -> BehaviourTest:
    fall = (scored.before - scored.after) / scored.width
    lowered = (fall > 0) & (fall >= limits.fall)
    figures = {
        "lowered": share_of(lowered, scored.resamples),
        "fall": quantile(fall, 0.5, scored.resamples),
    }
    least = f" by at least {limits.fall:.1%} of the scale" if limits.fall else ""
    detail = (
        f"Of {len(fall)} documents that reach the threshold, {_percent(figures['lowered'])} score "
        f"lower{least} when only {_LEFT[scored.trial.name]} (at least {limits.share:.1%} "
        f"must); the median fall is {_percent(figures['fall'])} of the scale."
    )
    passed = figures["lowered"].value >= limits.share
    return _test(scored, passed, figures, {"lowered": limits.share}, detail, -fall)


_LEFT = {
    "shuffled": "their words are left, in random order",
    "outline": "the first words of each sentence are left",
    "first_sentence": "the first sentence is left",
    "menu": "the title is left, between a menu and a footer",
}


def _robustness(scored: _Scored, noise: Noise) -> BehaviourTest:
    low, high = scored.info.target.scale
    # Only the rank correlation is read; it asks for a scale, whatever the target is.
    scale = OrdinalTarget(kind="ordinal", minimum=low, maximum=high, keep_at_least=high)
    found = sample(scale, scored.before, scored.after, scored.info.threshold, scored.resamples)
    spearman = interval(found["spearman"])
    what = "mistyped" if noise.kind == "typos" else "misread, as scanners do"
    detail = (
        f"With {noise.share:.1%} of the characters {what}, the scores of "
        f"{len(scored.before)} documents have Spearman {spearman} with those of the clean texts "
        f"(at least {noise.spearman:g})."
    )
    passed = spearman.value >= noise.spearman
    moved = np.abs(scored.after - scored.before)
    limits = {"spearman": noise.spearman}
    return _test(scored, passed, {"spearman": spearman}, limits, detail, moved)


def _test(
    scored: _Scored,
    passed: bool,
    figures: dict[str, Interval],
    limits: dict[str, float],
    detail: str,
    badness: Floats,
) -> BehaviourTest:
    change = scored.after - scored.before
    worst = np.argsort(-badness, kind="stable")[:_EXAMPLES]
    return BehaviourTest(
        kind=scored.trial.kind,
        name=scored.trial.name,
        passed=passed,
        n=len(change),
        figures=figures,
        limits=limits,
        detail=detail,
        changes=tuple(np.quantile(change, PERCENTILES).tolist()),
        examples=tuple(
            Example(id=scored.ids[i], before=float(scored.before[i]), after=float(scored.after[i]))
            for i in worst
        ),
    )


def _texts_of(case: Case) -> tuple[str, ...]:
    return tuple(text for text in (case.text, case.higher, case.lower) if text is not None)


def _minimum(settings: BehaviourSettings, score_of: Mapping[str, float]) -> BehaviourTest:
    held, broken, told = [], [], []
    for case in settings.texts:
        right, example, problem = _case(case, score_of)
        held.append(right)
        if not right:
            broken.append(example)
            told.append(problem)
    names = [case.name for case in settings.texts]
    found = share_of(np.array(held, dtype=bool), resample(names, 0))
    failures = f": {'; '.join(told)}" if told else ""
    return BehaviourTest(
        kind="minimum",
        name="texts",
        passed=found.value >= settings.hold,
        n=len(names),
        figures={"held": found},
        limits={"held": settings.hold},
        detail=f"{sum(held)} of {len(names)} hand-written texts and pairs hold (at least "
        f"{settings.hold:.1%} must){failures}.",
        examples=tuple(example for example in broken if example is not None),
    )


def _case(case: Case, score_of: Mapping[str, float]) -> tuple[bool, Example | None, str]:
    """Whether a case holds, its scores where they are numbers, and what is wrong with them."""
    values = [score_of[text] for text in _texts_of(case)]
    if not np.isfinite(values).all():
        return False, None, f"{case.name} has a score that is not finite"
    if case.text is None:
        higher, lower = values
        shown = Example(id=case.name, before=lower, after=higher)
        right = higher > lower and higher - lower >= case.margin
        return right, shown, f"{case.name} ({higher:.3f} over {lower:.3f})"
    low = -np.inf if case.at_least is None else case.at_least
    high = np.inf if case.at_most is None else case.at_most
    shown = Example(id=case.name, before=values[0], after=values[0])
    return bool(low <= values[0] <= high), shown, f"{case.name} ({values[0]:.3f})"


def _percent(found: Interval) -> str:
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"
