"""Small samples of made-up documents."""

import numpy as np
from scipy.sparse import csr_matrix

from tamis.monitoring.samples import WORDS, Sample


def sample(n, seed, foreign=0.0, d=8, groups=None, vectors=True, words=True):
    """Documents of three topics; of a share ``foreign``, a fourth with words of its own."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 3, n)
    new = np.arange(n) < round(foreign * n)
    topic[new] = 3
    x = 2 * np.eye(d)[topic] + rng.normal(size=(n, d)) * 0.7
    has = rng.random((n, 60)) < 0.15
    has[new, 50:] = rng.random((int(new.sum()), 10)) < 0.9
    found = np.zeros((n, WORDS), np.float32)
    found[:, :60] = has
    return Sample(
        ids=np.array([f"{seed}-{i}" for i in range(n)]),
        scores=rng.normal(size=n),
        characters=rng.integers(500, 5_000, n),
        languages=np.where(rng.random(n) < 0.9, "en", "fr"),
        sources=np.full(n, "web"),
        groups=np.array([f"{seed}-{i}" for i in range(n)] if groups is None else groups),
        vectors=x.astype(np.float32) if vectors else None,
        words=csr_matrix(found) if words else None,
    )
