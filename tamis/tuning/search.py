"""The search: Optuna proposes, grouped folds judge, the median prunes, a journal remembers.

Trials are proposed by the tree-structured Parzen estimator (Bergstra et al. 2011, section 4) and
given up by the median rule (Golovin et al. 2017, "Google Vizier", section 3.2.2), one fold after
another. The task's test documents are in no fold.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from tamis import html
from tamis.comparison.folds import make_folds
from tamis.config import override, validate
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.errors import ConfigError, DataError
from tamis.evaluation.metrics import HIGHER_IS_BETTER, compute, gain
from tamis.fingerprint import code_fingerprint, sha256_of
from tamis.models.train import train
from tamis.task import MetricName, Task
from tamis.tuning.settings import Choices, Range, usual_space

if TYPE_CHECKING:
    import optuna

_DIGITS = 6
_OWN, _FIGURES, _SECONDS = "own", "figures", "seconds"
SOURCES = (
    "comparison/folds.py",
    "evaluation/metrics.py",
    "models/*.py",
    "target.py",
    "tuning/*.py",
)
"""Sources that decide what a trial finds."""


class TunedTrial(BaseModel):
    """One proposal.

    Attributes:
        number: From 0; that of the task's own settings is -1.
        state: ``complete``, ``pruned`` (given up after some folds) or ``failed`` (settings that
            the task does not allow together or that learn nothing, or a process that was killed).
        figure: Mean over the folds that were done; None where there is none.
        settings: By key, in JSON, as ``--set`` takes them.
        seconds: CPU time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    state: str
    figure: float | None
    settings: dict[str, str]
    seconds: float


class Tuning(BaseModel):
    """A search that is done.

    Attributes:
        task: Name of the task.
        metric: What was maximised (or minimised), the mean over folds.
        folds: How many.
        documents: In the folds.
        own: The task's own settings on the same folds.
        trials: In the order of their numbers.
        best: Number of the best; -1 where nothing is better than the task's own settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    metric: MetricName
    folds: int
    documents: int
    own: TunedTrial
    trials: tuple[TunedTrial, ...]
    best: int

    @property
    def taken(self) -> TunedTrial:
        """The best trial."""
        return next((each for each in self.trials if each.number == self.best), self.own)

    def assignments(self) -> list[str]:
        """The best settings as ``--set`` takes them."""
        return [f"{key}={value}" for key, value in self.taken.settings.items()]

    def apply(self, task: Task) -> Task:
        """The task with the best settings.

        Raises:
            ConfigError: It is another task, which does not allow them.
        """
        if not self.taken.settings:
            return task
        return validate(Task, override(task.model_dump(mode="json"), self.assignments()), task.name)

    def to_html(self) -> str:
        """One self-contained page."""
        shown = sorted(self.trials, key=lambda each: -_rank(self.metric, each.figure))
        rows = [
            (
                "own" if each.number < 0 else each.number,
                each.state,
                "" if each.figure is None else f"{each.figure:.4f}",
                " ".join(f"{key}={value}" for key, value in each.settings.items()),
                f"{each.seconds:,.1f}",
            )
            for each in (self.own, *shown)
        ]
        headers = ("trial", "state", f"{self.metric}, mean of folds", "settings", "CPU s")
        which = "the task's own settings" if self.best < 0 else f"trial {self.best}"
        lead = (
            f"{len(self.trials)} trials on {self.folds} folds of {self.documents:,} documents, "
            f"none of them a test document. Taken: {which}."
        )
        return html.page(f"Search for {self.task}", html.table(headers, rows), lead)


def _rank(metric: MetricName, figure: float | None) -> float:
    return -np.inf if figure is None else gain(metric, figure, 0.0)


@dataclass(frozen=True)
class Search:
    """All that trials share.

    Attributes:
        task: The task.
        dataset: Its documents.
        folds: Splits of its training and validation documents.
        scratch: Folder for checkpoints.
    """

    task: Task
    dataset: Dataset
    folds: tuple[Assignment, ...]
    scratch: Path

    def key(self) -> str:
        """What the journal of the same search is called: task, documents and code decide."""
        folds = (fold.model_dump_json() for fold in self.folds)
        said = (self.task.fingerprint(), self.dataset.info.fingerprint, *folds)
        code = code_fingerprint(SOURCES)
        return f"{self.task.name}-{sha256_of((*said, code))[:16]}"

    def figure(self, task: Task, fold: Assignment) -> float:
        """The metric of record on one fold, by a model that did not see it."""
        with TemporaryDirectory(dir=self.scratch) as folder:
            trained = train(task, self.dataset, fold, Path(folder) / "checkpoints")
        test = self.dataset.take(fold.rows(self.dataset, "test"))
        scores = trained.classifier.score(test.texts()).values
        found = compute(task.target, test.labels, scores, trained.log.threshold)
        return float(found[task.metric])


def tune(
    task: Task,
    dataset: Dataset,
    assignment: Assignment,
    trials: int,
    journal: Path,
    scratch: Path,
    after: Callable[[], None] | None = None,
) -> Tuning:
    """Search until so many trials are in the journal; one that was killed goes on where it was.

    Args:
        task: The task; ``tune`` says what is searched.
        dataset: Documents that hold every id of the assignment.
        assignment: The task's split; its test side is not looked at.
        trials: How many in all, those of earlier runs included.
        journal: File that remembers; see ``journal_of``.
        scratch: Folder for checkpoints.
        after: Told when the journal holds the task's own figure, and each trial.

    Raises:
        ConfigError: The space holds a key or value that the task does not allow.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = search_of(task, dataset, assignment, scratch)
    study = _study(search, journal)
    after = after or (lambda: None)
    own = _own(search, study)
    after()
    # One that is not allowed counts as tried, or the search would not end.
    study.optimize(
        lambda trial: _objective(search, trial),
        n_trials=max(0, trials - len(study.trials)),
        catch=(ConfigError, DataError),
        callbacks=[lambda _study, _trial: after()],
    )
    found = tuple(_told(trial) for trial in study.trials)
    best = max((own, *found), key=lambda each: _rank(task.metric, _whole(each)))
    return Tuning(
        task=task.name,
        metric=task.metric,
        folds=len(search.folds),
        documents=sum(len(fold.sides["test"]) for fold in search.folds),
        own=own,
        trials=found,
        best=best.number,
    )


