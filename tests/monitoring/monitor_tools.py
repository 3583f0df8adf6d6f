"""Profiles and windows of made documents, on which the truth is known."""

import numpy as np

from tamis.evaluation.bootstrap import Interval
from tamis.monitoring.gathering import Gathering, Row
from tamis.monitoring.monitored import finish
from tamis.monitoring.profile import ProfileFacts, ReferenceProfile
from tamis.monitoring.samples import Sample, hashed_words, words_of
from tamis.target import OrdinalTarget
from tamis.task import Task

TARGET = OrdinalTarget(kind="ordinal", minimum=0, maximum=5, keep_at_least=3)
DIMENSIONS = 16
TOPICS = {
    "school": "teacher lesson pupil algebra school grammar essay homework classroom reading",
    "sea": "harbour sailor anchor island tide fishing vessel current compass voyage",
    "court": "plaintiff verdict statute appeal judge clause tribunal lawyer evidence hearing",
}
COMMON = [f"word{number}" for number in range(60)]


def task(**monitor):
    """A task over the scale of ``TARGET``."""
    facts = {
        "name": "toy",
        "target": {"kind": "ordinal", "minimum": 0, "maximum": 5, "keep_at_least": 3},
        "sources": [{"kind": "packages"}],
        "monitor": monitor,
    }
    return Task.model_validate(facts)


def made(topics, seed=0, drift=0.0):
    """Texts, vectors and true labels of documents on topics; a topic has a place of its own."""
    rng = np.random.default_rng(seed)
    names = list(TOPICS)
    texts, vectors = [], []
    centres = np.random.default_rng(99).normal(size=(len(names), DIMENSIONS)) * 2
    for topic in topics:
        words = TOPICS[topic].split()
        chosen = [*rng.choice(words, 8), *rng.choice(COMMON, 22)]
        rng.shuffle(chosen)
        texts.append(" ".join(chosen) + ".")
        vectors.append(rng.normal(size=DIMENSIONS) + centres[names.index(topic)] + drift)
    vectors = np.array(vectors, dtype=np.float32).reshape(len(topics), DIMENSIONS)
    labels = np.clip(np.round(2.5 + 1.3 * rng.normal(size=len(topics))), 0, 5)
    return texts, vectors, labels


def scored(labels, seed=0, noise=0.6):
    """Scores that follow labels."""
    rng = np.random.default_rng(seed + 7)
    return np.clip(labels + noise * rng.normal(size=len(labels)), 0, 5)


def profile(size=600, seed=0, topics=("school", "sea")):
    """Of a model whose documents were on some topics."""
    chosen = [topics[i % len(topics)] for i in range(size)]
    texts, vectors, labels = made(chosen, seed)
    words = {}
    for text in texts:
        for word in words_of(text):
            words[word] = words.get(word, 0) + 1
    sample = Sample(
        ids=np.array([f"r{i}" for i in range(size)]),
        scores=scored(labels, seed),
        characters=np.array([len(text) for text in texts]),
        languages=np.full(size, "en"),
        sources=np.array([f"site-{i % 3}" for i in range(size)]),
        groups=np.array([f"g{i // 2}" for i in range(size)]),
        vectors=vectors,
        words=hashed_words(texts),
    )
    figure = Interval(value=0.85, low=0.8, high=0.9, n=200, groups=100)
    facts = ProfileFacts(
        task="toy",
        data="0" * 64,
        documents=size,
        threshold=2.8,
        scale=(0.0, 5.0),
        metric="spearman",
        performance={"spearman": figure},
    )
    return ReferenceProfile(
        facts, sample, labels, np.arange(size) % 3 == 0, np.zeros(size, bool), words
    )


def row(number, text="A text of some words.", vector=None, **given):
    """A row of a window."""
    facts = {
        "id": f"d{number}",
        "text": text,
        "characters": len(text or ""),
        "score": 2.0,
        "language": "en",
        "source": "served",
        "group": f"q{number}",
        "label": np.nan,
        "moment": f"{number:06d}",
        "vector": None if vector is None else (lambda: vector),
        "same": None if text is not None else f"{number:016d}".encode(),
        "content": f"d{number} {text}",
    }
    return Row(**{**facts, **given})


def window(rows, most=2_000, start=None, end=None, **counts):
    """A window of rows."""
    gathered = Gathering(most, seed=0)
    for each in rows:
        gathered.add(each)
    gathered.counts.update(counts)
    return finish(gathered, None, start, end, "made documents", scores_logged=True)


def window_of(topics, seed=1, labelled=0, flipped=0.0, texts_kept=True, drift=0.0, **counts):
    """A window of documents on topics, some of them labelled, some labels turned round."""
    texts, vectors, labels = made(topics, seed, drift)
    scores = scored(labels, seed)
    turned = np.random.default_rng(seed).random(len(labels)) < flipped
    labels = np.where(turned, 5 - labels, labels)
    rows = [
        row(
            i,
            texts[i] if texts_kept else None,
            vectors[i],
            characters=len(texts[i]),
            score=float(scores[i]),
            label=float(labels[i]) if i < labelled else np.nan,
        )
        for i in range(len(topics))
    ]
    return window(rows, **counts)
