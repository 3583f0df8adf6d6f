"""Personal data in texts: e-mail addresses, IP addresses, telephone numbers and IBANs, masked.

Found by form alone: names, postal addresses and the like stay. Known to be taken for personal data
though they are not: ``git@host.org``, package versions such as ``name@1.0.beta``, four-part
numbers that are global IP addresses (unless a word such as ``version`` is before them), and other
numbers written as telephone numbers are.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

from tamis.corpus.settings import PiiKind, PiiSettings
from tamis.errors import UsageError

MASKS: dict[PiiKind, str] = {
    "email": "<EMAIL>",
    "iban": "<IBAN>",
    "ip": "<IP>",
    "phone": "<PHONE>",
}
"""What stands in place of each kind, in the order in which they are looked for."""

Span = tuple[int, int]

_ROUNDS = 5
_MOST_IN_VAIN = 100_000
_BEFORE, _AFTER = 25, 12
_NEVER = 1_000

# Every repetition is bounded: time grows with the length of the text and no faster.
_LOCAL = re.compile(r"[\w.%+-]{1,65}")
_DOMAIN = re.compile(r"(?:[^\W_](?:[^\W_]|-){0,62}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}(?:[ \u00a0]?[A-Z0-9]){11,30}")
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}")
_NUMBERED = re.compile(
    r"\b(?:v|ver|version|release|build|section|chapter|article|rule|no)\.? ?$|§ ?$"
)
_SEPARATORS = "-.()/ \u00a0\u2010\u2011\u2012\u2013\u2014\u2015"
_PHONE = re.compile(rf"[0-9](?:[{_SEPARATORS}]{{0,3}}[0-9]){{6,200}}")
_CUE = re.compile(r"phone|call|tel\b|fax|mobile|cell|text|sms|whatsapp")


class PiiFilter:
    """Replaces personal data by masks; a masked text is left as it is.

    E-mail addresses must have a dot in the domain. Of IP addresses only global ones count (no
    private, reserved or documentation ranges; IPv6 in 2000::/3, without embedded IPv4). IBANs must
    have a right checksum, in capitals, in one piece or with single blanks. Telephone numbers must
    be valid to the phonenumbers library, with ``+`` and country or as written in the settings'
    regions (digits in one piece only after a word such as ``phone``), of 7 ASCII digits or more;
    after 100,000 characters of digits without any, no more are looked at, for that is a table.

    Args:
        settings: Kinds and regions; what is done about them is the caller's business.

    Raises:
        UsageError: A region is none.
    """

    def __init__(self, settings: PiiSettings) -> None:
        finders: dict[PiiKind, Callable[[str], Iterator[Span]]] = {
            "email": _emails,
            "iban": _ibans,
            "ip": _addresses,
            "phone": _Phones(settings.regions).find,
        }
        self._finders = [(kind, finders[kind]) for kind in MASKS if kind in settings.kinds]

    def apply(self, text: str) -> tuple[str, dict[str, int]]:
        """The masked text, and how many of each kind were found; kinds without any are left out."""
        counts: Counter[str] = Counter()
        # A mask can set apart what was no number on its own before.
        for _ in range(_ROUNDS):
            found = 0
            for kind, find in self._finders:
                text, masked = _mask(text, find(text), MASKS[kind])
                if masked:
                    counts[kind] += masked
                    found += masked
            if not found:
                break
        return text, dict(counts)


def _mask(text: str, spans: Iterator[Span], mask: str) -> tuple[str, int]:
    parts: list[str] = []
    end, found = 0, 0
    for start, stop in spans:
        parts += text[end:start], mask
        end, found = stop, found + 1
    return ("".join([*parts, text[end:]]), found) if found else (text, 0)


def _emails(text: str) -> Iterator[Span]:
    end, at = 0, text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        if domain:
            local = _LOCAL.match(text[max(end, at - 65) : at][::-1])
            length = len(local[0].rstrip(".+%-")) if local else 0
            if 0 < length <= 64 and text[at - 1] != ".":
                end = domain.end()
                yield at - length, end
        at = text.find("@", max(at + 1, end))


def _ibans(text: str) -> Iterator[Span]:
    from stdnum import iban

    end = 0
    for match in _IBAN.finditer(text):
        start = match.start()
        if start < end or text[max(0, start - 1) : start].isalnum():
            continue
        # Words in capitals may follow; the country tells where the number ends.
        characters = [i for i in range(start, match.end()) if text[i].isalnum()]
        length = _iban_length(match[0][:2])
        if length and length <= len(characters):
            stop = characters[length - 1] + 1
            number = "".join(text[i] for i in characters[:length])
            if not text[stop : stop + 1].isalnum() and iban.is_valid(number):
                end = stop
                yield start, stop


@cache
def _iban_length(country: str) -> int:
    """Characters of a country's IBANs, 0 for a country without."""
    from stdnum import numdb

    parts = dict(numdb.get("iban").info(country))
    form = parts.get(country, {}).get("bban", "")
    return 4 + sum(map(int, re.findall(r"[0-9]+", form))) if form else 0


