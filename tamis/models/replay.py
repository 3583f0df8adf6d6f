"""What old and new documents weigh in the training of a challenger.

Weights count where parameters are fitted. Validation figures, the calibration of scores and the
threshold look at the documents as they are.
"""

from __future__ import annotations

import numpy as np

from tamis.corpus.dataset import Dataset
from tamis.corpus.split import Assignment
from tamis.models.info import Replayed
from tamis.monitoring.retrain_settings import Replay
from tamis.target import Floats


def replayed(replay: Replay, assignment: Assignment) -> Replayed | None:
    """What the settings of a replay make old and new documents weigh.

    Args:
        replay: The settings.
        assignment: Sides of the documents, and which of them came in with a window.

    Returns:
        None where each document weighs the same: the fit is then the one without weights.
    """
    fitted_on = {*assignment.sides["train"], *assignment.sides["validation"]}
    new = len(fitted_on & set(assignment.window))
    old = len(fitted_on) - new
    if not new or not old:
        return None
    ratio = replay.new / replay.old
    if replay.balance == "periods":
        ratio *= min(max(old / new, 1 / replay.most), replay.most)
    if ratio == 1:
        return None
    old_weight = (old + new) / (old + ratio * new)
    return Replayed(old=old, new=new, old_weight=old_weight, new_weight=ratio * old_weight)


def weights_of(replay: Replay, dataset: Dataset, assignment: Assignment) -> Floats | None:
    """Weight of each document in a fit (n,), with a mean of 1 over training and validation.

    Args:
        replay: The settings.
        dataset: Labelled documents (n).
        assignment: Their sides, and which of them came in with a window.
    """
    found = replayed(replay, assignment)
    if found is None:
        return None
    new = np.isin(dataset.strings("id"), assignment.window)
    return np.where(new, found.new_weight, found.old_weight)