def search_of(task: Task, dataset: Dataset, assignment: Assignment, scratch: Path) -> Search:
    """The search of a task's documents.

    Raises:
        ConfigError: The space holds a key or value that the task does not allow.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    check_space(task)
    folds = make_folds(task, dataset, assignment, task.tune.folds).folds
    return Search(task, dataset, folds, scratch)


def check_space(task: Task) -> None:
    """Do nothing where the task allows each value of each key, beside its other settings.

    Raises:
        ConfigError: The first key or value that it does not allow.
    """
    for key, dimension in _space(task).items():
        values: Sequence[Any] = (
            (dimension.low, dimension.high) if isinstance(dimension, Range) else dimension.values
        )
        whole = isinstance(dimension, Range) and dimension.whole
        for value in values:
            with_settings(task, {key: json.dumps(int(value) if whole else value)})


def _space(task: Task) -> Mapping[str, Range | Choices]:
    return task.tune.space or usual_space(task.model)


def with_settings(task: Task, settings: Mapping[str, str]) -> Task:
    """A task with other settings, and no folds of its own.

    Raises:
        ConfigError: It does not allow them.
    """
    given = [f"{key}={value}" for key, value in settings.items()]
    data = override(task.model_dump(mode="json"), [*given, "split.folds=0"])
    return validate(Task, data, f"{task.name}: tune.space")


def _study(search: Search, journal: Path) -> optuna.Study:
    """The study of the journal; trials that died with their process are closed."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    journal.parent.mkdir(parents=True, exist_ok=True)
    _cut_torn_line(journal)
    lock = JournalFileOpenLock(str(journal))
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))
    study = optuna.create_study(
        study_name=search.key(),
        storage=storage,
        load_if_exists=True,
        direction="maximize" if HIGHER_IS_BETTER[search.task.metric] else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=search.task.tune.warm_up),
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    # A generator that began anew would propose again what it proposed before.
    study.sampler = optuna.samplers.TPESampler(seed=search.task.seed + len(study.trials))
    return study


def _cut_torn_line(journal: Path) -> None:
    """Take away what a process that was killed had written of a line: it could not be read on."""
    if not journal.is_file():
        return
    with journal.open("r+b") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


def _own(search: Search, study: optuna.Study) -> TunedTrial:
    """The task as it is, on the same folds; measured once."""
    if _OWN not in study.user_attrs:
        started = time.process_time()
        task = with_settings(search.task, {})
        figures = [search.figure(task, fold) for fold in search.folds]
        found = TunedTrial(
            number=-1,
            state="complete",
            figure=float(np.mean(figures)),
            settings={},
            seconds=round(time.process_time() - started, 1),
        )
        study.set_user_attr(_OWN, found.model_dump())
    return TunedTrial.model_validate(study.user_attrs[_OWN])


def _objective(search: Search, trial: optuna.Trial) -> float:
    import optuna

    started = time.process_time()
    space = _space(search.task).items()
    settings = {key: _suggest(trial, key, dimension) for key, dimension in space}
    trial.set_user_attr("settings", settings)
    task, figures = with_settings(search.task, settings), list[float]()
    for number, fold in enumerate(search.folds):
        figures.append(search.figure(task, fold))
        trial.set_user_attr(_SECONDS, round(time.process_time() - started, 1))
        trial.set_user_attr(_FIGURES, figures)
        trial.report(float(np.mean(figures)), number)
        if number + 1 < len(search.folds) and trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(figures))


def _suggest(trial: optuna.Trial, key: str, dimension: Any) -> str:
    """A value in JSON, as ``--set`` reads it."""
    if not isinstance(dimension, Range):
        # Optuna keeps plain values only; lists are chosen by what they look like.
        return str(
            trial.suggest_categorical(key, [json.dumps(value) for value in dimension.values])
        )
    if dimension.whole:
        low, high = int(dimension.low), int(dimension.high)
        return json.dumps(trial.suggest_int(key, low, high, log=dimension.log))
    found = trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)
    return json.dumps(float(f"{found:.{_DIGITS}g}"))


def _told(trial: optuna.trial.FrozenTrial) -> TunedTrial:
    figures = trial.user_attrs.get(_FIGURES, [])
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    return TunedTrial(
        number=trial.number,
        state=state,
        figure=float(np.mean(figures)) if figures else None,
        settings=trial.user_attrs.get("settings", {}),
        seconds=trial.user_attrs.get(_SECONDS, 0.0),
    )


def _whole(trial: TunedTrial) -> float | None:
    return trial.figure if trial.state == "complete" else None
