import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from tamis.errors import ModelError
from tamis.models.backbone import file_sha256
from tamis.models.classifier import digest
from tamis.models.encoder_classifier import EncoderClassifier
from tamis.scoring.backends import choose as choosing
from tamis.scoring.backends import folder as folders
from tamis.scoring.backends import onnx
from tamis.scoring.backends.choose import Judged, choose
from tamis.scoring.backends.folder import export, load_backend, read_export
from tamis.scoring.settings import BackendGate
from tests.scoring.backends.test_onnx import PROJECT, TEXTS, make_classifier
from tests.tiny import easy_texts, save_tiny_bert

TOLERANCE = {
    "torch": 0.0,
    "onnx": 1e-4,
    "torch-packed": 0.1 if torch.cuda.is_available() else 1e-4,
    "torch-bf16": 0.1,
    "onnx-int8": 0.5,
}
"""On a scale from 0 to 5."""
CHEAP = "torch-bf16"
"""What is exported without a network being loaded."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_classifier(save_tiny_bert(folder / "bert")).save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def expected(saved):
    scores = load_backend(saved).score(TEXTS).values
    assert np.ptp(scores) > 2
    return scores


@pytest.fixture(scope="module")
def exported(saved, tmp_path_factory):
    return export(saved, "onnx-int8", tmp_path_factory.mktemp("home"))


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def refused(folder):
    with pytest.raises(ModelError) as caught:
        load_backend(folder)
    sentence = str(caught.value)
    assert str(folder) in sentence
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("backend", TOLERANCE)
def test_every_backend_scores_as_the_reference_does(saved, expected, tmp_path, backend):
    before = digest(saved)
    folder = export(saved, backend, tmp_path / "home")
    loaded = load_backend(str(folder))
    scores = loaded.score(TEXTS)
    np.testing.assert_allclose(scores.values, expected, atol=TOLERANCE[backend])
    assert scores.tokens.tolist() == load_backend(saved).score(TEXTS).tokens.tolist()
    np.testing.assert_array_equal(loaded.reference, load_backend(saved).reference)
    assert digest(saved) == before
    assert (loaded.exact is not None) == (backend == "onnx-int8")
    if backend in ("torch-bf16", "onnx-int8"):
        assert np.abs(scores.values - expected).max() > 1e-4


@pytest.mark.parametrize("backend", TOLERANCE)
def test_lone_surrogates_and_odd_characters_are_scored(saved, tmp_path, backend):
    texts = ["\ud800 proof \udfff", "proof", "\x00" * 50, "\u202e\ufffe", "漢" * 5_000, ""]
    loaded = load_backend(export(saved, backend, tmp_path / "home"))
    scores = loaded.score(texts).values
    assert np.isfinite(scores).all()
    assert np.ptp(scores) > 0.1
    plain = loaded.score(["? proof ?"]).values
    np.testing.assert_allclose(scores[:1], plain, atol=max(1e-4, TOLERANCE[backend]))


def test_the_reference_is_the_folder_itself(saved, tmp_path):
    assert export(saved, "torch", tmp_path / "home") == saved
    assert not (tmp_path / "home").exists()
    assert read_export(saved) is None
    assert read_export(str(tmp_path)) is None


def test_an_export_says_what_it_is(saved, exported):
    found = read_export(exported)
    assert found.backend == "onnx-int8"
    assert found.source == digest(saved)
    assert found.light_tokenizer
    names = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert set(found.files) == names - {"export.json"}
    assert {"encoder.onnx", "exact.onnx", "classifier.json", "head.safetensors"} < names
    assert not any(name.endswith("model.safetensors") for name in names)
    assert found.files["exact.onnx"] == file_sha256(exported / "exact.onnx")
    assert exported.name == f"{found.source[:16]}-onnx-int8"


@pytest.mark.parametrize("backend", ["onnx", CHEAP])
def test_it_is_done_once(saved, tmp_path, monkeypatch, backend):
    home = tmp_path / "deep" / "home"
    first = export(saved, backend, home)
    times = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    assert list(home.iterdir()) == [first]
    monkeypatch.setattr(folders, "_export", lambda *given: pytest.fail("it worked again"))
    assert export(saved, backend, home) == first
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == times


def test_another_classifier_has_another_export(saved, tmp_path):
    other = shutil.copytree(saved, tmp_path / "other")
    first = export(saved, CHEAP, tmp_path / "home")
    assert export(other, CHEAP, tmp_path / "home") == first
    (other / "classifier.json").write_text((other / "classifier.json").read_text() + " ")
    second = export(other, CHEAP, tmp_path / "home")
    assert second != first
    assert read_export(second).source == digest(other)


@pytest.mark.parametrize("error", [ModelError("no"), KeyboardInterrupt(), MemoryError()])
def test_an_export_that_fails_leaves_nothing(saved, tmp_path, monkeypatch, error):
    def fail(classifier, folder, int8):
        (folder / "encoder.onnx").write_bytes(b"half")
        raise error

    home = tmp_path / "home"
    monkeypatch.setattr(onnx, "export", fail)
    with pytest.raises(type(error)):
        export(saved, "onnx", home)
    assert list(home.iterdir()) == []
    monkeypatch.undo()
    load_backend(export(saved, "onnx", home))


def test_an_export_that_cannot_be_written_is_told_of(saved, tmp_path):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ModelError, match=r"export of .* for onnx: .*home"):
        export(saved, "onnx", tmp_path / "home")
    assert (tmp_path / "home").read_text() == "a file"


@pytest.mark.parametrize("backend", ["onnx", CHEAP])
def test_no_classifier_cannot_be_exported(tmp_path, backend):
    with pytest.raises(ModelError, match="none"):
        export(tmp_path / "none", backend, tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


def test_a_network_that_onnx_lacks_is_told_of(saved, tmp_path, monkeypatch):
    def fail(classifier, target):
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(onnx, "_trace", fail)
    with pytest.raises(ModelError, match=r"^ONNX export: no such operator$"):
        export(saved, "onnx-int8", tmp_path / "home")


def test_the_slower_of_two_takes_what_the_faster_made(saved, expected, tmp_path, monkeypatch):
    real, home = folders._hashes, tmp_path / "home"

    def overtaken(folder):
        monkeypatch.setattr(folders, "_hashes", real)
        first = export(saved, CHEAP, home)
        (first / "export.json").touch()
        inodes.append((first / "export.json").stat().st_ino)
        return real(folder)

    inodes = []
    monkeypatch.setattr(folders, "_hashes", overtaken)
    folder = export(saved, CHEAP, home)
    assert list(home.iterdir()) == [folder]
    assert [(folder / "export.json").stat().st_ino] == inodes
    np.testing.assert_allclose(load_backend(folder).score(TEXTS).values, expected, atol=0.1)


def test_processes_at_once_all_end_with_a_whole_folder(saved, tmp_path):
    home = tmp_path / "home"
    code = (
        "import sys; from pathlib import Path; from tamis.scoring.backends import folder;"
        "from tamis.scoring.backends.folder import export;"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline();"
        f"print(export(Path(sys.argv[1]), {CHEAP!r}, Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(saved), str(home)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    runs = [subprocess.Popen(command, text=True, cwd=PROJECT, **pipes) for _ in range(3)]
    try:
        assert [run.stdout.readline() for run in runs] == ["ready\n"] * 3
        for run in runs:
            run.stdin.write("go\n")
            run.stdin.flush()
        said = [run.communicate(timeout=60) for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    assert [run.returncode for run in runs] == [0, 0, 0], said
    folder = export(saved, CHEAP, home)
    assert [out for out, _ in said] == [f"{folder}\n"] * 3
    assert list(home.iterdir()) == [folder]
    load_backend(folder)


def test_a_folder_that_lost_its_mark_is_made_again(saved, tmp_path):
    folder = export(saved, CHEAP, tmp_path / "home")
    (folder / "export.json").unlink()
    (folder / "head.safetensors").unlink()
    assert export(saved, CHEAP, tmp_path / "home") == folder
    load_backend(folder)
    assert list((tmp_path / "home").iterdir()) == [folder]


NAMES = [
    "encoder.onnx",
    "exact.onnx",
    "head.safetensors",
    "classifier.json",
    "backbone/tokenizer.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    assert f"{name} is not as it was exported; remove the folder" in refused(copy)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_refused(copy, name):
    (copy / name).unlink()
    assert f"{name} is not as it was exported" in refused(copy)


def test_a_file_too_many_is_refused(copy):
    (copy / "backbone" / "more.json").write_text("{}")
    assert "backbone/more.json is not as it was exported" in refused(copy)
    (copy / "backbone" / "more.json").rename(copy / "backbone" / "export.json")
    refused(copy)


def test_a_folder_without_its_mark_is_no_classifier(copy):
    (copy / "export.json").unlink()
    refused(copy)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"{}", b'{"format": 1}', b"[" * 9_999]
)
def test_a_damaged_mark_is_refused(copy, content):
    (copy / "export.json").write_bytes(content)
    assert "export.json is damaged or of another format; remove the folder" in refused(copy)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"backend": "other"}, {"files": ["encoder.onnx"]}, {"more": 1}],
)
def test_another_format_is_refused(copy, change):
    path = copy / "export.json"
    facts = json.loads(path.read_text())
    load_backend(copy)
    path.write_text(json.dumps(facts | change))
    assert "export.json is damaged or of another format" in refused(copy)


def test_files_outside_the_folder_are_none_of_it(copy):
    path = copy / "export.json"
    facts = json.loads(path.read_text())
    facts["files"]["../outside"] = "0" * 64
    path.write_text(json.dumps(facts))
    assert "../outside is not as it was exported" in refused(copy)


def test_a_file_that_cannot_be_read_is_told_of(copy, monkeypatch):
    def fail(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(folders, "file_sha256", fail)
    assert "Permission denied" in refused(copy)


def test_a_tokenizer_without_a_light_form_is_that_of_transformers(
    saved, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(EncoderClassifier, "preparer_loader", lambda self, folder: None)
    folder = export(saved, "onnx", tmp_path / "home")
    assert not read_export(folder).light_tokenizer
    loaded = load_backend(folder)
    assert type(loaded.encoder.tokenizer).__module__.startswith("transformers.")
    np.testing.assert_allclose(loaded.score(TEXTS).values, expected, atol=1e-4)


def test_a_tokenizer_of_either_kind_that_is_damaged_is_refused(saved, tmp_path, monkeypatch):
    """By its hash it is whole, as where a newer library cannot read it."""
    for kind in (None, "light"):
        with monkeypatch.context() as patch:
            patch.setattr(
                EncoderClassifier, "preparer_loader", lambda self, folder, kind=kind: kind
            )
            folder = export(saved, "onnx", tmp_path / str(kind))
        (folder / "backbone" / "tokenizer.json").write_text("{}")
        facts = json.loads((folder / "export.json").read_text())
        facts["files"]["backbone/tokenizer.json"] = file_sha256(
            folder / "backbone" / "tokenizer.json"
        )
        (folder / "export.json").write_text(json.dumps(facts))
        refused(folder)


class TestChoice:
    """Among the real ones, whose speeds are given."""

    TEXTS = easy_texts(np.linspace(0, 1, 100), seed=3)
    GATE = BackendGate(documents=100, f1=0.9)

    @pytest.fixture(autouse=True)
    def speeds(self, monkeypatch):
        """onnx is 3 times torch, int8 5 times; each runs."""

        def speed(classifier, tokens, clock):
            classifier.score_tokens(tokens)
            if classifier.exact is not None:
                return 50.0
            encoder = type(classifier.encoder).__name__
            bf16 = encoder == "Encoder" and classifier.encoder.model.dtype == torch.bfloat16
            return 30.0 if encoder == "OnnxEncoder" else 8.0 if bf16 else 10.0

        monkeypatch.setattr(choosing, "_speed", speed)
        monkeypatch.setattr(choosing, "gpu_name", lambda: "")

    def test_they_load_and_are_judged(self, saved, tmp_path):
        choice = choose(saved, tmp_path, Judged(self.TEXTS, 2.5), self.GATE, (0.0, 5.0))
        assert choice.source == digest(saved)
        assert [trial.speed is None for trial in choice.trials] == [False] * 4
        assert choice.backend in ("onnx", "onnx-int8")
        assert choice.trials[0].f1 > 0.9
        assert {path.name.split("-", 1)[1] for path in tmp_path.iterdir()} == {
            "onnx",
            "onnx-int8",
            "torch-bf16",
        }

    def test_a_network_that_cannot_be_exported_is_told_of(self, saved, tmp_path, monkeypatch):
        def fail(classifier, target):
            raise RuntimeError("no such operator")

        monkeypatch.setattr(onnx, "_trace", fail)
        choice = choose(saved, tmp_path, Judged(self.TEXTS, 2.5), self.GATE, (0.0, 5.0))
        assert choice.backend == "torch"
        choice_of = {trial.backend: trial for trial in choice.trials}
        for name in ("onnx", "onnx-int8"):
            assert choice_of[name].speed is None
            detail = choice_of[name].decision.reasons[0].detail
            assert detail == "ONNX export: no such operator"

    def test_a_damaged_export_is_told_of(self, saved, tmp_path):
        export(saved, "onnx", tmp_path)
        [folder] = tmp_path.iterdir()
        (folder / "encoder.onnx").write_bytes(b"")
        choice = choose(saved, tmp_path, Judged(self.TEXTS, 2.5), self.GATE, (0.0, 5.0))
        detail = next(t for t in choice.trials if t.backend == "onnx").decision.reasons[0].detail
        assert "encoder.onnx is not as it was exported" in detail
