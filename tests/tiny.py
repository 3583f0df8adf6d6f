"""A tiny random encoder and small labelled sets, shared by the tests of corpus and models."""

import numpy as np
import pyarrow as pa

from tamis.corpus.dataset import SCHEMA, DatasetInfo, build
from tamis.corpus.document import content_hash

GOOD_WORDS = ("proof", "theorem", "lemma", "axiom", "integral", "matrix")
BAD_WORDS = ("sale", "cheap", "click", "offer", "buy", "discount")
NEUTRAL_WORDS = tuple(f"word{i}" for i in range(150))


def labelled(
    texts, labels, groups=None, sources=None, seconds=None, ids=None, left_out=(), origins=None
):
    """A dataset of texts with encoded labels (None for none)."""
    size = len(texts)
    rows = [
        {
            "id": ids[i] if ids else f"doc{i}",
            "text": texts[i],
            "label": labels[i],
            "second_label": seconds[i] if seconds else None,
            "source": sources[i] if sources else "web",
            "origin": origins[i] if origins else f"file.csv#{i}",
            "group": groups[i] if groups else f"group{i}",
            "sha256": content_hash(texts[i]),
        }
        for i in range(size)
    ]
    info = DatasetInfo(
        task="toy",
        fingerprint="",
        documents=0,
        labelled=0,
        sources={},
        licences={},
        labels_by="a test",
        left_out=tuple(left_out),
    )
    return build(pa.Table.from_pylist(rows, schema=SCHEMA), info)


def easy_texts(labels, seed=0, words=24):
    """Texts whose share of good words follows the label, from 0 to 1."""
    rng = np.random.default_rng(seed)
    texts = []
    for label in labels:
        drawn = [
            rng.choice(NEUTRAL_WORDS)
            if rng.random() < 0.3
            else rng.choice(GOOD_WORDS if rng.random() < label else BAD_WORDS)
            for _ in range(words + int(rng.integers(0, 12)))
        ]
        texts.append(" ".join(drawn))
    return texts


def save_tiny_bert(folder, seed=0, layers=3):
    """Write a random BERT of 3 layers and 32 dimensions, with its tokenizer, into a folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    vocabulary = [*special, *GOOD_WORDS, *BAD_WORDS, *NEUTRAL_WORDS, *pieces]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(
        vocab=str(folder / "vocab.txt"), model_max_length=128, do_lower_case=True
    )
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=128,
            initializer_range=0.2,
        )
    )
    torch.set_rng_state(state)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


ORDINAL = {"kind": "ordinal", "keep_at_least": 3.0}
BINARY = {"kind": "binary", "negative": "bad", "positive": "good"}


def tiny_task(backbone, target=None, **more):
    """A task on the tiny encoder: layers 1-3, ridge heads, no cross-validation."""
    from tamis.task import Task

    model = {
        "backbone": {"kind": "path", "path": str(backbone)},
        "frozen": {"heads": ["ridge"]},
    }
    given = {
        "name": "toy",
        "target": target or ORDINAL,
        "sources": [{"kind": "packages"}],
        "text": {"max_tokens": 64},
        "split": {"folds": 0},
    }
    model |= more.pop("model", {})
    return Task.model_validate(given | more | {"model": model})


def easy_set(size=60, target=None, seed=0):
    """Documents whose label shows in their words, in groups of two."""
    rng = np.random.default_rng(seed)
    if (target or ORDINAL)["kind"] == "ordinal":
        labels = rng.integers(0, 6, size).astype(float)
        texts = easy_texts(labels / 5, seed)
    else:
        labels = rng.integers(0, 2, size).astype(float)
        texts = easy_texts(0.15 + 0.7 * labels, seed)
    return labelled(texts, labels.tolist(), groups=[f"page{i // 2}" for i in range(size)])
