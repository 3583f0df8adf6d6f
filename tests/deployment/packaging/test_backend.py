"""Which backend a package is built for."""

import numpy as np
import pytest

from deployment.packaging import backend
from deployment.packaging.backend import backend_for_package, compare
from tamis.errors import ModelError
from tamis.models.classifier import Scores
from tamis.scoring.settings import BackendGate, ScoringSettings

GATE = BackendGate(documents=50, min_kept=10)
REFERENCE = np.linspace(0, 5, 100)


class Scorer:
    """Stands for a loaded encoder."""

    def __init__(self, values):
        from types import SimpleNamespace

        target = SimpleNamespace(scale=(0.0, 5.0))
        self.values, self.info = values, SimpleNamespace(threshold=2.5, target=target)

    def score(self, texts):
        assert len(texts) == 50, "as many as the gate asks for"
        if isinstance(self.values, Exception):
            raise self.values
        return Scores(self.values[:50], np.ones(50, np.int64))


@pytest.fixture
def found(tmp_path, monkeypatch):
    """The choice between backends that give certain scores."""
    calls = []

    def choose(int8, fp32, family="encoder", named=None, reference=REFERENCE[::2], **settings):
        given = {"source": reference, "onnx-int8": int8, "onnx": fp32}
        info = type("Info", (), {"family": family})
        monkeypatch.setattr(backend, "read_info", lambda folder: info)
        monkeypatch.setattr(backend, "digest", lambda folder: "d" * 64)
        monkeypatch.setattr(backend, "export", lambda folder, name, home: name)
        monkeypatch.setattr(backend, "load_encoder", lambda name: Scorer(given[str(name)]))

        def texts():
            calls.append(1)
            return ["text"] * 80

        scoring = ScoringSettings(gate=GATE, **settings)
        from pathlib import Path

        chosen = backend_for_package(Path("source"), texts, scoring, tmp_path, 0, named)
        return chosen, len(calls)

    return choose


GOOD, OFF = REFERENCE[::2] + 0.001, REFERENCE[::2] + 2


@pytest.mark.parametrize(
    ("int8", "fp32", "wanted"),
    [
        (GOOD, GOOD, "onnx-int8"),
        (OFF, GOOD, "onnx"),
        (RuntimeError("no such instruction"), GOOD, "onnx"),
        (GOOD * np.nan, GOOD, "onnx"),
        (OFF, OFF, "torch"),
    ],
)
def test_the_first_of_onnxruntimes_backends_that_passes(found, int8, fp32, wanted):
    chosen, _ = found(int8, fp32)
    assert chosen.backend == wanted


def test_with_too_few_kept_documents_torch_serves(found):
    chosen, _ = found(GOOD, GOOD, reference=np.zeros(50))
    assert chosen.backend == "torch"
    assert "fp32 keeps 0" in chosen.trials[0].decision.reasons[0].detail


def test_it_is_judged_once(found):
    found(GOOD, GOOD)
    assert found(OFF, OFF) == (found(GOOD, GOOD)[0], 1)


def test_who_names_one_gets_it_with_its_margin(found):
    chosen, _ = found(OFF, GOOD, named="onnx-int8")
    assert chosen.backend == "onnx-int8"
    assert chosen.margin == pytest.approx(2)
    assert found(OFF, GOOD, backend="onnx")[0].backend == "onnx"
    assert found(OFF, GOOD, named="torch", backend="onnx")[0].backend == "torch"


def test_one_that_is_named_and_fails_is_an_error(found):
    with pytest.raises(ModelError, match="onnx-int8: broken"):
        found(RuntimeError("broken"), GOOD, named="onnx-int8")


def test_another_family_runs_in_one_way(found):
    chosen, calls = found(GOOD, GOOD, family="linear", named="onnx")
    assert (chosen.backend, calls) == ("torch", 0)


def test_int8_is_judged_with_its_close_scores_checked():
    near = np.where(np.abs(REFERENCE - 2.5) < 0.05, 5 - REFERENCE, REFERENCE)
    assert compare("onnx", REFERENCE, near, 2.5, GATE, 5).f1 < 1
    checked = compare("onnx-int8", REFERENCE, near + 0.001, 2.5, GATE, 5)
    assert checked.margin > 0
    assert checked.f1 == 1
