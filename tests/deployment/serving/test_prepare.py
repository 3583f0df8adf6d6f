from types import SimpleNamespace

import numpy as np
import pytest

from deployment.serving import prepare
from tamis.serving.model import FILE, ReferenceScores, read_served
from tests.scoring.backends.test_onnx import TEXTS, make_classifier
from tests.tiny import labelled, save_tiny_bert, tiny_task


@pytest.fixture
def saved(tmp_path):
    make_classifier(save_tiny_bert(tmp_path / "bert")).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("gpu", "named", "asked"),
    [("", None, "package"), ("H100", None, "measured"), ("H100", "onnx", "package")],
)
def test_the_fastest_is_measured_on_a_gpu_only(gpu, named, asked, saved, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(prepare, "gpu_name", lambda: gpu)
    monkeypatch.setattr(prepare, "ingest", lambda task: labelled(list(TEXTS), [1.0] * len(TEXTS)))
    monkeypatch.setattr(
        prepare, "backend_for_package", lambda *given: calls.append(("package", given[-1]))
    )
    monkeypatch.setattr(
        prepare, "backend_by", lambda plan, texts, reference, *_: calls.append(
            ("measured", len(texts) == len(reference) == len(TEXTS))
        )
    )  # fmt: skip
    prepare.choose_backend(tiny_task("unused"), saved, tmp_path, named)
    assert calls == [("package", named) if asked == "package" else ("measured", True)]


@pytest.fixture
def registered(saved, tmp_path, monkeypatch):
    """A version in a registry of its own, whose profile can be set."""
    stand = SimpleNamespace(
        task=tiny_task("toy"),
        version=SimpleNamespace(name="toy", version="1", tags={"digest": prepare.digest(saved)}),
        scores=None,
    )
    registry = SimpleNamespace(
        download=lambda version, cache: saved,
        download_attached=lambda version, name, cache: None if stand.scores is None else tmp_path,
    )
    monkeypatch.setattr(prepare, "Registry", lambda: registry)
    monkeypatch.setattr(
        "tamis.monitoring.profile.load_profile",
        lambda folder: SimpleNamespace(current=lambda: SimpleNamespace(scores=stand.scores)),
    )
    return stand


def reference(stand, tmp_path):
    folder = prepare.prepare(stand.task, stand.version, tmp_path / "home", "torch")
    return read_served(folder).reference, (folder / FILE).stat().st_ino


def test_reference_scores_are_the_profiles_and_else_the_classifiers_own(registered, tmp_path):
    own, made = reference(registered, tmp_path)
    assert isinstance(own, ReferenceScores)
    assert reference(registered, tmp_path) == (own, made), "the same folder serves"
    registered.scores = np.array([1.0, 4.0, np.nan])
    profiled, again = reference(registered, tmp_path)
    assert (profiled.documents, again != made) == (2, True)
    assert reference(registered, tmp_path) == (profiled, again)
