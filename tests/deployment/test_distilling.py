import json
from types import SimpleNamespace

import numpy as np
import pytest

from deployment import distilling, filtering
from deployment.distilling import DistillRequest, Keep, attach, score_sample, threshold_of
from deployment.filtering import FilterRequest
from tamis.corpus.manifest import read_output
from tamis.engine.local import LocalEngine
from tamis.errors import DataError, UsageError
from tamis.scoring import distill as distill_module
from tamis.scoring.cascade import Cascade, read_cascade
from tamis.scoring.distill import Taught, distill
from tamis.scoring.distill_report import DistillReport
from tests.scoring import filter_stubs as stubs
from tests.scoring.test_distill import Runtime, draw, request_for, small_students, taught_of
from tests.tiny import tiny_task

PLAN = stubs.make_plan("nowhere", threshold=2.25)


def taught(scores, tokens=None):
    texts = [f"text {i}" for i in range(len(scores))]
    given = np.ones(len(scores)) if tokens is None else np.array(tokens)
    return Taught(texts, np.array(scores, dtype=np.float64), given.astype(np.int64))


SCORES = taught(np.random.default_rng(0).permutation(200) / 40, np.full(200, 10))


def keep(kind="model", value=0.0):
    return Keep(kind=kind, value=value)


def test_the_models_own_threshold_or_the_one_given():
    assert threshold_of(SCORES, keep(), 0.5, PLAN) == 2.25
    assert threshold_of(SCORES, keep("threshold", 3.3), 0.5, PLAN) == 3.3


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_share_of_the_documents(share):
    for drawn in (0.01, 1.0):  # how many rows were drawn does not matter for a share
        found = threshold_of(SCORES, keep("top_share", share), drawn, PLAN)
        assert (SCORES.scores >= found).mean() == pytest.approx(share, abs=0.006)
    assert threshold_of(SCORES, keep("top_share", 1.0), 1.0, PLAN) == SCORES.scores.min()


@pytest.mark.parametrize("drawn", [1.0, 0.25])
def test_a_budget_of_tokens_is_for_the_whole_corpus(drawn):
    # Of 2,000 tokens in the sample 400 are the best fifth.
    found = threshold_of(SCORES, keep("token_budget", 409 / drawn), drawn, PLAN)
    kept = SCORES.scores >= found
    assert kept.sum() == 40 and SCORES.tokens[kept].sum() <= 409
    everything = threshold_of(SCORES, keep("token_budget", 1e9), drawn, PLAN)
    assert everything == SCORES.scores.min()


def test_a_budget_is_kept_where_documents_share_a_score():
    many = taught([1.0, 4.0, 2.0, 2.0, 2.0, 1.0], [5, 10, 10, 10, 10, 5])
    for budget, threshold in ((10, 4.0), (39, 4.0), (40, 2.0), (49, 2.0), (50, 1.0)):
        assert threshold_of(many, keep("token_budget", budget), 1.0, PLAN) == threshold
    best = taught([4.0, 4.0, 1.0], [10, 10, 10])
    with pytest.raises(UsageError, match="at least about 20, "):
        threshold_of(best, keep("token_budget", 19), 1.0, PLAN)


def test_a_budget_below_the_best_document_is_refused():
    with pytest.raises(UsageError, match=r"given 39; allowed: at least about 40, ") as caught:
        threshold_of(SCORES, keep("token_budget", 39), 0.25, PLAN)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("kind", ["model", "threshold", "top_share", "token_budget"])
def test_an_empty_sample_is_told_in_a_sentence(kind):
    with pytest.raises(DataError, match="no document of the sample was scored"):
        threshold_of(taught([]), keep(kind, 0.5), 1.0, PLAN)


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for shard in range(2):
        lines = [json.dumps({"text": f"text {shard} {row}"}) for row in range(400)]
        (folder / f"p{shard}.jsonl").write_text("\n".join(lines))
    return folder


class Counting(stubs.Stub):
    texts = 0

    def score(self, texts):
        Counting.texts += len(texts)
        return super().score(texts)


