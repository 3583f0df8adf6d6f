"""MinHash signatures of texts: what two documents share, from a few bytes of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.corpus.settings import NearDuplicateSettings

CHARACTERS = 200_000
"""Of a longer text the beginning counts; its signature then takes a few milliseconds."""

# Thai, Lao, Myanmar, Khmer, kana, bopomofo and Han: scripts that put no space between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u312f\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(r"\w+")
_WORD_OR_CHARACTER = re.compile(rf"[^\W{_UNSPACED}]+|[^\W_]")
_TYPOGRAPHY = "\u2019\u201c\u201d\u2013\u2014\u2026\u2018\u00a0\u2022\u00b7"
_FOLD = bytes(
    ord(chr(code).lower()) if chr(code).isalnum() or chr(code) == "_" else ord(" ")
    for code in range(128)
) + bytes(128)
_BLOCK = 512
_KNOWN_WORDS = 200_000
_SEED = 1
_TOP = np.uint32((1 << 32) - 1)


def words(text: str, characters: int = CHARACTERS) -> list[str]:
    """Words of the first ``characters`` of a text, lower case; without any, the text itself.

    Runs of letters, digits and underscores; in scripts without spaces each character is a word.
    """
    text = text[:characters]
    plain = text
    if not text.isascii():
        for character in _TYPOGRAPHY:  # most of what keeps English from being ASCII
            plain = plain.replace(character, " ")
    if plain.isascii():  # twice as fast as a pattern
        found = plain.encode("ascii").translate(_FOLD).decode("ascii").split()
    else:
        pattern = _WORD_OR_CHARACTER if _IS_UNSPACED.search(plain) else _WORD
        found = pattern.findall(plain.lower())
    return found or [text]


class _WordHashes(dict[str, int]):
    """64-bit xxh3 of words, those of the last texts remembered."""

    def __missing__(self, word: str) -> int:
        import xxhash

        if len(self) >= _KNOWN_WORDS:
            self.clear()
        found = self[word] = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return found


class MinHasher:
    """Smallest hash of a text's word n-grams under each of several permutations.

    Broder 1997, *On the resemblance and containment of documents*: two texts agree in a
    permutation as often as the Jaccard similarity of their sets of n-grams. The permutations are
    those of datasketch's ``affine32`` scheme (``a * mix(h) + b`` modulo 2^32, a odd).

    Args:
        permutations: How many.
        ngram: Words in a row.
        characters: How much of a text counts.
    """

    def __init__(self, permutations: int, ngram: int, characters: int = CHARACTERS) -> None:
        from datasketch import MinHash

        self.ngram, self.characters = ngram, characters
        self.permutations: NDArray[np.uint32] = MinHash(
            num_perm=permutations, seed=_SEED, scheme="affine32"
        ).permutations
        random = np.random.RandomState(_SEED)  # its stream is frozen for good (NumPy's NEP 19)
        self.multipliers = random.randint(0, 1 << 63, ngram, dtype=np.uint64) * np.uint64(2)
        self.multipliers += np.uint64(1)
        self.known = _WordHashes()
        self.space = np.empty((_BLOCK, permutations), dtype=np.uint32)

    def hashes(self, text: str) -> NDArray[np.uint32]:
        """Hash of each n-gram of a text (at least 1,); a shorter text is one n-gram.

        Multilinear hashing of the words' hashes (Lemire & Kaser 2014, *Strongly universal string
        hashing is fast*, section 3), its upper 32 bits.
        """
        found = words(text, self.characters)
        codes = np.fromiter(map(self.known.__getitem__, found), np.uint64, len(found))
        size = max(1, len(codes) - self.ngram + 1)
        sums = np.zeros(size, dtype=np.uint64)
        for start, multiplier in enumerate(self.multipliers[: len(codes)]):
            sums += codes[start : start + size] * multiplier
        return (sums >> np.uint64(32)).astype(np.uint32)

    def minima(self, text: str) -> NDArray[np.uint32]:
        """Smallest permuted hash of a text (permutations,)."""
        hashes = _mix(self.hashes(text))
        factors, terms = self.permutations
        smallest = np.full(len(factors), _TOP)
        for start in range(0, len(hashes), _BLOCK):
            block = hashes[start : start + _BLOCK, None]
            space = self.space[: len(block)]
            np.multiply(block, factors, out=space)
            space += terms
            np.minimum(smallest, space.min(axis=0), out=smallest)
        return smallest


def _mix(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finaliser of MurmurHash3, which datasketch applies before its permutations."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


@dataclass(frozen=True, slots=True)
class Signatures:
    """What remains of n documents.

    Attributes:
        bands: Hash of each band (n, bands): equal in some band, two documents are candidates.
        codes: One byte a permutation (n, bands * rows), to estimate similarities from.
    """

    bands: NDArray[np.uint64]
    codes: NDArray[np.uint8]


class Signer:
    """Signs documents for the search of near-duplicates.

    Args:
        settings: n-gram, bands and rows.
    """

    def __init__(self, settings: NearDuplicateSettings) -> None:
        self.bands, self.rows = settings.bands, settings.rows
        self.hasher = MinHasher(self.bands * self.rows, settings.ngram)
        random = np.random.RandomState(_SEED + 1)
        self.multipliers = random.randint(0, 1 << 63, self.rows, dtype=np.uint64) * np.uint64(2)
        self.multipliers += np.uint64(1)

    def sign(self, texts: Sequence[str]) -> Signatures:
        """Signatures of texts (n); the same text has the same one everywhere.

        Banding as in Leskovec et al., *Mining of Massive Datasets*, section 3.4; bytes as in
        Li & König 2010, *b-Bit minwise hashing* (b = 8).
        """
        minima = np.empty((len(texts), self.bands * self.rows), dtype=np.uint32)
        for row, text in enumerate(texts):
            minima[row] = self.hasher.minima(text)
        grouped = minima.reshape(len(texts), self.bands, self.rows)
        bands = np.zeros(grouped.shape[:2], dtype=np.uint64)
        for row, multiplier in enumerate(self.multipliers):
            bands += (grouped[:, :, row].astype(np.uint64) + np.uint64(1)) * multiplier
        # Minima are small numbers: their upper bits alone would often agree by chance.
        codes = ((minima * np.uint32(0x9E3779B1)) >> np.uint32(24)).astype(np.uint8)
        return Signatures(bands, codes)


def similarity(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Estimated Jaccard similarity (n,) of documents from their bytes, both (n, permutations).

    The share of equal bytes, less those that agree by chance (1 in 256); Li & König 2010,
    section 2.
    """
    equal = (one == other).sum(axis=1, dtype=np.uint16) / np.float32(max(1, one.shape[1]))
    estimate: NDArray[np.float32] = (equal - np.float32(1 / 256)) / np.float32(255 / 256)
    return estimate.clip(0)
