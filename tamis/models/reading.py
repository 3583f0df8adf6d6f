"""What is read of a text: how much, from where, and as how many sequences of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tamis.task import TextLimits

CHARACTERS_PER_TOKEN = 5
"""What is tokenized first, for each token that may be read: enough for nine in ten of the texts of
the embedded pool that fill the limit."""
_WORD = 32
"""How far a window's start moves so as not to stand within a word."""


class Part(NamedTuple):
    """A sequence that was read of a text.

    Attributes:
        ids: Token ids, special ones included.
        tokens: Tokens that ``characters`` make, special ones not counted.
        characters: Of the text; as many as were read, or more.
    """

    ids: list[int]
    tokens: int
    characters: int


def read(tokenizer: Any, texts: Sequence[str], limits: TextLimits) -> list[list[Part]]:
    """The sequences that are read of each text: one, or with windows up to as many as those."""
    if limits.long == "head_tail":
        return [[part] for part in _heads_and_tails(tokenizer, texts, limits)]
    parts = [[part] for part in _heads(tokenizer, texts, limits)]
    if limits.long in ("windows_mean", "windows_max"):
        _add_windows(tokenizer, texts, limits, parts)
    return parts


def splits_at_blanks(tokenizer: Any) -> bool:
    """Whether the tokens before a blank do not depend on what follows it, nor the other way round.

    So it is with tokenizers of BERT's kind, which split at blanks and punctuation and then look
    at each word alone. Of all others it is not assumed.
    """
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.truncation_side != "right":
        return False
    steps = ((backend.normalizer, BertNormalizer), (backend.pre_tokenizer, BertPreTokenizer))
    if not all(type(found) is wanted for found, wanted in (*steps, (backend.model, WordPiece))):
        return False
    # A token that is looked for in the text as it stands could reach over a blank.
    return all(
        token.content.split() == [token.content]
        and not (token.normalized or token.lstrip or token.rstrip)
        for token in backend.get_added_tokens_decoder().values()
    )


def _before_blank(text: str, characters: int) -> str:
    """The beginning of a text up to the last blank in so many characters; all if there is none."""
    if len(text) <= characters:
        return text
    # These two, because every step of the tokenizer takes them for blanks.
    end = max(text.rfind(" ", 0, characters + 1), text.rfind("\n", 0, characters + 1))
    return text[:end] if end > 0 else text


def _from_blank(text: str, characters: int) -> str:
    """The end of a text from the first blank in so many characters; all if there is none."""
    start = max(0, len(text) - characters)
    found = [at for at in (text.find(" ", start), text.find("\n", start)) if at >= 0]
    return text[min(found) :] if start and found else text


def _call(tokenizer: Any, texts: list[str], **how: Any) -> Any:
    """What the tokenizer makes of texts; a lone surrogate, which has no UTF-8, is a ``?``."""
    try:
        return tokenizer(texts, return_attention_mask=False, **how)
    except (TypeError, UnicodeEncodeError):
        plain = [text.encode("utf-8", "replace").decode() for text in texts]
        return tokenizer(plain, return_attention_mask=False, **how)


def _heads(tokenizer: Any, texts: Sequence[str], limits: TextLimits) -> list[Part]:
    """The beginning of each text, up to the limits.

    Where the tokens before a blank stand by themselves, only as much is tokenized as will do in
    most cases, and the rest only where that did not fill the sequence.
    """
    cut = [text[: limits.max_characters] for text in texts]
    if not splits_at_blanks(tokenizer):
        return _beginnings(tokenizer, cut, cut, limits)
    short = [_before_blank(text, CHARACTERS_PER_TOKEN * limits.max_tokens) for text in cut]
    parts = _beginnings(tokenizer, short, cut, limits)
    again = [
        row
        for row, part in enumerate(parts)
        if len(part.ids) < limits.max_tokens and len(short[row]) < len(cut[row])
    ]
    rest = [cut[row] for row in again]
    for row, part in zip(again, _beginnings(tokenizer, rest, rest, limits), strict=True):
        parts[row] = part
    return parts


def _beginnings(tokenizer: Any, short: list[str], cut: list[str], limits: TextLimits) -> list[Part]:
    """Tokens of ``short``, whose texts are beginnings of those of ``cut``."""
    if not short:
        return []
    encoded = _call(tokenizer, short, truncation=True, max_length=limits.max_tokens)
    special = tokenizer.num_special_tokens_to_add()
    parts = []
    for row, (ids, text) in enumerate(zip(encoded["input_ids"], cut, strict=True)):
        characters = len(text)
        if len(ids) >= limits.max_tokens:
            characters = _characters_read(tokenizer, encoded, row, text)
        parts.append(Part(ids, len(ids) - special, characters))
    return parts


