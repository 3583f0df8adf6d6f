import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tamis.config import validate
from tamis.corpus.dataset import Dataset
from tamis.corpus.split import split
from tamis.errors import ConfigError, DataError
from tamis.task import Task
from tamis.tuning.search import Search, TunedTrial, Tuning, search_of
from tests.comparison.examples import documents
from tests.program import PROJECT
from tests.tiny import labelled
from tests.tuning.examples import counted, figure, search, tuned_task

PROGRAM = """
import os, signal, sys
from tamis.tuning.search import Search
from tests.tuning import examples

asked = 0

def dies(self, task, fold):
    global asked
    asked += 1
    if asked == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return examples.figure(self, task, fold)

Search.figure = dies
examples.search(sys.argv[1], 5)
"""
"""A search that is killed when it asks for a figure the so-manieth time."""


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A search that trains."""
    folder = tmp_path_factory.mktemp("real")
    return folder, search(folder, 4)


def states_in(journal):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(journal)))
    (study,) = storage.get_all_studies()
    return [trial.state.name for trial in storage.get_all_trials(study._study_id)]


def settings_of(found):
    return [trial.settings for trial in found.trials]


def figures_of(found):
    return [found.own.figure, *(trial.figure for trial in found.trials)]


def test_a_search_judges_every_trial_on_documents_it_did_not_learn_from(real):
    _, found = real
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    assert {trial.state for trial in found.trials} == {"complete"}
    assert (found.task, found.metric, found.folds) == ("toy", "spearman", 2)
    data = documents()
    sides = split(data, tuned_task().target, tuned_task().split, 0).sides
    assert found.documents == len(sides["train"]) + len(sides["validation"])
    assert found.own.figure > 0.6 and (found.own.number, found.own.settings) == (-1, {})
    assert len({str(each) for each in settings_of(found)}) == 4
    assert all(set(each) == {"model.min_documents", "model.words"} for each in settings_of(found))
    assert all(trial.seconds > 0 for trial in found.trials)
    top = max((found.own, *found.trials), key=lambda trial: trial.figure)
    assert found.taken.figure == top.figure


def test_test_documents_change_nothing(real, tmp_path):
    _, found = real
    data, task = documents(), tuned_task()
    sides = split(data, task.target, task.split, task.seed)
    hidden = set(sides.sides["test"])
    rows = data.table.to_pylist()
    other = labelled(
        [f"proof {row['id']}" if row["id"] in hidden else row["text"] for row in rows],
        [5 - row["label"] if row["id"] in hidden else row["label"] for row in rows],
        groups=[row["group"] for row in rows],
    )
    assert other.info.fingerprint != data.info.fingerprint
    from tamis.tuning.search import tune

    again = tune(task, other, sides, 4, tmp_path / "its.journal", tmp_path)
    assert settings_of(again) == settings_of(found)
    assert figures_of(again) == figures_of(found)
    assert again.best == found.best


def test_what_is_done_is_not_done_again(real, monkeypatch):
    folder, found = real
    monkeypatch.setattr(Search, "figure", None)
    assert search(folder, 4) == found
    assert search(folder, 2) == found


def test_the_same_seed_gives_the_same_trials(tmp_path, monkeypatch):
    counted(monkeypatch)
    one, two = (search(tmp_path / name, 12) for name in ("one", "two"))
    assert settings_of(one) == settings_of(two) and figures_of(one) == figures_of(two)
    other = search(tmp_path / "three", 12, tuned_task(seed=1))
    assert settings_of(other) != settings_of(one)


def test_a_longer_search_goes_on_with_a_shorter_one(tmp_path, monkeypatch):
    asked = counted(monkeypatch)
    first = search(tmp_path, 3)
    assert len(asked) == 2 * (1 + 3)
    longer = search(tmp_path, 8)
    assert len(asked) == 2 * (1 + 8)  # its own settings are not measured again
    assert longer.trials[:3] == first.trials and len(longer.trials) == 8
    # A generator that began anew would propose the first ones again.
    assert settings_of(longer)[3:6] != settings_of(first)


@pytest.mark.parametrize("dies_at", [2, 4, 8])
def test_a_search_that_was_killed_goes_on(tmp_path, monkeypatch, dies_at):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(dies_at)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    asked = counted(monkeypatch)
    found = search(tmp_path, 5)
    assert len(found.trials) == 5
    begun = max(0, dies_at - 1) // 2  # its own settings and trials before, two folds each
    whole = [] if dies_at == 2 else ["complete"] * (begun - 1)
    cut = [] if dies_at == 2 else ["failed"]
    assert [trial.state for trial in found.trials] == [
        *whole, *cut, *["complete"] * (5 - len(whole) - len(cut)),
    ]  # fmt: skip
    assert len(asked) == 2 * (5 - len(whole) - len(cut)) + (2 if dies_at == 2 else 0)
    for trial in found.trials:
        partly = dies_at % 2 == 0 and trial.state == "failed"
        assert (trial.figure is not None) == (trial.state == "complete" or partly)
        assert trial.settings
    assert found.taken.state == "complete"
    assert search(tmp_path, 5) == found
    states = states_in(tmp_path / "its.journal")
    assert set(states) <= {"COMPLETE", "FAIL"} and len(states) == 5


def test_a_line_that_a_killed_process_wrote_half_is_cut(tmp_path, monkeypatch):
    counted(monkeypatch)
    first = search(tmp_path, 2)
    journal = tmp_path / "its.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x')
    longer = search(tmp_path, 4)
    assert longer.trials[:2] == first.trials and len(longer.trials) == 4
    assert search(tmp_path, 4) == longer


def test_after_each_trial_the_journal_holds_it(tmp_path, monkeypatch):
    journal, copies = tmp_path / "its.journal", []
    counted(monkeypatch)
    found = search(tmp_path, 3, after=lambda: copies.append(journal.read_bytes()))
    assert len(copies) == 4  # its own settings, and three trials
    monkeypatch.setattr(Search, "figure", None)  # nothing may be left to do
    for number, copy in enumerate(copies):
        other = tmp_path / f"{number}.journal"
        other.write_bytes(copy)
        again = search(tmp_path, number, journal=other)
        assert again.trials == found.trials[:number] and again.own == found.own
    assert again == found


def test_hopeless_trials_are_given_up_and_keep_their_figures(tmp_path, monkeypatch):
    asked = counted(monkeypatch)
    found = search(tmp_path, 20, tuned_task(folds=4, warm_up=3))
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned and {trial.number for trial in pruned} & {0, 1, 2} == set()
    assert all(trial.figure is not None for trial in pruned)
    assert len(asked) < 4 * 21
    assert found.taken.state == "complete"
    whole = [trial.figure for trial in found.trials if trial.state == "complete"]
    assert found.taken.figure == max([*whole, found.own.figure])
    none = search(tmp_path, 20, tuned_task(folds=4, warm_up=50))
    assert all(trial.state == "complete" for trial in none.trials)


def test_a_trial_that_was_given_up_is_never_taken(tmp_path, monkeypatch):
    # High on the first fold, where it is given up nevertheless: then it knows no better.
    import optuna

    counted(monkeypatch, lambda self, task, fold: float(task.model.min_documents > 2))
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: True)
    found = search(tmp_path, 3)
    assert {trial.state for trial in found.trials} == {"pruned"}
    assert max(trial.figure for trial in found.trials) > found.own.figure
    assert found.best == -1 and found.taken == found.own


def test_own_settings_win_where_nothing_is_better(tmp_path, monkeypatch):
    counted(monkeypatch, lambda self, task, fold: 0.5)
    found = search(tmp_path, 3)
    assert (found.best, found.taken, found.assignments()) == (-1, found.own, [])
    task = tuned_task()
    assert found.apply(task) is task
    assert "Taken: the task&#x27;s own settings." in found.to_html()


def test_proposals_go_where_the_metric_is_better(tmp_path, monkeypatch):
    counted(monkeypatch)
    low = figures_of(search(tmp_path, 30, tuned_task(gate={"metric": "mae"})))
    high = figures_of(search(tmp_path, 30))
    assert np.mean(low[-10:]) < np.mean(low[:10]) - 0.05
    assert np.mean(high[-10:]) > np.mean(high[:10]) + 0.05


def test_where_lower_is_better_the_lowest_is_taken(tmp_path, monkeypatch):
    counted(monkeypatch)
    found = search(tmp_path, 6, tuned_task(gate={"metric": "mae"}))
    assert found.taken.figure == min(figures_of(found))
    other = search(tmp_path, 6)
    assert other.taken.figure == max(figures_of(other)) > found.taken.figure


def test_the_best_settings_make_a_task(tmp_path, monkeypatch):
    counted(monkeypatch)
    space = {
        "model.min_documents": {"kind": "range", "low": 190, "high": 210, "whole": True},
        "model.characters": {"kind": "choices", "values": [[2, 4], [3, 3]]},
        "text.max_characters": {"kind": "choices", "values": [300, 400]},
    }
    task = tuned_task(space, split={"folds": 5})
    found = search(tmp_path, 4, task)
    assert found.best >= 0
    applied = found.apply(task)
    assert 190 <= applied.model.min_documents <= 210
    assert applied.model.characters in ((2, 4), (3, 3))
    assert applied.text.max_characters in (300, 400)
    assert applied.split.folds == 5  # only a trial goes without
    assert applied.tune == task.tune and applied.name == task.name
    assert validate(Task, applied.model_dump(mode="json"), "again") == applied
    with pytest.raises(ConfigError, match="given 'min_documents'"):
        found.apply(tuned_task(model={"family": "encoder"}))


def test_settings_that_learn_nothing_count_as_tried(tmp_path, monkeypatch):
    def fails(self, task, fold):
        if task.model.min_documents > 200:
            raise DataError("no words")
        return figure(self, task, fold)

    counted(monkeypatch, fails)
    found = search(tmp_path, 8)
    states = [trial.state for trial in found.trials]
    assert len(states) == 8 and set(states) == {"complete", "failed"}
    for trial in found.trials:
        assert (trial.figure is None) == (trial.state == "failed")
        assert (int(trial.settings["model.min_documents"]) > 200) == (trial.state == "failed")
    assert found.taken.state == "complete"


def test_settings_that_do_not_go_together_count_as_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(Search, "figure", lambda self, task, fold: 0.5)
    task = tuned_task(
        {
            "text.max_tokens": {"kind": "choices", "values": [64, 8_192]},
            "text.windows": {"kind": "choices", "values": [4, 64]},
        },
        model={"family": "encoder"},
        text={"long": "windows_mean", "max_tokens": 64},
    )
    found = search(tmp_path, 12, task)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert len(found.trials) == 12 and 0 < len(failed) < 12
    both = {"text.max_tokens": "8192", "text.windows": "64"}
    assert all(trial.settings == both for trial in failed)


def test_a_broken_program_is_no_failed_trial(tmp_path, monkeypatch):
    def breaks(self, task, fold):
        if task.model.min_documents == 2:
            return 0.1
        raise RuntimeError("a bug")

    counted(monkeypatch, breaks)
    with pytest.raises(RuntimeError, match="a bug"):
        search(tmp_path, 3)


def test_another_task_other_documents_and_other_folds_are_another_search(tmp_path):
    task, data = tuned_task(), documents()
    sides = split(data, task.target, task.split, task.seed)
    swapped = sides.model_copy(
        update={"sides": sides.sides | {"test": sides.sides["validation"],
                                        "validation": sides.sides["test"]}}
    )  # fmt: skip
    other = Dataset(data.table, data.info.model_copy(update={"fingerprint": "f" * 64}))
    keys = [
        search_of(*given, tmp_path).key()
        for given in [
            (task, data, sides),
            (task, data, sides),
            (tuned_task(seed=1), data, sides),
            (task, other, sides),
            (task, data, swapped),
        ]
    ]
    assert keys[0] == keys[1] and len(set(keys)) == 4
    assert all(key.startswith("toy-") for key in keys)


def test_a_page_shows_the_best_first_and_escapes():
    def trial(number, state, value, word="[1, 1]"):
        return TunedTrial(
            number=number, state=state, figure=value, settings={"model.words": word}, seconds=1.0
        )

    trials = (
        trial(0, "complete", 0.2), trial(1, "failed", None, "<script>"), trial(2, "pruned", 0.7),
    )  # fmt: skip
    own = TunedTrial(number=-1, state="complete", figure=0.1, settings={}, seconds=1.0)
    found = Tuning(
        task="toy", metric="spearman", folds=2, documents=1_234, own=own, trials=trials, best=0
    )
    page = found.to_html()
    assert "<script>" not in page and "model.words=&lt;script&gt;" in page
    assert page.index("0.1000") < page.index("0.7000") < page.index("0.2000")
    assert "3 trials on 2 folds of 1,234 documents" in page and "Taken: trial 0." in page
    assert np.isclose(found.taken.figure, 0.2)
    assert Tuning.model_validate_json(found.model_dump_json()) == found
