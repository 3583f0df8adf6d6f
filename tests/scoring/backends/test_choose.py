import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tamis.errors import ModelError
from tamis.models.classifier import Scores
from tamis.models.tokens import Tokens
from tamis.scoring.backends import choose as choosing
from tamis.scoring.backends.choose import BackendChoice, Judged, choose
from tamis.scoring.settings import BackendGate

SIZE = 400
GATE = BackendGate(documents=SIZE, min_kept=30)
TRUTH = np.random.default_rng(0).uniform(0, 5, SIZE)
THRESHOLD = 3.0
TEXTS = tuple(f"text {row}" for row in range(SIZE))


class Fake:
    """A classifier whose scores and speed are given; ``fails_after`` so many calls it raises."""

    def __init__(self, scores, speed, exact=None, fails_after=math.inf):
        self.scores, self.speed, self.exact = np.asarray(scores), speed, exact
        self.left, self.calls, self.threads = fails_after, [], []

    def prepare(self, texts):
        return Tokens([[int(text.split()[1])] for text in texts], 0)

    def use_threads(self, threads):
        self.threads.append(threads)

    def score_tokens(self, tokens):
        self.calls.append(len(tokens.ids))
        if len(self.calls) > self.left:
            raise RuntimeError("out of <memory>")
        rows = [ids[0] for ids in tokens.ids]
        return Scores(self.scores[rows], tokens.lengths)


@pytest.fixture
def setting(monkeypatch):
    """Backends by name; what stands for an error is raised when it is loaded."""
    backends = {"torch": Fake(TRUTH, 10.0)}

    def load(name):
        found = backends.get(str(name), ModelError(f"{name}: not here"))
        if isinstance(found, Exception):
            raise found
        return found

    def speed(classifier, tokens, clock):
        classifier.score_tokens(tokens)
        return classifier.speed

    monkeypatch.setattr(choosing, "export", lambda model_dir, name, home: name)
    monkeypatch.setattr(choosing, "load_encoder", load)
    monkeypatch.setattr(choosing, "read_info", lambda folder: SimpleNamespace(family="encoder"))
    monkeypatch.setattr(choosing, "digest", lambda folder: "source")
    monkeypatch.setattr(choosing, "machine", lambda: "A <machine>")
    monkeypatch.setattr(choosing, "gpu_name", lambda: "")
    monkeypatch.setattr(choosing, "_speed", speed)
    return backends


def chosen(gate=GATE, texts=TEXTS, **judged):
    return choose("torch", "home", Judged(texts, THRESHOLD, **judged), gate, (0.0, 5.0))


def trial_of(choice, name):
    return next(trial for trial in choice.trials if trial.backend == name)


def failing(trial):
    return [reason.check for reason in trial.decision.reasons if not reason.passed]


def flipped(share):
    """Scores with so much of the documents on the other side, without a bias."""
    rows = np.argsort(np.abs(TRUTH - THRESHOLD))[: int(share * SIZE)]
    found = TRUTH.copy()
    found[rows] = 2 * THRESHOLD - found[rows]
    return found


def test_the_fastest_that_passes_is_taken(setting):
    setting |= {"onnx": Fake(TRUTH, 30.0), "torch-bf16": Fake(TRUTH + 0.001, 20.0)}
    choice = chosen()
    assert choice.backend == "onnx"
    assert choice.reason == "The fastest that passes the gate: 3.00 times the reference."
    assert (choice.source, choice.machine) == ("source", "A <machine>")
    assert (choice.documents, choice.kept) == (SIZE, int((TRUTH >= THRESHOLD).sum()))
    assert [trial.backend for trial in choice.trials] == [
        "onnx",
        "torch-bf16",
        "torch",
        "onnx-int8",
    ]
    taken = trial_of(choice, "onnx")
    assert (taken.speed, taken.f1, taken.bias, taken.margin) == (30.0, 1.0, 0.0, 0.0)
    assert [reason.check for reason in taken.decision.reasons] == ["kept", "f1", "bias", "speed"]
    assert choice.margin == 0.0


def test_the_same_speeds_give_the_same_choice(setting):
    setting |= {"onnx": Fake(TRUTH, 30.0), "onnx-int8": Fake(TRUTH + 0.01, 50.0, exact=object())}
    setting["torch-bf16"] = Fake(flipped(0.2), 30.0)
    assert chosen() == chosen()
    assert chosen().to_html() == chosen().to_html()


@pytest.mark.parametrize("scores", [TRUTH, TRUTH + 1.0])
def test_what_is_not_faster_is_not_judged(setting, scores):
    setting |= {"onnx": Fake(scores, 10.0), "torch-bf16": Fake(scores, 4.0)}
    choice = chosen()
    assert choice.backend == "torch"
    assert choice.reason == "None that is faster passed the gate."
    for name in ("onnx", "torch-bf16"):
        trial = trial_of(choice, name)
        assert (trial.f1, trial.bias) == (None, None)
        assert failing(trial) == ["speed"]
        assert "Not judged: it is not faster than torch." in trial.decision.reasons[0].detail
        assert SIZE not in setting[name].calls
    assert setting["torch-bf16"].calls == [16, 16]  # half as fast: no further round


