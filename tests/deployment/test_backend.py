import json
import threading

import numpy as np
import pytest

from deployment import backend as backends
from deployment.backend import backend_by, backend_for, sample_texts
from tamis.corpus.readers import list_shards
from tamis.decision import Decision
from tamis.errors import UsageError
from tamis.models.classifier import digest
from tamis.scoring.backends.choose import BackendChoice, Trial
from tamis.scoring.settings import BackendGate, ScoringSettings
from tests.scoring.filter_stubs import make_plan

GATE = BackendGate(documents=50, min_kept=10)
AUTO = ScoringSettings(gate=GATE)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "head.safetensors").write_bytes(b"weights")
    return folder


def corpus(folder, rows, shards=2, line=None):
    """Shards of rows that tell which they are."""
    folder.mkdir()
    for shard in range(shards):
        lines = [line or json.dumps({"text": f"document {shard} {row:04}"}) for row in range(rows)]
        (folder / f"part{shard:02}.jsonl").write_text("\n".join(lines) + "\n")
    return [*list_shards([str(folder)])]


@pytest.fixture
def shards(tmp_path):
    return corpus(tmp_path / "corpus", 150)


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the measurement, which is not made."""
    calls = []

    def choose(model_dir, home, judged, gate, scale):
        calls.append((model_dir, home, judged, gate, scale))
        trial = Trial(backend="onnx", speed=2.0, margin=0.1, decision=Decision.of([]))
        told = f"Choice {len(calls)}."
        return BackendChoice(
            backend="onnx",
            reason=told,
            source="s",
            machine="m",
            documents=50,
            kept=20,
            trials=(trial,),
        )

    monkeypatch.setattr(backends.choosing, "choose", choose)
    monkeypatch.setattr(backends, "machine", lambda: "a machine")
    return calls


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def plan_of(model, threshold=3.0):
    return make_plan(model.parent / "out", str(model), threshold)


def kept(home):
    return sorted((home / "backends").iterdir())


@pytest.mark.parametrize("name", ["torch", "onnx-int8", "torch-packed"])
def test_a_named_backend_is_taken_unjudged(model, shards, home, asked, name):
    settings = ScoringSettings(backend=name, gate=GATE)
    found = backend_for(plan_of(model), shards, settings, home, 0)
    assert found.backend == name
    assert found.reason == "The task names it (scoring.backend); it was not judged."
    assert (found.source, found.machine) == (digest(model), "a machine")
    assert (found.trials, found.margin) == ((), 0.0)
    assert backend_by(plan_of(model), ["a"], np.zeros(1), settings, home, 0) == found
    assert not asked
    assert not home.exists()


@pytest.mark.parametrize(("rows", "worth"), [(99, False), (100, True)])
def test_a_small_corpus_is_scored_by_the_reference(model, tmp_path, home, asked, rows, worth):
    found = backend_for(plan_of(model), corpus(tmp_path / "c", rows), AUTO, home, 0)
    assert bool(asked) == worth
    assert found.backend == ("onnx" if worth else "torch")
    if not worth:
        assert "about 198 documents: measuring backends would take longer" in found.reason
        assert found.source == digest(model)
        assert not home.exists()  # a larger corpus of the same model is to be measured


def test_an_empty_corpus_is_refused(model, tmp_path, home, asked):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "part.jsonl").write_text("")
    with pytest.raises(UsageError, match="no row"):
        backend_for(plan_of(model), list_shards([str(tmp_path / "c")]), AUTO, home, 0)


def test_documents_of_the_corpus_are_compared_on(model, shards, home, asked):
    backend_for(plan_of(model), shards, AUTO, home, 0)
    [(folder, exports, judged, gate, scale)] = asked
    assert (folder, exports) == (model, home / "exports")
    assert (gate, scale, judged.threshold, judged.reference) == (GATE, (0.0, 5.0), 3.0, None)
    expected = [f"document {shard} {row:04}" for shard in range(2) for row in range(25)]
    assert sorted(judged.texts) == expected


def test_rows_that_cannot_be_read_are_left_out(model, tmp_path):
    shards = corpus(tmp_path / "c", 20, line="{broken")
    assert sample_texts(plan_of(model), shards, 10, 0) == []
    more = corpus(tmp_path / "more", 20, shards=1)
    texts = sample_texts(plan_of(model), [*shards, *more], 30, 0)
    assert texts == [f"document 0 {row:04}" for row in range(10)]
    assert sample_texts(plan_of(model), [], 30, 0) == []


def test_a_corpus_that_cannot_be_read_is_scored_by_the_reference(model, tmp_path, home):
    shards = corpus(tmp_path / "c", 150, line="{broken")
    found = backend_for(plan_of(model), shards, AUTO, home, 0)
    assert found.backend == "torch"
    assert "There are 0 documents to compare on" in found.reason
    assert not home.exists()


def test_the_choice_is_kept_and_read_back(model, shards, home, asked):
    found = backend_for(plan_of(model), shards, AUTO, home, 0)
    assert found.reason == "Choice 1."
    assert len(kept(home)) == 1
    assert BackendChoice.model_validate_json(kept(home)[0].read_text()) == found
    assert backend_for(plan_of(model), shards, AUTO, home, 1) == found
    assert backend_by(plan_of(model), ["a"], np.zeros(1), AUTO, home, 0) == found
    assert backend_for(plan_of(model, np.float64(3.0)), shards, AUTO, home, 0) == found
    assert len(asked) == 1


def test_a_choice_on_too_few_kept_documents_is_not_kept(model, shards, home, asked, monkeypatch):
    measured = backends.choosing.choose
    few = lambda *given: measured(*given).model_copy(update={"kept": GATE.min_kept - 1})  # noqa: E731
    monkeypatch.setattr(backends.choosing, "choose", few)
    backend_for(plan_of(model), shards, AUTO, home, 0)
    assert not (home / "backends").exists()  # the next corpus may have more to judge on
    backend_for(plan_of(model), shards, AUTO, home, 0)
    assert len(asked) == 2


def test_a_choice_is_of_a_model_threshold_gate_and_machine(model, shards, home, asked, monkeypatch):
    first = backend_for(plan_of(model), shards, AUTO, home, 0)
    others = ScoringSettings(gate=GATE.model_copy(update={"f1": 0.98}))
    assert backend_for(plan_of(model, 3.1), shards, AUTO, home, 0).reason == "Choice 2."
    assert backend_for(plan_of(model), shards, others, home, 0).reason == "Choice 3."
    monkeypatch.setattr(backends, "machine", lambda: "another machine")
    assert backend_for(plan_of(model), shards, AUTO, home, 0).reason == "Choice 4."
    monkeypatch.setattr(backends, "machine", lambda: "a machine")
    (model / "head.safetensors").write_bytes(b"other weights")
    assert backend_for(plan_of(model), shards, AUTO, home, 0).reason == "Choice 5."
    (model / "head.safetensors").write_bytes(b"weights")
    assert backend_for(plan_of(model), shards, AUTO, home, 0) == first
    assert len(asked) == len(kept(home)) == 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe{}", b'{"backend": "other"}'])
def test_a_damaged_file_is_ignored_and_rewritten(model, shards, home, asked, content):
    backend_for(plan_of(model), shards, AUTO, home, 0)
    [path] = kept(home)
    path.write_bytes(content)
    assert backend_for(plan_of(model), shards, AUTO, home, 0).reason == "Choice 2."
    assert kept(home) == [path]
    assert backend_for(plan_of(model), shards, AUTO, home, 0).reason == "Choice 2."
    assert len(asked) == 2


def test_two_that_choose_at_once_leave_one_whole_file(model, shards, home, asked, monkeypatch):
    real, both = backends.choosing.choose, threading.Barrier(2)
    dump = BackendChoice.model_dump_json

    def meet(*given):
        both.wait(20)
        return real(*given)

    def slow(self, **how):
        text = dump(self, **how)
        both.wait(20)
        return text

    monkeypatch.setattr(backends.choosing, "choose", meet)
    monkeypatch.setattr(BackendChoice, "model_dump_json", slow)
    errors = []

    def run():
        try:
            backend_for(plan_of(model), shards, AUTO, home, 0)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(kept(home)) == 1
    assert backend_for(plan_of(model), shards, AUTO, home, 0).backend == "onnx"


def test_a_choice_that_fails_leaves_nothing(model, shards, home, monkeypatch):
    def fail(*given):
        raise RuntimeError("no")

    monkeypatch.setattr(backends.choosing, "choose", fail)
    with pytest.raises(RuntimeError):
        backend_for(plan_of(model), shards, AUTO, home, 0)
    assert not (home / "backends").exists()


def test_documents_that_were_scored_already_are_judged_on(model, home, asked):
    texts, scores = [f"text {row}" for row in range(200)], np.arange(200) / 40
    backend_by(plan_of(model), texts, scores, AUTO, home, 7)
    [(_, _, judged, _, _)] = asked
    rows = [int(text.split()[1]) for text in judged.texts]
    assert len(rows) == len(set(rows)) == 50
    assert rows != sorted(rows)
    assert judged.reference.tolist() == scores[rows].tolist()
    assert backend_by(plan_of(model), texts, scores, AUTO, home, 8).reason == "Choice 1."
    few = backend_by(plan_of(model, 2.0), texts[:20], scores[:20], AUTO, home, 7)
    assert few.reason == "Choice 2."
    assert len(asked[1][2].texts) == 20
