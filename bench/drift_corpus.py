"""Real documents for windows that drift, encoded and scored once and kept in a folder.

All come from what the pinned packages carry (``tamis.corpus.packages``). What is what was chosen
before any detector was run:

reference    encyclopaedia sections, licences, docstrings of ten scientific libraries
topic        docstrings of four other libraries: deep learning and infrastructure
genre        news stories and package descriptions
language     Bulgarian (Wikipedia's talk, in gensim's test data), and the names of emoji that CLDR
             has in 13 languages, joined into documents
boilerplate  documents of the reference's kind with menus, cookie lines, share buttons around them
noise        documents of the reference's kind, mistyped, misread, wrongly decoded, or half of their
             words made random letters
labelled     the documents with a label (``data/demo_annotations.jsonl``) of the reference's kind,
             scored by heads that have not seen them

Near-duplicates are left out, and no document has a score of a head that was fitted on it.
"""

from __future__ import annotations

import bz2
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tamis.models.encoder import Progress

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("docstring/transformers", "docstring/torch", "docstring/zenml", "docstring/ray")
GENRES = ("news", "readme")
ALTERED = ("boilerplate", "noise")
MOST = {"reference": 12_000, "topic": 1_600, "genre": 700, "language": 1_400}
"""Documents of a kind that are encoded, drawn at random."""
ALTERED_OF_EACH = 1_600
LAYER = 3
"""Of the encoder: the one that ``train`` takes for edu_quality."""
FORM = 2
"""Raised where what lies in the folder changes."""
MOST_CHARACTERS = 20_000
LANGUAGES = ("ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")


@dataclass(frozen=True)
class Document:
    """A text, what it is for, and the document that it was made of, if any."""

    id: str
    kind: str
    group: str
    text: str
    label: float = np.nan
    twin: str = ""


@dataclass(frozen=True)
class Corpus:
    """Documents (n) with all that detectors look at; those of ``kind`` are what ``of`` gives.

    Attributes:
        ids, kinds, groups, languages: (n,).
        twins: Row of the document that a document was made of (n,), else -1.
        labels: (n,), NaN where there is none.
        scores: Of a ridge on labelled documents (n,); labelled ones are scored held out.
        columns: Numbers of the text alone by name (n,), for detectors that take columns.
        vectors: (n, d).
        words: ``hashed_words`` (n, w).
        folder: Where it lies; the texts lie there.
    """

    ids: NDArray[np.str_]
    kinds: NDArray[np.str_]
    groups: NDArray[np.str_]
    languages: NDArray[np.str_]
    twins: NDArray[np.int64]
    labels: NDArray[np.float64]
    scores: NDArray[np.float64]
    columns: dict[str, NDArray[np.float64]]
    vectors: NDArray[np.float32]
    words: Any
    folder: Path

    def of(self, kind: str) -> NDArray[np.intp]:
        """Rows of a kind."""
        return np.flatnonzero(self.kinds == kind)

    def texts(self) -> list[str]:
        """Texts of all documents, cut to ``MOST_CHARACTERS``."""
        import pyarrow.parquet as pq

        found: list[str] = pq.read_table(self.folder / "documents.parquet")["text"].to_pylist()
        return found


def default_folder() -> Path:
    """Where it is kept: under ``TAMIS_HOME``, by default in the project's ignored folder."""
    return Path(os.environ.get("TAMIS_HOME", ROOT / ".tamis")).resolve() / "bench" / "drift"


def load_corpus(folder: Path | None = None, progress: Progress | None = None) -> Corpus:
    """The corpus of the packages that are installed, made unless it is there already."""
    from tamis.corpus import packages

    folder = folder or default_folder()
    target = folder / f"corpus-{FORM}-{packages.version()[:12]}"
    if not target.is_dir():
        keep(documents(), target, progress)
    return read(target)


def documents() -> list[Document]:
    """Every document, in the order in which rows are; altered ones follow what they are made of."""
    from tamis.corpus.packages import read_pool

    rng = np.random.default_rng(0)
    pool = list(read_pool(workers=2))
    labels = _labels()
    first = [d for d in pool if d.origin in labels]
    order = rng.permutation(np.array([i for i, d in enumerate(pool) if d.origin not in labels]))
    first += [pool[i] for i in order]
    alone = distinct([d.text[:MOST_CHARACTERS] for d in first])
    found: dict[str, list[Document]] = {"labelled": [], "spare": [], **{kind: [] for kind in MOST}}
    for at in alone:
        d, kind = first[at], _kind(first[at].genre)
        if d.origin in labels:
            # Labelled documents of other kinds teach the head, and are in no window.
            kind = "labelled" if kind == "reference" else "spare"
        elif len(found[kind]) >= MOST[kind]:
            continue
        text, label = d.text[:MOST_CHARACTERS], labels.get(d.origin, np.nan)
        found[kind].append(Document(d.origin, kind, d.group, text, label))
    found["language"] += foreign_texts(rng)[: MOST["language"]]
    altered = [
        Document(f"{d.id}~{kind}", kind, d.group, alter(kind, d.text, number), twin=d.id)
        for place, kind in enumerate(ALTERED)
        for number, d in enumerate(found["reference"][place::2][:ALTERED_OF_EACH])
    ]
    return [*(d for kind in found.values() for d in kind), *altered]