def test_what_is_slower_than_one_that_passed_is_not_judged(setting):
    setting |= {"onnx": Fake(TRUTH, 30.0), "torch-bf16": Fake(TRUTH, 29.0)}
    trial = trial_of(chosen(), "torch-bf16")
    assert trial.f1 is None
    assert "not faster than onnx, which passed" in trial.decision.reasons[0].detail


def test_the_next_is_judged_where_the_fastest_fails(setting):
    setting |= {"onnx": Fake(flipped(0.2), 30.0), "torch-bf16": Fake(TRUTH, 29.0)}
    choice = chosen()
    assert choice.backend == "torch-bf16"
    assert failing(trial_of(choice, "onnx")) == ["f1"]


@pytest.mark.parametrize(("share", "passes"), [(0.01, True), (0.1, False)])
def test_the_gate_on_f1(setting, share, passes):
    scores = flipped(share)
    setting["onnx"] = Fake(scores, 30.0)
    choice = chosen()
    trial = trial_of(choice, "onnx")
    truth, kept = TRUTH >= THRESHOLD, scores >= THRESHOLD
    precision, recall = (truth & kept).sum() / kept.sum(), (truth & kept).sum() / truth.sum()
    assert trial.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert (trial.f1 >= GATE.f1) == passes
    assert (choice.backend == "onnx") == trial.decision.passed == passes
    assert failing(trial) == ([] if passes else ["f1"])
    strict = chosen(BackendGate(documents=SIZE, f1=1.0))
    assert failing(trial_of(strict, "onnx")) == ["f1"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_gate_on_the_bias(setting, sign):
    away = np.where(np.abs(TRUTH - THRESHOLD) > 1, sign * 0.09, 0.0)
    setting["onnx"] = Fake(TRUTH + away, 30.0)
    trial = trial_of(chosen(), "onnx")
    assert trial.f1 == 1.0
    assert trial.bias == pytest.approx(away.mean())
    allowed = abs(trial.bias) / 5
    loose = BackendGate(documents=SIZE, bias=allowed * 1.01)
    tight = BackendGate(documents=SIZE, bias=allowed * 0.99)
    assert chosen(loose).backend == "onnx"
    assert chosen(tight).backend == "torch"
    assert failing(trial_of(chosen(tight), "onnx")) == ["bias"]


def test_the_gate_on_what_is_kept(setting):
    setting["onnx"] = Fake(TRUTH, 30.0)
    kept = int((TRUTH >= THRESHOLD).sum())
    assert chosen(BackendGate(documents=SIZE, min_kept=kept)).backend == "onnx"
    choice = chosen(BackendGate(documents=SIZE, min_kept=kept + 1))
    assert choice.backend == "torch"
    trial = trial_of(choice, "onnx")
    assert failing(trial) == ["kept"]
    assert f"fp32 keeps {kept:,} of 400 documents" in trial.decision.reasons[0].detail


def test_where_nothing_is_kept_nothing_is_taken(setting):
    setting["torch"] = Fake(TRUTH * 0.1, 10.0)
    setting["onnx"] = Fake(TRUTH * 0.1, 30.0)
    choice = chosen()
    assert (choice.backend, choice.kept) == ("torch", 0)
    assert trial_of(choice, "onnx").f1 == 1.0


@pytest.mark.parametrize("count", [0, 1, 29])
def test_too_few_documents_are_not_measured(setting, count):
    setting["onnx"] = Fake(TRUTH, 30.0)
    choice = chosen(texts=TEXTS[:count])
    assert (choice.backend, choice.trials, choice.documents) == ("torch", (), count)
    assert f"There are {count} documents" in choice.reason
    assert not setting["torch"].calls


def test_scores_that_are_known_are_the_reference(setting):
    setting["onnx"] = Fake(flipped(0.2), 30.0)
    choice = chosen(reference=flipped(0.2))
    assert choice.backend == "onnx"
    assert SIZE not in setting["torch"].calls
    assert choice.kept == int((flipped(0.2) >= THRESHOLD).sum())


class TestChecks:
    """A quantised network with an exact one beside it."""

    NOISE = np.random.default_rng(1).normal(0, 0.1, SIZE)

    @pytest.mark.parametrize("exact", [20.0, 10.0])
    def test_the_margin_and_the_speed_are_with_checks(self, setting, exact):
        """These cost what onnx costs, or torch where onnx does not run."""
        scores = TRUTH + self.NOISE
        setting["onnx-int8"] = Fake(scores, 60.0, exact=object())
        if exact == 20.0:
            setting["onnx"] = Fake(TRUTH, exact)
        choice = chosen()
        assert choice.backend == "onnx-int8"
        margin = float(np.quantile(np.abs(self.NOISE), 0.99))
        assert choice.margin == trial_of(choice, "onnx-int8").margin == pytest.approx(margin)
        near = np.abs(scores - THRESHOLD) < margin
        assert 0.02 < near.mean() < 0.3
        speed = 1 / (1 / 60 + near.mean() / exact)
        assert trial_of(choice, "onnx-int8").speed == pytest.approx(speed)
        assert f"{speed / 10:.2f} times" in choice.reason
        after = np.where(near, TRUTH, scores)
        assert trial_of(choice, "onnx-int8").bias == pytest.approx((after - TRUTH).mean())
        assert trial_of(choice, "onnx-int8").f1 > 0.99
        assert f"within {margin:.3f} of the threshold" in (
            trial_of(choice, "onnx-int8").decision.reasons[-1].detail
        )

    def test_without_an_exact_one_nothing_is_checked(self, setting):
        setting |= {"onnx-int8": Fake(TRUTH + self.NOISE, 60.0), "onnx": Fake(TRUTH, 20.0)}
        trial = trial_of(chosen(BackendGate(documents=SIZE, f1=0.999)), "onnx-int8")
        assert (trial.margin, trial.speed) == (0.0, 60.0)
        assert failing(trial) == ["f1"]

    def test_an_exact_backend_that_is_faster_than_checks_is_taken(self, setting):
        coarse = TRUTH + 12 * self.NOISE
        coarse -= (coarse - TRUTH).mean()
        gate = BackendGate(documents=SIZE, bias=0.5, f1=0.9)
        setting |= {"onnx-int8": Fake(coarse, 30.0, exact=object()), "onnx": Fake(TRUTH, 28.0)}
        choice = chosen(gate)
        quantised = trial_of(choice, "onnx-int8")
        assert quantised.decision.passed
        assert 10 < quantised.speed < 28
        assert choice.backend == "onnx"
        assert [trial.backend for trial in choice.trials][:2] == ["onnx", "onnx-int8"]
        assert choice.margin == 0.0
        assert "2.80 times" in choice.reason

    def test_checks_that_make_it_slower_than_fp32_are_not_worth_it(self, setting):
        coarse = TRUTH + 30 * self.NOISE
        gate = BackendGate(documents=SIZE, bias=1.0, f1=0.0)
        setting["onnx-int8"] = Fake(coarse, 11.0, exact=object())
        choice = chosen(gate)
        assert choice.backend == "torch"
        assert failing(trial_of(choice, "onnx-int8")) == ["speed"]


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "detail"),
        [
            (ModelError("ONNX export: no such operator"), "ONNX export: no such operator"),
            (ImportError("no onnxruntime"), "ImportError: no onnxruntime"),
            (RuntimeError("x" * 5_000), "RuntimeError: xxx"),
        ],
    )
    def test_what_does_not_load_is_told_of(self, setting, error, detail):
        setting |= {"onnx-int8": error, "onnx": Fake(TRUTH, 20.0)}
        choice = chosen()
        assert choice.backend == "onnx"
        trial = trial_of(choice, "onnx-int8")
        assert (trial.speed, trial.f1) == (None, None)
        assert failing(trial) == ["runs"]
        assert trial.decision.reasons[0].detail.startswith(detail)
        assert len(trial.decision.reasons[0].detail) <= 300

    @pytest.mark.parametrize("calls", [0, 1, 2, 4, 5])
    def test_what_fails_while_it_scores_is_not_taken(self, setting, calls):
        setting |= {"onnx": Fake(TRUTH, 30.0, fails_after=calls), "torch-bf16": Fake(TRUTH, 20.0)}
        choice = chosen()
        assert choice.backend == "torch-bf16"
        assert [trial.backend for trial in choice.trials].count("onnx") == 1
        trial = trial_of(choice, "onnx")
        assert (trial.speed, trial.decision.passed) == (None, False)
        assert trial.decision.reasons[0].detail == "RuntimeError: out of <memory>"

    def test_scores_that_are_no_numbers_are_not_taken(self, setting):
        scores = TRUTH.copy()
        scores[7] = np.nan
        setting["onnx-int8"] = Fake(scores, 30.0, exact=object())
        choice = chosen()
        assert choice.backend == "torch"
        assert "not a number" in trial_of(choice, "onnx-int8").decision.reasons[0].detail
        assert BackendChoice.model_validate_json(choice.model_dump_json()) == choice

    @pytest.mark.parametrize("calls", [0, 3, 5])
    def test_a_reference_that_fails_is_an_error(self, setting, calls):
        setting["torch"] = Fake(TRUTH, 10.0, fails_after=calls)
        with pytest.raises(RuntimeError, match="memory"):
            chosen()

    @pytest.mark.parametrize("fails_after", [3, math.inf])
    def test_threads_are_set_back(self, setting, fails_after):
        setting["onnx"] = Fake(TRUTH, 30.0, fails_after=fails_after)
        before = torch.get_num_threads()
        chosen()
        assert torch.get_num_threads() == before
        for name in ("torch", "onnx"):
            assert (setting[name].threads[0], setting[name].threads[-1]) == (1, 0)


