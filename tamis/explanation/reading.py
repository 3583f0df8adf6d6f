"""What an encoder reads of a text, with the place of each token in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamis.explanation.words import readable

if TYPE_CHECKING:
    from tamis.models.encoder_classifier import EncoderClassifier

GAP = "\n[…]\n"
"""Shown for what lies between the beginning and the end that were read."""


class Reading(NamedTuple):
    """One sequence of tokens and the text that it stands for.

    Attributes:
        text: What was read, as it is shown.
        ids: Token ids (t,), special ones included.
        starts: Where each token begins in ``text`` (t,).
        ends: Where it ends; where it began for special ones.
        special: Which tokens stand for no text (t,).
    """

    text: str
    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    special: NDArray[np.bool_]


def reading_of(classifier: EncoderClassifier, text: str) -> Reading | None:
    """What the encoder reads of a text.

    Returns:
        None where it reads several sequences, where the tokenizer does not know places, or where
        the tokens found here are not those that the classifier scores.
    """
    from tamis.models.preparation import prepare

    limits, tokenizer = classifier.info.text, classifier.encoder.tokenizer
    if limits.long not in ("head", "head_tail") or not getattr(tokenizer, "is_fast", False):
        return None
    prepared = prepare([readable(text)], limits.preparation)[0]
    if limits.long == "head":
        found = _head(tokenizer, prepared[: limits.max_characters], limits.max_tokens)
    else:
        found = _head_tail(tokenizer, prepared, limits.max_characters, limits.max_tokens)
    scored = classifier.prepare([readable(text)]).ids
    return found if len(scored) == 1 and found.ids.tolist() == list(scored[0]) else None


def _encoded(tokenizer: Any, text: str, **how: Any) -> Reading:
    found = tokenizer(
        text,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        **how,
    )
    offsets = np.array(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    special = np.array(found["special_tokens_mask"], dtype=bool)
    starts, ends = np.where(special, 0, offsets[:, 0]), np.where(special, 0, offsets[:, 1])
    ids = np.array(found["input_ids"], dtype=np.int64)
    return Reading(text, ids, starts, ends, special)


def _head(tokenizer: Any, text: str, most: int) -> Reading:
    found = _encoded(tokenizer, text, truncation=True, max_length=most)
    if len(found.ids) < most:
        return found
    return found._replace(text=text[: int(found.ends.max(initial=0))])


def _head_tail(tokenizer: Any, text: str, characters: int, most: int) -> Reading:
    room = most - int(tokenizer.num_special_tokens_to_add())
    first, last = room - room // 2, room // 2
    if len(text) <= characters:
        whole = _encoded(tokenizer, text)
        if int((~whole.special).sum()) <= room:
            return whole
        return _joined(whole, whole, first, last)
    half = characters // 2
    return _joined(_encoded(tokenizer, text[:half]), _encoded(tokenizer, text[-half:]), first, last)


def _joined(head: Reading, tail: Reading, first: int, last: int) -> Reading:
    """The first tokens of one text and the last ones of another, between its special ones."""
    at = np.flatnonzero(~head.special)
    begin, finish = at[:first], np.flatnonzero(~tail.special)[-last:]
    upto = int(head.ends[begin].max(initial=0))
    since = int(tail.starts[finish].min(initial=len(tail.text)))
    shift = upto + len(GAP) - since
    opening = np.arange(at[0] if len(at) else len(head.ids))
    closing = np.arange(at[-1] + 1, len(head.ids)) if len(at) else np.arange(0)

    def both(of_head: NDArray[Any], of_tail: NDArray[Any]) -> NDArray[Any]:
        parts = (of_head[opening], of_head[begin], of_tail[finish], of_head[closing])
        return np.concatenate(parts)

    return Reading(
        head.text[:upto] + GAP + tail.text[since:],
        both(head.ids, tail.ids),
        both(head.starts, tail.starts + shift),
        both(head.ends, tail.ends + shift),
        both(head.special, tail.special),
    )