def _kind(genre: str) -> str:
    if genre in LEFT_OUT:
        return "topic"
    return "genre" if genre in GENRES else "reference"


def _labels() -> dict[str, float]:
    lines = (ROOT / "data" / "demo_annotations.jsonl").read_text("utf-8").splitlines()
    return {row["origin"]: float(row["score"]) for row in map(json.loads, lines)}


def distinct(texts: Sequence[str]) -> list[int]:
    """Positions of texts that no earlier one nearly equals (MinHash, as ``filter`` has it)."""
    from tamis.corpus.minhash import Signer, similarity
    from tamis.corpus.settings import NearDuplicateSettings

    settings = NearDuplicateSettings()
    signed = Signer(settings).sign(texts)
    kept: list[int] = []
    seen: dict[tuple[int, int], list[int]] = {}
    for row, bands in enumerate(signed.bands.tolist()):
        keys = list(enumerate(bands))
        others = np.array(sorted({other for key in keys for other in seen.get(key, [])}), np.intp)
        if len(others):
            mine = np.repeat(signed.codes[row][None], len(others), axis=0)
            if (similarity(signed.codes[others], mine) >= settings.threshold).any():
                continue
        kept.append(row)
        for key in keys:
            seen.setdefault(key, []).append(row)
    return kept


def alter(kind: str, text: str, number: int) -> str:
    """A document with boilerplate around it, or with one of four kinds of noise in it."""
    from tamis.evaluation.behaviour_settings import Noise
    from tamis.evaluation.perturbations import generator, invariance, noisy

    if kind == "boilerplate":
        text = invariance("navigation", text, number)[1]
        return invariance("cookies", text, number)[1] if number % 2 else text
    which = number % 4
    if which < 2:
        return noisy(Noise(kind=("typos", "ocr")[which], share=0.1, spearman=0), text, number)
    random = generator(number, "random words", text)
    if which == 2:  # a page's quotes and hard spaces, UTF-8 that was read as Latin-1
        text = text.replace("'", "\u2019").replace('"', "\u201d").replace("--", "\u2014")
        hard = re.sub(" ", lambda _: "\u00a0" if random.random() < 0.2 else " ", text)
        return hard.encode("utf-8", "replace").decode("latin-1")
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz0123456789"))

    def word(found: re.Match[str]) -> str:
        lost = random.random() < 0.5
        return "".join(random.choice(letters, random.integers(2, 11))) if lost else found[0]

    return re.sub(r"\S+", word, text)


def foreign_texts(rng: np.random.Generator) -> list[Document]:
    """Documents of 500 to 620 characters that are not in English, in random order."""
    pieces: dict[str, list[str]] = {"bg": list(_bulgarian())}
    for language in LANGUAGES:
        names = sorted(set(_emoji_names(language)))
        pieces[language] = [f"{names[i]}," for i in rng.permutation(len(names))]
    found = []
    for language, parts in pieces.items():
        text, wanted = "", int(rng.integers(500, 620))
        for part in parts:
            text = f"{text}\n{part}" if language == "bg" and text else f"{text} {part}".strip()
            if len(text) >= wanted:
                name = f"{language}#{len(found)}"
                found.append(Document(name, "language", name, text[:1_800]))
                text, wanted = "", int(rng.integers(500, 620))
    return [found[i] for i in rng.permutation(len(found))]


def _bulgarian() -> Iterator[str]:
    """Paragraphs of the pages of Bulgarian Wikipedia, most of them talk, that gensim carries."""
    from importlib.metadata import distribution

    from gensim.corpora.wikicorpus import extract_pages

    gensim = distribution("gensim")
    dump = next(f for f in gensim.files or [] if "bgwiki-latest-pages-articles" in str(f))
    with bz2.open(Path(str(gensim.locate_file(dump)))) as pages:
        for _, markup, _ in extract_pages(pages):
            text = re.sub(r"(?s)<!--.*?-->|\{\{[^{}]*\}\}|<[^<>]*>|&[#\w]+;|'{2,}", "", markup)
            # Whoever signs is not part of what they say.
            text = re.sub(r"-*\s*\[\[(?:[^][|]*:)?(?:Потребител|User)[^\n]*", "", text)
            text = re.sub(r"\[\[(?:[^][|]*\|)?([^][|]*)\]\]", r"\1", text)
            for line in text.splitlines():
                if len(line := line.strip(" *:#=-|\t")) >= 40:
                    yield line


