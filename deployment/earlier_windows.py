"""The documents of earlier windows that the champion was trained and tested on."""

from __future__ import annotations

import logging

from deployment.data_versions import catalogue, load
from deployment.registry import Version
from tamis.corpus.dataset import Dataset
from tamis.corpus.periods import carried, no_documents
from tamis.errors import TamisError
from tamis.models.info import TrainedOn

logger = logging.getLogger(__name__)


def earlier_documents(champion: Version, trained_on: TrainedOn) -> Dataset:
    """What came in with the windows of earlier retrainings, of the champion's data version.

    Windows are in none of the task's sources; without this, a second retraining would forget the
    first one's documents. Where they were deleted, on request or to save room, there are none:
    retraining goes on without them, and its decision says how many are gone.
    """
    none = no_documents(champion.name)
    if not trained_on.window:
        return none
    fingerprint = champion.tags.get("data_fingerprint", "")
    known = [each for each in catalogue(champion.name).versions if each.fingerprint == fingerprint]
    try:
        return carried(load(known[0]), trained_on.window) if known else none
    except TamisError as error:
        logger.warning("documents of earlier windows are gone: %s", error)
        return none