@pytest.fixture
def sample(tmp_path, corpus, monkeypatch):
    """Score a sample with a stub for a registered model; how many texts it was asked about."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("1")

    def model_plan(task, request, home):
        version = f"toy/{request.version}"
        threshold = 2.25 if request.threshold is None else request.threshold
        return stubs.make_plan(request.output, str(model), threshold, load=Counting,
                               filter=task.filter, model_version=version)  # fmt: skip

    monkeypatch.setattr(distilling, "model_plan", model_plan)
    monkeypatch.setattr(distilling, "fitted_on", lambda folder: frozenset())
    monkeypatch.setattr(distilling, "engine_of", lambda request: LocalEngine(0))

    def score(want=None, version="1", weights="1", **task):
        (model / "weights").write_text(weights)
        loaded = tiny_task(tmp_path, **{"scoring": {"cascade": {"documents": 500}}, **task})
        wanted = FilterRequest(inputs=(str(corpus),), output="", version=version)
        request = DistillRequest(
            corpus=wanted, samples=str(tmp_path / "home" / "taught"), keep=want or Keep()
        )
        Counting.texts = 0
        return score_sample(loaded, request, tmp_path / "home"), Counting.texts

    return score


def test_a_sample_is_scored_once(sample):
    first, asked = sample()
    assert asked == first.documents == len(list(read_output(first.output)))
    assert first.share == 0.62 and 420 < first.documents < 580
    assert first.tokens == 3 * first.documents and first.threshold == 2.25
    assert sample() == (first, 0)
    other, asked = sample(keep("top_share", 0.1))
    assert asked == 0 and other.output == first.output and other.threshold > 4


@pytest.mark.parametrize(
    "change",
    [
        {"filter": {"rules": {"enabled": True}}},
        {"filter": {"pii": {"action": "mask"}, "near_duplicates": {"enabled": False}}},
        {"scoring": {"cascade": {"documents": 500, "audit": 0.5, "promise": {"recall": 0.8}}}},
    ],
)
def test_what_comes_after_the_score_needs_no_other_sample(sample, change):
    first, _ = sample()
    again, asked = sample(**change)
    assert asked == 0 and again.output == first.output


@pytest.mark.parametrize(
    "change",
    [
        {"scoring": {"cascade": {"documents": 600}}},
        {"seed": 5},
        {"weights": "2"},
        {"version": "2"},
        {"filter": {"exact": {"enabled": False}}},
        {"corpus": {"text": "text", "source": "site"}},
    ],
)
def test_what_scores_hang_on_begins_another_sample(sample, change):
    first, _ = sample()
    again, asked = sample(**change)
    assert asked > 0 and again.output != first.output


def test_other_code_begins_another_sample_and_refuses_nothing(sample, monkeypatch):
    first, _ = sample()
    for name in ("deployment.distilling", "tamis.scoring.filter_run"):
        monkeypatch.setattr(f"{name}.code_fingerprint", lambda: "0.9+feed")
    again, asked = sample()
    assert asked == first.documents and again.output != first.output


def test_another_corpus_begins_another_sample(sample, corpus):
    first, _ = sample()
    (corpus / "p9.jsonl").write_text('{"text": "new"}')
    again, asked = sample()
    assert asked > 0 and again.output != first.output and again.corpus != first.corpus


class Keeps:
    """A registry of one version that keeps what is attached to it in a folder."""

    def __init__(self, folder):
        self.folder, self.tags = folder, {}

    def get(self, task, version):
        return SimpleNamespace(name=task, version=version, tags=self.tags)

    def attach(self, version, folder, name, fingerprint, tags):
        target = self.folder / name
        target.mkdir(exist_ok=True)
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        self.tags.update({name: fingerprint, **tags})

    def download_attached(self, version, name, cache):
        return self.folder / name if name in self.tags else None


@pytest.fixture
def registry(tmp_path, monkeypatch):
    kept = Keeps(tmp_path)
    for module in (distilling, filtering):
        monkeypatch.setattr(module, "Registry", lambda: kept)
    return kept


@pytest.fixture(scope="module")
def made():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill_module, "students", small_students)
        return distill(taught_of(draw(800)), Runtime(), request_for())


def attach_to(version, cascade, report, tmp_path):
    wanted = FilterRequest(inputs=("x",), output="", version=version)
    return attach(tiny_task(tmp_path), DistillRequest(corpus=wanted, samples="s"), cascade, report)


def test_a_cascade_is_kept_with_its_reports(registry, made, tmp_path):
    cascade, report = made
    found = attach_to("7", cascade, report, tmp_path)
    assert (found.task, found.version, found.promised) == ("toy", "7", True)
    assert found.band == cascade.info.band.edges and found.digest == cascade.fingerprint
    assert registry.tags == {
        "cascade": cascade.fingerprint, "cascade_threshold": "3", "cascade_promised": "true"
    }  # fmt: skip
    folder = tmp_path / "cascade"
    assert read_cascade(folder).info.band == cascade.info.band
    assert DistillReport.model_validate_json((folder / "report.json").read_text()) == report
    assert "Cascade for toy" in (folder / "report.html").read_text()
    assert report.calibration.reason.split(":")[0] in found.to_html()


def test_a_filter_says_which_cascade_it_uses_or_why_none(registry, made, tmp_path, monkeypatch):
    cascade, report = made
    task = tiny_task(tmp_path, scoring={"cascade": {"audit": 0.25}})
    monkeypatch.setattr(filtering, "digest", lambda folder: "e" * 64)
    monkeypatch.setattr(filtering, "shards_of", lambda request, home: [])
    monkeypatch.setattr(filtering, "shards_fingerprint", lambda shards: "3 files")

    def chosen(**changes):
        request = FilterRequest(inputs=("x",), output="", version="7", **changes)
        return filtering._cascade(task, request, PLAN, tmp_path)

    assert chosen() == (None, "encoder alone: no cascade was distilled for this model")
    attach_to("7", cascade, report, tmp_path)
    found, told = chosen()
    assert found.audit == 0.25 and told.startswith(
        "cascade: threshold 3.000; student decides below"
    )
    assert "another corpus" not in told
    assert chosen(threshold=3.0)[0] is not None
    assert chosen(encoder_only=True) == (None, "encoder alone, as asked for")
    none, told = chosen(threshold=2.0)
    assert none is None and "calibrated for the threshold 3, not 2" in told
    monkeypatch.setattr(filtering, "shards_fingerprint", lambda shards: "4 files")
    assert "it was calibrated on another corpus, so mind the audit" in chosen()[1]


def test_a_cascade_without_a_band_leaves_the_encoder_alone(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(distill_module, "students", small_students)
    cascade, report = distill(taught_of(draw(800)), Runtime(0.3), request_for())
    found = attach_to("7", cascade, report, tmp_path)
    assert not found.promised and found.band == (None, None)
    assert registry.tags["cascade_promised"] == "false"
    monkeypatch.setattr(filtering, "digest", lambda folder: "e" * 64)
    request = FilterRequest(inputs=("x",), output="", version="7")
    none, told = filtering._cascade(tiny_task(tmp_path), request, PLAN, tmp_path)
    assert none is None and "no band that spares it anything could be certified" in told
    assert found.reason in found.to_html() or "differs too much" in found.to_html()


def test_cascades_as_artifacts(made, tmp_path):
    from materializers.cascade import CascadeMaterializer

    cascade, _ = made
    (tmp_path / "artifact").mkdir()
    materializer = CascadeMaterializer(str(tmp_path / "artifact"))
    materializer.save(cascade)
    loaded = materializer.load(Cascade)
    texts = draw(30, seed=5)
    assert loaded.student.score(texts).tolist() == cascade.student.score(texts).tolist()
    assert loaded.info.band == cascade.info.band and loaded.audit == 0
    facts = materializer.extract_metadata(cascade)
    assert facts["threshold"] == 3.0 and " to " in facts["band"]
    assert materializer.compute_content_hash(cascade) == cascade.fingerprint
