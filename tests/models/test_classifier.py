import importlib.metadata
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tamis.corpus.split import split
from tamis.errors import ModelError
from tamis.models.backbone import file_sha256, load_backbone, locate
from tamis.models.classifier import as_dict, digest, load_classifier, read_info
from tamis.models.info import EncoderInfo
from tamis.models.preparer import load_preparer
from tamis.models.settings import HubBackbone, PackageBackbone, PathBackbone
from tamis.models.tokens import Tokens
from tamis.models.train import train
from tests.tiny import easy_set, easy_texts, tiny_task

TEXTS = [*easy_texts(np.linspace(0, 1, 12), seed=5), "", "proof " * 200]


@pytest.fixture(scope="module")
def trained(tiny_bert, tmp_path_factory):
    task, data = tiny_task(tiny_bert), easy_set()
    assignment = split(data, task.target, task.split, task.seed)
    return train(task, data, assignment, tmp_path_factory.mktemp("checkpoints")).classifier


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    trained.save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_saved_classifier_scores_the_same_when_loaded(trained, saved):
    loaded = load_classifier(saved)
    assert loaded.info == trained.info
    before, after = trained.score(TEXTS), load_classifier(str(saved)).score(TEXTS)
    np.testing.assert_array_equal(before.values, after.values)
    np.testing.assert_array_equal(before.tokens, after.tokens)
    np.testing.assert_array_equal(trained.reference, loaded.reference)
    assert before.tokens.tolist()[-2:] == [1, round(62 * 1200 / 371)]
    assert np.ptp(before.values) > 0.5
    low, high = trained.info.target.scale
    assert low <= before.values.min() <= before.values.max() <= high


def test_the_network_is_saved_up_to_the_chosen_layer_only(trained, saved):
    config = json.loads((saved / "backbone" / "config.json").read_text())
    assert config["num_hidden_layers"] == trained.info.layer
    names = load_file(saved / "backbone" / "model.safetensors")
    layers = {int(name.split("layer.")[1].split(".")[0]) for name in names if "layer." in name}
    assert layers == set(range(trained.info.layer))
    assert not any("pooler" in name for name in names)


def test_the_folder_holds_safetensors_and_json_and_no_pickle(saved):
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".jinja"}
    assert {"classifier.json", "head.safetensors", "reference.safetensors"} <= {
        path.name for path in files
    }
    for path in files:
        head = path.read_bytes()[:4]
        assert not head.startswith((b"\x80", b"PK"))


def test_embed_gives_the_vectors_that_the_head_reads(trained):
    vectors, tokens = trained.embed(TEXTS)
    raw = trained.info.target.score(trained.head.outputs(vectors))
    np.testing.assert_allclose(trained.score_map(raw), trained.score(TEXTS).values)
    np.testing.assert_array_equal(trained.scores_of(vectors), trained.score_map(raw))
    assert vectors.shape == (len(TEXTS), 32)
    assert len(tokens) == len(TEXTS)
    assert trained.score([]).values.shape == (0,)


def test_scoring_has_two_halves(trained):
    tokens = trained.prepare(TEXTS)
    assert isinstance(tokens, Tokens)
    halves, whole = trained.score_tokens(tokens), trained.score(TEXTS)
    assert halves.values.tobytes() == whole.values.tobytes()
    assert halves.tokens.tolist() == whole.tokens.tolist() == tokens.whole.tolist()


