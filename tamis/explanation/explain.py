"""One function that explains a score, whatever the family of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tamis.explanation.words import Explanation
from tamis.models.classifier import Classifier

if TYPE_CHECKING:
    from tamis.models.encoder_classifier import EncoderClassifier

Explain = Callable[[str], Explanation]


def explain_text(classifier: Classifier, text: str) -> Explanation:
    """What each word of a text adds to its score.

    It may be called from several threads at once, also while others score with the classifier.

    Args:
        classifier: Of any family.
        text: Any text.
    """
    return explainer(classifier)(text)


def explainer(classifier: Classifier) -> Explain:
    """How texts of a classifier are explained: for many texts, in one thread.

    Encoders that torch runs: integrated gradients; where one reads a text in windows, or its
    tokenizer does not know places, occlusion. Linear models: exact contributions, unless there are
    several classes on a side. All others: occlusion.
    """
    from tamis.explanation.linear import contributions, is_additive
    from tamis.explanation.occlusion import occlude
    from tamis.models.encoder import Encoder
    from tamis.models.encoder_classifier import EncoderClassifier
    from tamis.models.linear import LinearClassifier

    if isinstance(classifier, EncoderClassifier) and isinstance(classifier.encoder, Encoder):
        return _by_gradients(classifier)
    if isinstance(classifier, LinearClassifier) and is_additive(classifier.info.target):
        linear = classifier
        return lambda text: contributions(linear, text)
    return lambda text: occlude(classifier, text)


def _by_gradients(classifier: EncoderClassifier) -> Explain:
    from tamis.explanation.gradients import Gradients
    from tamis.explanation.occlusion import occlude
    from tamis.explanation.reading import reading_of

    gradients = Gradients(classifier)

    def explain(text: str) -> Explanation:
        reading = reading_of(classifier, text)
        return occlude(classifier, text) if reading is None else gradients.explain(reading)

    return explain
