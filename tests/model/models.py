"""A real small classifier, and models that are broken on purpose."""

import re
import zlib

import numpy as np

from tamis.evaluation.behaviour import Documents
from tamis.evaluation.behaviour_settings import BehaviourSettings, Case
from tamis.models.classifier import Scores
from tests.tiny import BAD_WORDS, GOOD_WORDS, NEUTRAL_WORDS

EXPLAINED = (
    "The {a} of a {b} follows from the {c}, because every {b} has one {a}.",
    "It is therefore enough to show that the {c} holds for each {b} in turn.",
    "Suppose that a {b} had no {a}; then its {c} would be empty, which it is not.",
    "This {a} is used wherever a {c} is known but the {b} is not.",
)
SOLD = (
    "Big {a} today, every {b} at half the price and a free {c} with it!",
    "Click the {b} now, this {a} ends on Sunday.",
    "Our {c} is the best {b} in town, order the {a} with free delivery.",
    "Only three left: {a}, {b} and {c} while stocks last.",
)


def pages(size, seed=0):
    """Texts that explain or sell, and how much of each explains (size,)."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(size):
        label = int(rng.integers(0, 6))
        sentences = []
        for _ in range(5):
            good = rng.random() < label / 5
            words = GOOD_WORDS if good else BAD_WORDS
            a, b, c = rng.choice(words if rng.random() < 0.8 else NEUTRAL_WORDS, 3)
            sentences.append(rng.choice(EXPLAINED if good else SOLD).format(a=a, b=b, c=c))
        texts.append(" ".join(sentences))
        labels.append(float(label))
    return texts, labels


def documents(size=60, seed=7):
    """Pages as the behaviour tests want them, in groups of two."""
    texts, _ = pages(size, seed)
    ids = [f"doc{row:03d}" for row in range(size)]
    return Documents(ids, texts, [f"page{row // 2}" for row in range(size)])


CASES = (
    Case(
        name="explains over sells",
        higher="The integral of a matrix follows from the lemma, because every lemma has one.",
        lower="Big sale today, cheap offer, click and buy now with a free discount!",
        margin=0.5,
    ),
    Case(name="sells", text=" ".join(SOLD).format(a="sale", b="offer", c="discount"), at_most=1.5),
)

LIMITS = BehaviourSettings.model_validate(
    {
        "sample": 60,
        "direction": {
            "outline": {"share": 0.8},
            "first_sentence": {"share": 0.7},
            "menu": {"share": 0.7, "fall": 0.02},
        },
        "invariance": {
            "whitespace": {"median": 0.0, "p95": 0.0, "flipped": 0.0},
            "casing": {"median": 0.01, "p95": 0.05},
            "navigation": {"median": 0.15, "p95": 0.3, "flipped": 0.3},
            "cookies": {"median": 0.15, "p95": 0.3, "flipped": 0.3},
        },
        "noise": (
            {"kind": "typos", "share": 0.01, "spearman": 0.9},
            {"kind": "ocr", "share": 0.05, "spearman": 0.6},
        ),
        "texts": CASES,
    }
)
"""What the real small model keeps; ``shuffled`` is left out, since it reads words one by one."""


class Broken:
    """Scores by a rule instead of by what a text says."""

    def __init__(self, info, rule):
        self.info, self.rule, self.calls = info, rule, 0

    def score(self, texts, progress=None):
        self.calls += 1
        values = np.array([self.rule(text) for text in texts], dtype=np.float64)
        return Scores(np.clip(values, 0, 5), np.ones(len(texts), dtype=np.int64))


def by_length(text):
    """Longer is better."""
    return len(text) / 80


def at_random(text):
    """Any text anywhere on the scale, the same one always in the same place."""
    return zlib.crc32(text.encode()) / 2**32 * 5


def by_capitals(text):
    """Capitals are better: minds the casing of what is around a text."""
    letters = [c for c in text if c.isalpha()]
    return 60 * sum(c.isupper() for c in letters) / max(len(letters), 1)


def by_bag(text):
    """Knows words but no order: the share of words that are common in explanations."""
    words = re.findall(r"[a-z]+", text.lower())
    return 10 * sum(w in ("the", "is", "that", "of", "it") for w in words) / max(len(words), 1)


def by_menu(text):
    """Takes what stands around a text for the text."""
    return 5.0 if re.search(r"(?i)sign in|log in|my account|pricing|cookie", text) else 2.4


def the_other_way(text):
    """The less it explains, the better."""
    return 5 - by_bag(text)


def constant(text):
    """Knows nothing."""
    return 3.0


def not_a_number(text):
    """Fails on long texts."""
    return np.nan if len(text) > 200 else 3.0
