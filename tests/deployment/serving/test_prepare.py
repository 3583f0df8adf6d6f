import pytest

from deployment.serving import prepare
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