def _addresses(text: str) -> Iterator[Span]:
    found = [*_ipv4(text), *(_ipv6(text) if text.count(":") > 1 else ())]
    yield from sorted(found)


def _ipv4(text: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text):
        start, end = match.span()
        before, after = text[max(0, start - 10) : start], text[end : end + 2]
        apart = not before[-1:].isalnum() and before[-1:] not in tuple("._-:")
        apart &= not after[:1].isalnum() and after[:1] != "_"
        apart &= not (after[:1] in tuple(".-") and after[1:].isalnum())
        if apart and not _NUMBERED.search(before.lower()) and _is_global(match[0]):
            yield start, end


def _ipv6(text: str) -> Iterator[Span]:
    for match in _IPV6.finditer(text):
        start, found = match.start(), match[0]
        if found.endswith(":") and not found.endswith("::"):
            found = found[:-1]
        end = start + len(found)
        before, after = text[max(0, start - 1) : start], text[end : end + 2]
        apart = not before.isalnum() and before not in tuple(":.")
        apart &= not after[:1].isalnum() and not (after[:1] in tuple(":.") and after[1:].isalnum())
        if apart and _is_global(found):
            yield start, end


def _is_global(found: str) -> bool:
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


class _Phones:
    """Finds telephone numbers: a cheap pattern first, then phonenumbers on what is around it."""

    def __init__(self, regions: tuple[str, ...]) -> None:
        self._regions: tuple[str | None, ...] = regions or (None,)
        self._least = min((_fewest_digits(region) for region in regions), default=_NEVER)

    def find(self, text: str) -> Iterator[Span]:
        end = vain = 0
        for candidate in _PHONE.finditer(text):
            start, stop = candidate.span()
            digits = stop - start - sum(map(candidate[0].count, _SEPARATORS))
            if digits < self._least and "+" not in text[max(0, start - 3) : stop]:
                continue
            numbers = self._numbers(text, max(end, start - 3), stop + _AFTER)
            for found in numbers:
                end = found[1]
                yield found
            vain += 0 if numbers else stop - start
            if vain > _MOST_IN_VAIN:
                return

    def _numbers(self, text: str, start: int, stop: int) -> list[Span]:
        """Numbers in a part of a text, from the left, none overlapping."""
        from phonenumbers import Leniency, PhoneNumberMatcher

        spans = sorted(
            (start + match.start, start + match.end)
            for region in self._regions
            for match in PhoneNumberMatcher(text[start:stop], region, Leniency.VALID)
        )
        found: list[Span] = []
        for span in spans:
            if (not found or span[0] >= found[-1][1]) and _stands_alone(text, *span):
                found.append(span)
        return found


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a number is no part of a longer one, and no more likely a file's number."""
    before = text[max(0, start - _BEFORE) : start]
    if before[-1:].isalnum() or text[end : end + 1].isalnum():
        return False
    return not text[start:end].isdigit() or bool(_CUE.search(before.lower()))


def _fewest_digits(region: str) -> int:
    """Digits of a region's shortest telephone numbers.

    Raises:
        UsageError: The library knows no such region.
    """
    from phonenumbers import PhoneMetadata

    metadata = PhoneMetadata.metadata_for_region(region)
    form = metadata.general_desc if metadata else None
    if form is None:
        raise UsageError(
            f"filter.pii.regions: given {region!r}; allowed: countries such as US, GB or DE"
        )
    return int(min(form.possible_length))