def _emoji_names(language: str) -> Iterator[str]:
    import emoji

    codes = Path(emoji.__file__).parent / "unicode_codes"
    names = json.loads((codes / f"emoji_{language}.json").read_text("utf-8"))
    for sign, name in names.items():
        if not any("\U0001f3fb" <= letter <= "\U0001f3ff" for letter in sign):  # tones of the skin
            yield name.strip(":").replace("_", " ")


def keep(found: Sequence[Document], target: Path, progress: Progress | None = None) -> None:
    """Encode and score documents, and lay them out in a folder that is then complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from scipy.sparse import save_npz

    from tamis.corpus.language import LanguageFilter
    from tamis.corpus.settings import LanguageSettings
    from tamis.monitoring.samples import hashed_words

    texts = [d.text for d in found]
    vectors = encode(texts, progress)
    labels = np.array([d.label for d in found])
    groups = np.array([d.group for d in found])
    identify = LanguageFilter(LanguageSettings()).identify
    place = {d.id: row for row, d in enumerate(found)}
    table = {
        "id": [d.id for d in found],
        "kind": [d.kind for d in found],
        "group": groups,
        "language": [identify(text)[0] for text in texts],
        "twin": [place.get(d.twin, -1) for d in found],
        "label": labels,
        "score": held_out_scores(vectors, labels, groups),
        **{f"column_{name}": values for name, values in columns_of(texts).items()},
        "text": [text.encode("utf-8", "replace").decode() for text in texts],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        staging = Path(name) / "corpus"
        staging.mkdir()
        pq.write_table(pa.table(table), staging / "documents.parquet")
        np.save(staging / "vectors.npy", vectors, allow_pickle=False)
        save_npz(staging / "words.npz", hashed_words(texts))
        if not target.is_dir():
            staging.rename(target)


def read(folder: Path) -> Corpus:
    """What ``keep`` laid out."""
    import pyarrow.parquet as pq
    from scipy.sparse import load_npz

    file = pq.ParquetFile(folder / "documents.parquet")
    names = [name for name in file.schema_arrow.names if name != "text"]
    table = {name: column.to_numpy() for name, column in zip(names, file.read(names), strict=True)}
    numbers = {n.removeprefix("column_"): table[n] for n in names if n.startswith("column_")}
    return Corpus(
        ids=table["id"].astype(str),
        kinds=table["kind"].astype(str),
        groups=table["group"].astype(str),
        languages=table["language"].astype(str),
        twins=table["twin"],
        labels=table["label"],
        scores=table["score"],
        columns=numbers,
        vectors=np.load(folder / "vectors.npy"),
        words=load_npz(folder / "words.npz"),
        folder=folder,
    )


def columns_of(texts: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Columns that someone who has only the texts would compute."""
    lengths = np.array([len(text) for text in texts], dtype=np.float64)
    letters = np.array([sum(map(str.isalpha, text)) for text in texts])
    return {
        "characters": lengths,
        "words": np.array([len(text.split()) for text in texts], dtype=np.float64),
        "sentences": np.array(
            [max(1, len(re.findall(r"[.!?](?=\s|$)", text))) for text in texts], dtype=np.float64
        ),
        "non_letters": 1 - letters / np.maximum(1, lengths),
    }


def encode(texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
    """Vectors (n, d) as the classifier of edu_quality has them."""
    from tamis.models.backbone import cut, load_backbone
    from tamis.models.encoder import Encoder
    from tamis.task import load_task

    task = load_task("edu_quality")
    model, tokenizer = load_backbone(task.model.backbone)  # type: ignore[union-attr]
    encoder = Encoder(cut(model, LAYER), tokenizer, task.text)
    return encoder.features(texts, [LAYER], ["mean"], progress)[0][LAYER, "mean"]


def held_out_scores(
    vectors: NDArray[np.float32], labels: NDArray[np.float64], groups: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Scores (n,) of a ridge on the labelled documents; theirs by five folds over groups."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold, cross_val_predict

    known = ~np.isnan(labels)
    x, y = vectors[known].astype(np.float64), labels[known]
    scores = np.asarray(Ridge(alpha=1).fit(x, y).predict(vectors.astype(np.float64)))
    folds = GroupKFold(min(5, len(np.unique(groups[known]))))
    scores[known] = cross_val_predict(Ridge(alpha=1), x, y, groups=groups[known], cv=folds)
    return scores.clip(0, 5)