def test_the_best_of_the_rounds_counts_and_the_warm_up_does_not(setting, monkeypatch):
    speeds = {10.0: iter([1.0, 9.0, 10.0, 12.0, 11.0]), 30.0: iter([50.0, 29.0, 31.0, 28.0, 30.0])}
    setting["onnx"] = Fake(TRUTH, 30.0)
    monkeypatch.setattr(choosing, "_speed", lambda one, tokens, clock: next(speeds[one.speed]))
    choice = chosen()
    assert trial_of(choice, "torch").speed == 12.0
    assert trial_of(choice, "onnx").speed == 31.0


def test_all_are_measured_on_the_same_documents(setting, monkeypatch):
    """The first of them are short: on these alone every backend is ten times as fast."""

    def speed(classifier, tokens, clock):
        classifier.score_tokens(tokens)
        return classifier.speed * (10 if len(tokens.ids) <= 16 else 1)

    setting |= {"onnx": Fake(TRUTH, 30.0), "torch-bf16": Fake(TRUTH, 4.0)}
    monkeypatch.setattr(choosing, "_speed", speed)
    choice = chosen()
    assert setting["torch"].calls == [16, 16, 100, 100, 100, SIZE]
    assert setting["onnx"].calls == [16, 16, 100, 100, 100, SIZE]
    assert setting["torch-bf16"].calls == [16, 16]
    found = {trial.backend: trial.speed for trial in choice.trials if trial.speed}
    assert found == {"torch": 10.0, "onnx": 30.0, "torch-bf16": 4.0}


