"""Small rounds of annotation; run as a program, one that can be killed."""

import json
import sys

from tamis.annotation.journal import Journal
from tamis.annotation.rubric import Rubric
from tamis.annotation.run import annotate
from tamis.annotation.selection import Chosen, Considered, Selection, Terms
from tamis.annotation.settings import AnnotationSettings
from tamis.corpus.document import content_hash, normalise
from tamis.corpus.store import open_store
from tamis.target import OrdinalTarget

RUBRIC = Rubric(name="clarity", version="3", text="0 is dark, 5 is clear.")
ORDINAL = OrdinalTarget(kind="ordinal", minimum=0, maximum=5, keep_at_least=3)
MODEL = "judge-7b"


def settings(url, **more):
    """A judge whose pauses are tiny."""
    given = {
        "endpoint": url,
        "model": MODEL,
        "timeout_seconds": 5.0,
        "attempts": 3,
        "backoff_seconds": 0.001,
        "max_backoff_seconds": 0.01,
        "double_share": 0.0,
        "concurrency": 4,
    }
    return AnnotationSettings.model_validate(given | more)


def selection(texts, target=ORDINAL, rubric=RUBRIC, double_share=0.0, form="jsonl"):
    """A round about some texts."""
    terms = Terms(
        task="toy", target=target, rubric=rubric, model=MODEL, temperature=0.0, max_characters=500
    )
    items = [
        Chosen(
            sha256=content_hash(normalise(text)), id=f"doc{i}", source="web", text=text,
            strategy="random",
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return Selection(
        terms=terms, budget=len(items), double_share=double_share, seed=0, format=form,
        considered=Considered(read=len(items), considered=len(items)), items=tuple(items),
    )  # fmt: skip


def numbered(count):
    """Texts whose scores go round the scale."""
    return [f"text number {i} has score {i % 6}" for i in range(count)]


def ask(folder, url, chosen, key="none", again=False, **more):
    """A round from begin to end, in a folder."""
    with Journal(str(folder / "journal")) as journal:
        output = open_store(str(folder / "out"))
        return annotate(chosen, settings(url, **more), journal, output, key, None, again)


def rows(folder, name="labels.jsonl"):
    """Rows of a file of the output."""
    return [json.loads(line) for line in (folder / "out" / name).read_text("utf-8").splitlines()]


if __name__ == "__main__":
    from pathlib import Path

    ask(Path(sys.argv[1]), sys.argv[2], selection(numbered(int(sys.argv[3])), double_share=0.3))
