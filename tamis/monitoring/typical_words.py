"""Words that tell some documents from those behind a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tamis.monitoring.samples import words_of

_PRIOR = 500.0
_SURE = 2.0
_LONGEST = 40
_CHARACTERS = 20_000


def typical_words(
    texts: Sequence[str], reference: Mapping[str, int], documents: int, most: int = 8
) -> tuple[str, ...]:
    """The words that are in more of these texts than is to be expected of the reference.

    By the z-score of the log-odds ratio with an informative Dirichlet prior, which neither rare
    nor ubiquitous words win by themselves (Monroe, Colaresi and Quinn 2008, "Fightin' Words",
    section 3.3); of document frequencies, so that one document alone makes no word typical. A
    word is in two documents and a tenth of them at least, and has a letter.

    Args:
        texts: The documents.
        reference: In how many documents of the reference each word is.
        documents: Of the reference.
        most: How many words.

    Returns:
        The most typical first.
    """
    found: Counter[str] = Counter()
    for text in texts:
        found.update(word for word in words_of(text[:_CHARACTERS]) if _shown(word))
    least = max(2, len(texts) / 10)
    words = sorted(word for word, count in found.items() if count >= least)
    if not words or documents <= 0:
        return ()
    here = np.array([found[word] for word in words], dtype=np.float64)
    there = np.array([min(reference.get(word, 0), documents) for word in words], dtype=np.float64)
    here_all = float(found.total())
    # Words that the reference does not list are in few of its documents.
    there_all = float(sum(reference.values())) or 1.0
    prior = _PRIOR * (here + there + 1) / (here_all + there_all)
    odds = _log_odds(here + prior, here_all + _PRIOR) - _log_odds(there + prior, there_all + _PRIOR)
    z = odds / np.sqrt(1 / (here + prior) + 1 / (there + prior))
    order = np.lexsort((np.array(words), -z))
    return tuple(words[i] for i in order[:most] if z[i] > _SURE)


def _log_odds(
    count: np.ndarray[tuple[int], np.dtype[np.float64]], total: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = np.log(count / (total - count))
    return found


def _shown(word: str) -> bool:
    return len(word) <= _LONGEST and any(character.isalpha() for character in word)