def test_a_speed_is_of_documents_by_the_clock():
    ticks = iter([5.0, 7.0, 3.0, 3.0])
    fake = Fake(TRUTH, 0.0)
    tokens = fake.prepare(TEXTS[:40])
    assert choosing._speed(fake, tokens, lambda: next(ticks)) == 20.0
    assert math.isfinite(choosing._speed(fake, tokens, lambda: next(ticks)))
    windows = dataclasses.replace(tokens, document=np.repeat(np.arange(20), 2))
    ticks = iter([0.0, 1.0])
    assert choosing._speed(fake, windows, lambda: next(ticks)) == 20.0


def test_a_gpu_has_other_backends_and_another_clock(setting, monkeypatch):
    assert "torch-packed" in choosing.candidates(True)
    assert not {"onnx", "onnx-int8"} & set(choosing.candidates(True))
    assert {"onnx", "onnx-int8"} < set(choosing.candidates(False))
    assert choosing.REFERENCE not in {*choosing.candidates(True), *choosing.candidates(False)}
    setting["torch-packed"] = Fake(TRUTH, 30.0)
    monkeypatch.setattr(choosing, "gpu_name", lambda: "a GPU")
    assert chosen().backend == "torch-packed"


def test_the_choice_survives_json_and_is_a_page(setting):
    setting |= {
        "onnx-int8": Fake(TRUTH + TestChecks.NOISE, 60.0, exact=object()),
        "onnx": ModelError("<script>alert('x')</script> & more"),
        "torch-bf16": Fake(flipped(0.2), 70.0),
    }
    choice = chosen()
    again = BackendChoice.model_validate_json(choice.model_dump_json())
    assert again == choice
    assert again.margin == choice.margin > 0
    page = choice.to_html()
    assert page == again.to_html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "A &lt;machine&gt;" in page
    assert "Backend: onnx-int8" in page
    for trial in choice.trials:
        assert f"<td>{trial.backend}</td>" in page
        for reason in trial.decision.reasons:
            assert choosing.html.text(reason.detail) in page
    kept = f"Compared on 400 documents, of which fp32 keeps {choice.kept}"
    assert kept in page
    with pytest.raises(ValueError, match="extra"):
        BackendChoice.model_validate({**choice.model_dump(), "more": 1})


@pytest.mark.parametrize("family", ["linear", "recurrent"])
def test_other_families_run_in_one_way_only(setting, monkeypatch, family):
    monkeypatch.setattr(choosing, "read_info", lambda folder: SimpleNamespace(family=family))
    setting["torch"] = ModelError("must not be loaded")
    found = chosen()
    assert (found.backend, found.trials) == ("torch", ())
    assert family in found.reason