def test_the_first_half_is_loaded_alone_and_without_torch(trained, saved):
    light = trained.preparer_loader(str(saved))
    assert light is load_preparer
    assert light(saved).prepare(TEXTS).same(trained.prepare(TEXTS))
    code = (
        "import sys; from tamis.models.preparer import load_preparer;"
        "load_preparer(sys.argv[1]).prepare(['proof']);"
        "print(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    run = [sys.executable, "-c", code, str(saved)]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_first_half_that_tokenizes_otherwise_is_not_offered(trained, copy):
    path = copy / "backbone" / "tokenizer.json"
    facts = json.loads(path.read_text())
    facts["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(facts))
    assert trained.preparer_loader(copy) is None
    path.unlink()
    assert trained.preparer_loader(copy) is None


@pytest.mark.parametrize("name", ["classifier.json", "backbone/tokenizer.json"])
def test_a_damaged_first_half_is_refused(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError) as caught:
        load_preparer(copy)
    assert "\n" not in str(caught.value)


def test_the_digest_follows_the_content_not_the_place(saved, copy):
    before = digest(saved)
    assert digest(copy) == digest(str(copy)) == before
    load_classifier(copy)
    assert digest(copy) == before


@pytest.mark.parametrize("change", ["content", "name", "more", "less"])
def test_the_digest_of_another_model_differs(saved, copy, change):
    head = copy / "head.safetensors"
    if change == "content":
        arrays = load_file(head)
        arrays["bias"] = np.nextafter(arrays["bias"], np.float32(9))
        save_file(arrays, head)
    elif change == "name":
        head.rename(copy / "heads.safetensors")
    elif change == "more":
        (copy / "backbone" / "more.txt").write_text("")
    else:
        head.unlink()
    assert digest(copy) != digest(saved)


def test_a_model_saved_twice_is_the_same_model(trained, saved, tmp_path):
    trained.save(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(saved)
    load_classifier(saved).save(tmp_path / "loaded")
    assert load_classifier(tmp_path / "loaded").score(TEXTS).values.tolist() == (
        trained.score(TEXTS).values.tolist()
    )


def refused(folder):
    with pytest.raises(ModelError) as caught:
        load_classifier(folder)
    sentence = str(caught.value)
    assert str(folder) in sentence
    assert "\n" not in sentence
    return sentence


def changed(path, **arrays):
    save_file({k: v for k, v in (load_file(path) | arrays).items() if v is not None}, path)


def test_the_map_of_scores_is_saved_with_the_head(trained, saved, copy):
    assert not trained.score_map.is_identity
    arrays = load_file(saved / "head.safetensors")
    np.testing.assert_array_equal(arrays["score_map_x"], trained.score_map.x)
    np.testing.assert_array_equal(arrays["score_map_y"], trained.score_map.y)
    assert set(load_classifier(saved).head.arrays) == set(trained.head.arrays)
    other = trained.score_map.y * 0.5
    changed(copy / "head.safetensors", score_map_y=other)
    np.testing.assert_allclose(
        load_classifier(copy).score(TEXTS).values, 0.5 * trained.score(TEXTS).values
    )


def test_a_folder_without_a_map_gives_the_scores_as_they_are(trained, copy):
    changed(copy / "head.safetensors", score_map_x=None, score_map_y=None)
    loaded = load_classifier(copy)
    assert loaded.score_map.is_identity
    vectors, _ = trained.embed(TEXTS)
    raw = trained.info.target.score(trained.head.outputs(vectors))
    np.testing.assert_allclose(loaded.score(TEXTS).values, raw)


@pytest.mark.parametrize("change", ["half", "falling"])
def test_a_damaged_map_is_refused(copy, trained, change):
    y = None if change == "half" else trained.score_map.y[::-1].copy()
    changed(copy / "head.safetensors", score_map_y=y)
    expected = "lacks the array score_map_y" if change == "half" else "not a rising line"
    assert expected in refused(copy)


FILES = [
    "classifier.json",
    "head.safetensors",
    "reference.safetensors",
    "backbone/model.safetensors",
    "backbone/config.json",
]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(copy, name):
    (copy / name).unlink()
    refused(copy)


def test_a_missing_tokenizer_is_refused(copy):
    (copy / "backbone" / "tokenizer.json").unlink()
    refused(copy)


def without(path, name):
    arrays = load_file(path)
    del arrays[name]
    save_file(arrays, path, metadata={"format": "pt"})


def test_a_network_that_lacks_weights_is_refused(copy):
    name = "encoder.layer.0.attention.self.query.weight"
    without(copy / "backbone" / "model.safetensors", name)
    refused(copy)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_head_that_lacks_an_array_is_refused(copy, name):
    without(copy / "head.safetensors", name)
    refused(copy)


def test_no_folder_is_refused(tmp_path):
    assert "classifier.json" in refused(tmp_path / "none")
    with pytest.raises(ModelError):
        read_info(tmp_path / "none")


@pytest.mark.parametrize(
    "name",
    [
        "classifier.json",
        "backbone/config.json",
        *(name for name in FILES if name.endswith(".safetensors")),
    ],
)
def test_a_file_cut_short_is_refused(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(copy)


def test_a_classifier_of_another_format_is_refused(copy):
    path = copy / "classifier.json"
    facts = json.loads(path.read_text())
    for change in ({"format": 2}, {"surprise": 1}, {"layer": "three"}):
        path.write_text(json.dumps(facts | change))
        with pytest.raises(ModelError, match=r"classifier\.json: ") as caught:
            read_info(copy)
        assert "\n" not in str(caught.value)
        refused(copy)
    path.write_text(json.dumps(facts))
    assert read_info(copy) == load_classifier(copy).info


def test_facts_that_are_not_utf8_are_refused(copy):
    (copy / "classifier.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ModelError):
        read_info(copy)


def test_the_facts_survive_json_and_fit_on_a_page(trained):
    info = trained.info
    assert EncoderInfo.model_validate_json(info.model_dump_json()) == info
    facts = as_dict(info)
    assert facts["data_fingerprint"] == info.trained_on.fingerprint
    assert "trained_on" not in facts
    assert json.loads(json.dumps(facts)) == facts
    known = info.trained_on.known()
    assert len(known) == 60
    assert known[info.trained_on.test[0]] == "test"


class TestBackbone:
    def test_a_path_must_be_a_folder(self, tmp_path, tiny_bert):
        assert locate(PathBackbone(kind="path", path=str(tiny_bert))) == (str(tiny_bert), {})
        for path in (tmp_path / "none", tiny_bert / "config.json"):
            with pytest.raises(ModelError, match="allowed: a model folder"):
                locate(PathBackbone(kind="path", path=str(path)))

    def test_a_folder_that_is_no_model_is_refused(self, tmp_path):
        with pytest.raises(ModelError, match=r"^backbone ") as caught:
            load_backbone(PathBackbone(kind="path", path=str(tmp_path)))
        assert "\n" not in str(caught.value)

    def test_the_hub_is_asked_for_a_revision(self):
        backbone = HubBackbone(kind="hub", model="x/y", revision="abc")
        assert locate(backbone) == ("x/y", {"revision": "abc"})

    @pytest.fixture
    def package(self, monkeypatch, tmp_path, tiny_bert):
        """An installed package that carries the tiny BERT, with its sha256."""

        class Fake:
            def locate_file(self, path):
                return tmp_path / path

        shutil.copytree(tiny_bert, tmp_path / "tiny_package" / "model")
        real = importlib.metadata.distribution
        monkeypatch.setattr(
            importlib.metadata,
            "distribution",
            lambda name: Fake() if name == "tiny-package" else real(name),
        )
        return file_sha256(tiny_bert / "model.safetensors")

    def given(self, **change):
        given = {"package": "tiny-package", "path": "tiny_package/model", "sha256": "0" * 64}
        return PackageBackbone(kind="package", **(given | change))

    def test_the_pinned_weights_of_a_package_are_loaded(self, package):
        model, _ = load_backbone(self.given(sha256=package))
        assert model.config.hidden_size == 32
        assert not model.training

    def test_other_weights_than_the_pinned_are_refused(self, package, tmp_path):
        with pytest.raises(ModelError, match=r"they are not loaded") as caught:
            load_backbone(self.given())
        assert package[:12] in str(caught.value)
        weights = tmp_path / "tiny_package" / "model" / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        with pytest.raises(ModelError, match=f"pinned is {package[:12]}"):
            load_backbone(self.given(sha256=package))

    def test_a_package_without_the_model_or_not_installed_is_refused(self, package):
        with pytest.raises(ModelError, match="tiny-package carries no other/place"):
            locate(self.given(path="other/place"))
        with pytest.raises(ModelError, match="'no-such-package' is not installed"):
            locate(self.given(package="no-such-package"))