def _characters_read(tokenizer: Any, encoded: Any, row: int, text: str) -> int:
    """Where the last token that is not special ends in a text; all of it if blanks follow."""
    if encoded.encodings is None:  # a tokenizer in pure Python knows no offsets
        return len(tokenizer.decode(encoded["input_ids"][row], skip_special_tokens=True))
    encoding = encoded.encodings[row]
    spans = (encoding.token_to_chars(at) for at in range(len(encoding) - 1, -1, -1))
    end: int = next((span[1] for span in spans if span is not None), 0)
    return end if text[end:].strip() else len(text)


def _heads_and_tails(tokenizer: Any, texts: Sequence[str], limits: TextLimits) -> list[Part]:
    """Of each text that does not fit, the first and the last tokens as one sequence.

    As in ``_heads``, less is tokenized where that is safe and fills both halves.
    """
    room = limits.max_tokens - int(tokenizer.num_special_tokens_to_add())
    first, last = room - room // 2, room // 2
    half = limits.max_characters // 2
    pieces = [
        [text] if len(text) <= limits.max_characters else [text[:half], text[-half:]]
        for text in texts
    ]
    short = pieces
    if splits_at_blanks(tokenizer):
        characters = CHARACTERS_PER_TOKEN * first
        short = [
            [_before_blank(cut[0], characters), _from_blank(cut[1], characters)]
            if len(cut) == 2
            else cut
            for cut in pieces
        ]
    bodies = _bodies(tokenizer, short)
    again = [
        row
        for row, found in enumerate(bodies)
        if short[row] != pieces[row] and (len(found[0].ids) < first or len(found[-1].ids) < last)
    ]
    rest = _bodies(tokenizer, [pieces[row] for row in again])
    for row, found in zip(again, rest, strict=True):
        bodies[row], short[row] = found, pieces[row]
    return [
        Part(
            found[0].around(_ends([body.ids for body in found], first, last)),
            sum(len(body.ids) for body in found),
            sum(map(len, cut)),
        )
        for found, cut in zip(bodies, short, strict=True)
    ]


def _ends(ids: list[list[int]], first: int, last: int) -> list[int]:
    """The first and the last token ids of a text that was tokenized whole, or in two pieces."""
    if len(ids) == 1 and len(ids[0]) <= first + last:
        return ids[0]
    return ids[0][:first] + ids[-1][-last:]


class _Body(NamedTuple):
    """Token ids of a piece of text, and the special ones that stand before and after them."""

    before: list[int]
    ids: list[int]
    after: list[int]

    def around(self, ids: list[int]) -> list[int]:
        """Other ids between the same special ones."""
        return self.before + ids + self.after


def _bodies(tokenizer: Any, pieces: list[list[str]]) -> list[list[_Body]]:
    """All tokens of the pieces of each text."""
    if not pieces:
        return []
    flat = [piece for cut in pieces for piece in cut]
    encoded = _call(tokenizer, flat, return_special_tokens_mask=True)
    found = map(_body, encoded["input_ids"], encoded["special_tokens_mask"])
    return [[next(found) for _ in cut] for cut in pieces]


def _body(ids: list[int], special: list[int]) -> _Body:
    inside = [at for at, one in enumerate(special) if not one]
    start, end = (inside[0], inside[-1] + 1) if inside else (len(ids), len(ids))
    return _Body(ids[:start], ids[start:end], ids[end:])


def _add_windows(
    tokenizer: Any, texts: Sequence[str], limits: TextLimits, parts: list[list[Part]]
) -> None:
    """Give each text that goes on after its first sequence more of them, evenly spread.

    As many as cover it, by what the first one covers, and at most ``limits.windows``; the last
    one ends about where the text does. Those in which nothing is to be read are left out.
    """
    starts = [
        _starts(text, found[0].characters, limits.windows)
        for text, found in zip(texts, parts, strict=True)
    ]
    pieces = [
        text[start : start + limits.max_characters]
        for text, own in zip(texts, starts, strict=True)
        for start in own
    ]
    windows = iter(_heads(tokenizer, pieces, limits))
    for found, own in zip(parts, starts, strict=True):
        found += [next(windows) for _ in own]
        found[:] = [part for part in found if part.tokens] or found[:1]


def _starts(text: str, read: int, windows: int) -> list[int]:
    """Where the windows after the first begin, if that has read so many characters."""
    length = len(text.rstrip())
    if length <= read:
        return []
    count = min(windows, -(-length // max(1, read)))
    evenly = [round((length - read) * at / (count - 1)) for at in range(1, count)]
    return [text.find(" ", start, start + _WORD) + 1 or start for start in evenly]
