"""Whether the words that an explanation names are those that the score hangs on.

The words of largest weight are deleted from a text and the text is scored again; an explanation
that says anything moves the score more than as many words deleted at random do ("comprehensiveness"
of DeYoung et al. 2020, "ERASER", section 4.2, here in both directions).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tamis.decision import Decision, Reason
from tamis.errors import DataError
from tamis.evaluation.bootstrap import Interval
from tamis.explanation.explain import Explain, explainer
from tamis.explanation.intervals import mean_interval
from tamis.explanation.raw import raw_scores, unit_of
from tamis.explanation.words import Explanation, Unit, without
from tamis.models.classifier import Classifier
from tamis.models.encoder import Progress
from tamis.target import Floats

SHARE = 0.2
DRAWS = 5
FEWEST_WORDS = 5


class DeletionCheck(BaseModel):
    """What deleting words does to raw scores, mean over documents.

    A text with holes scores lower whatever is deleted, so each direction is set beside what as
    many words at random do.

    Attributes:
        share: Share of a document's words that is deleted.
        documents: How many were looked at.
        skipped: Documents of fewer than five words, which were not.
        draws: Random deletions of each document.
        unit: Of all figures.
        supporting: Fall of the score without the words of largest weight.
        opposing: Fall of the score without the words of smallest weight; below 0 for a rise.
        random: Fall of the score without as many words at random.
        more: ``supporting`` less ``random``, paired.
        less: ``random`` less ``opposing``, paired.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    share: float
    documents: int
    skipped: int
    draws: int
    unit: Unit
    supporting: Interval
    opposing: Interval
    random: Interval
    more: Interval
    less: Interval

    @property
    def decision(self) -> Decision:
        """Whether both directions differ from chance by more than their intervals."""
        return Decision.of(
            [
                Reason(check="supporting", passed=self.more.low > 0, detail=self.sentences[0]),
                Reason(check="opposing", passed=self.less.low > 0, detail=self.sentences[1]),
            ]
        )

    @property
    def sentences(self) -> tuple[str, str]:
        """The findings in words, one for each direction."""
        by_chance = f"without as many at random by {self.random.value:.3f}"
        return (
            f"Without the {self.share:.0%} of words that raise it most the score falls by "
            f"{self.supporting.value:.3f} {self.unit}, {by_chance}: {_signed(self.more)} more.",
            f"Without the {self.share:.0%} that lower it most it falls by "
            f"{self.opposing.value:.3f}, {by_chance}: {_signed(self.less)} less.",
        )


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def deletion_check(
    classifier: Classifier,
    texts: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    share: float = SHARE,
    draws: int = DRAWS,
    seed: int = 0,
    explain: Explain | None = None,
    progress: Progress | None = None,
) -> DeletionCheck:
    """Explain texts, and delete what counts most beside as many words at random.

    Args:
        classifier: Of any family.
        texts: The documents (n).
        groups: Group of each (n,), for the intervals; each its own by default.
        share: Of the words, deleted in either direction; at least one.
        draws: Random deletions of each document.
        seed: Of the random deletions and the intervals.
        explain: What explains a text; the classifier's own way by default.
        progress: Told after every document.

    Raises:
        DataError: No document has enough words.
    """
    explain = explain or explainer(classifier)
    explanations = []
    for done, text in enumerate(texts, start=1):
        explanations.append(explain(text))
        if progress is not None:
            progress(done, len(texts))
    names = [f"{row}" for row in range(len(texts))] if groups is None else list(groups)
    return check_explanations(classifier, explanations, names, share=share, draws=draws, seed=seed)


def check_explanations(
    classifier: Classifier,
    explanations: Sequence[Explanation],
    groups: Sequence[str],
    *,
    share: float = SHARE,
    draws: int = DRAWS,
    seed: int = 0,
) -> DeletionCheck:
    """The check on explanations that are there already; arguments as of ``deletion_check``.

    Raises:
        DataError: No document has enough words.
    """
    rng = np.random.default_rng(seed)
    rows = [row for row, each in enumerate(explanations) if len(each.words) >= FEWEST_WORDS]
    if not rows:
        raise DataError(f"no document has {FEWEST_WORDS} words, so none can be deleted")
    moved = np.array([_moved(classifier, explanations[r], share, draws, rng) for r in rows])
    supporting, opposing, random = moved.T
    own = [groups[row] for row in rows]

    def mean(values: Floats) -> Interval:
        return mean_interval(values, own, seed)

    return DeletionCheck(
        share=share,
        documents=len(rows),
        skipped=len(explanations) - len(rows),
        draws=draws,
        unit=unit_of(classifier.info.target),
        supporting=mean(supporting),
        opposing=mean(opposing),
        random=mean(random),
        more=mean(supporting - random),
        less=mean(random - opposing),
    )


def _moved(
    classifier: Classifier,
    found: Explanation,
    share: float,
    draws: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Fall of one document's score: largest weights, smallest, and mean at random."""
    size = len(found.words)
    count = min(max(1, round(share * size)), size - 1)
    order = np.argsort([word.weight for word in found.words], kind="stable")
    chosen = [order[-count:], order[:count]]
    chosen += [rng.choice(size, count, replace=False) for _ in range(draws)]
    texts = [found.text, *(_less(found, words) for words in chosen)]
    whole, *left = raw_scores(classifier, texts).tolist()
    return whole - left[0], whole - left[1], whole - float(np.mean(left[2:]))


def _less(found: Explanation, words: NDArray[np.int64]) -> str:
    gone = [found.words[row] for row in np.sort(words)]
    return without(found.text, [(word.start, word.end) for word in gone])
