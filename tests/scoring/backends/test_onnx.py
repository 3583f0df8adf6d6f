import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tamis.errors import ModelError
from tamis.models.backbone import cut, load_backbone
from tamis.models.classifier import TrainedOn
from tamis.models.encoder import Encoder
from tamis.models.encoder_classifier import EncoderClassifier
from tamis.models.heads import Head
from tamis.models.info import EncoderInfo
from tamis.models.settings import PathBackbone
from tamis.models.tokens import Tokens
from tamis.scoring.backends import onnx
from tamis.scoring.backends.folder import export, load_backend
from tamis.scoring.backends.onnx import EXACT, FILE, TOKENS_PER_BATCH, OnnxEncoder
from tamis.target import OrdinalTarget
from tamis.task import TextLimits
from tests.tiny import easy_texts, save_tiny_bert

PROJECT = Path(__file__).resolve().parents[3]
LIMITS = TextLimits(max_tokens=64)
TEXTS = [*easy_texts(np.linspace(0, 1, 40), seed=5), "", "a", "naïve 漢字 \x00", "proof " * 200]


def make_classifier(bert, layer=3, pooling="mean", limits=LIMITS):
    """A classifier on the tiny BERT, cut after a layer, with a head drawn at random."""
    backbone = PathBackbone(kind="path", path=str(bert))
    model, tokenizer = load_backbone(backbone)
    info = EncoderInfo(
        task="toy",
        task_fingerprint="0",
        target=OrdinalTarget(kind="ordinal", keep_at_least=3.0),
        text=limits,
        family="encoder",
        train="frozen",
        backbone=backbone,
        layer=layer,
        pooling=pooling,
        head="random",
        formula="linear",
        threshold=2.5,
        seed=0,
        trained_on=TrainedOn(fingerprint="0", train=(), validation=(), test=()),
    )
    weight = np.random.default_rng(1).normal(0, 2, (32, 1)).astype(np.float32)
    vectors = Encoder(model, tokenizer, limits).features(TEXTS, [layer], [pooling])[0]
    bias = 2.5 - np.median(vectors[layer, pooling] @ weight)
    head = Head("linear", {"weight": weight, "bias": np.array([bias], np.float32)})
    reference = np.zeros((2, 32), np.float32)
    return EncoderClassifier(info, Encoder(cut(model, layer), tokenizer, limits), head, reference)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="module")
def classifier(bert):
    return make_classifier(bert)


@pytest.fixture(scope="module")
def graphs(classifier, tmp_path_factory):
    """A folder with both graphs."""
    folder = tmp_path_factory.mktemp("graphs")
    onnx.export(classifier, folder, True)
    return folder


def under_onnx(classifier, folder, **more):
    """The same classifier, its network a graph."""
    info = classifier.info
    encoder, exact = (
        OnnxEncoder(
            folder / name, classifier.encoder.tokenizer, info.text, info.layer, info.pooling
        )
        for name in (FILE, EXACT)
    )
    made = {"exact": exact if (folder / EXACT).is_file() else None} | more
    return EncoderClassifier(info, encoder, classifier.head, classifier.reference, **made)


def random_tokens(count=40, longest=64):
    chance = np.random.default_rng(0)
    lengths = [1, longest, 1, 2, *chance.integers(1, longest + 1, count)]
    return Tokens([chance.integers(5, 150, length).tolist() for length in lengths], 0)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("layer", [1, 3])
def test_vectors_are_those_of_torch(bert, tmp_path, layer, pooling):
    made = make_classifier(bert, layer, pooling)
    onnx.export(made, tmp_path, False)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    graph = under_onnx(made, tmp_path)
    assert graph.exact is None
    tokens, told = random_tokens(), []
    found = graph.encoder.encode(
        tokens, [layer], [pooling], lambda done, total: told.append((done, total))
    )
    assert set(found) == {(layer, pooling)}
    vectors = found[layer, pooling]
    expected = made.encoder.encode(tokens, [layer], [pooling])[layer, pooling]
    assert vectors.shape == (len(tokens.ids), 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    # Texts differ, so that a wrong order could not pass.
    assert np.abs(expected[1:] - expected[:-1]).max(axis=1).min() > 1e-3
    assert told == sorted(told)
    assert told[-1] == (len(tokens.ids), len(tokens.ids))
    np.testing.assert_allclose(graph.score(TEXTS).values, made.score(TEXTS).values, atol=1e-4)


@pytest.mark.parametrize("long", ["windows_mean", "windows_max", "head_tail"])
def test_long_texts_are_read_as_by_torch(bert, tmp_path, long):
    made = make_classifier(bert, 2, "mean", TextLimits(max_tokens=16, long=long))
    onnx.export(made, tmp_path, False)
    texts = [" ".join(TEXTS[:5]), "", "proof", " ".join(TEXTS), *TEXTS]
    expected = made.score(texts)
    found = under_onnx(made, tmp_path).score(texts)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4)
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert np.ptp(expected.values) > 0.5
    assert under_onnx(made, tmp_path).score([]).values.shape == (0,)


def test_int8_is_close_and_fp32_lies_beside_it(classifier, graphs):
    assert {path.name for path in graphs.iterdir()} == {FILE, EXACT}
    assert (graphs / FILE).stat().st_size < (graphs / EXACT).stat().st_size
    tokens, key = random_tokens(), (3, "mean")
    expected = classifier.encoder.encode(tokens, [3], ["mean"])[key]
    graph = under_onnx(classifier, graphs)
    exact = graph.exact.encode(tokens, [3], ["mean"])[key]
    np.testing.assert_allclose(exact, expected, atol=1e-5)
    coarse = graph.encoder.encode(tokens, [3], ["mean"])[key]
    cosine = (coarse * expected).sum(axis=1)
    assert cosine.min() > 0.98
    assert np.abs(coarse - expected).max() > 1e-3


def test_scores_near_the_threshold_are_those_of_fp32(classifier, graphs):
    coarse = under_onnx(classifier, graphs)
    plain, exact = coarse.score(TEXTS).values, classifier.score(TEXTS).values
    distances = np.abs(plain - 2.5)
    margin = float(np.median(distances))
    near = distances < margin
    assert 5 < near.sum() < len(TEXTS) - 5
    coarse.check_near(2.5, margin)
    checked = coarse.score(TEXTS)
    np.testing.assert_allclose(checked.values[near], exact[near], atol=1e-5)
    assert np.abs(plain - exact)[near].max() > 1e-3
    assert checked.values[~near].tolist() == plain[~near].tolist()
    assert checked.tokens.tolist() == classifier.score(TEXTS).tokens.tolist()
    coarse.check_near(2.5, 0.0)
    assert coarse.score(TEXTS).values.tolist() == plain.tolist()


def test_texts_of_many_windows_are_checked_whole(bert, tmp_path):
    limits = TextLimits(max_tokens=16, long="windows_mean")
    made = make_classifier(bert, 2, "mean", limits)
    onnx.export(made, tmp_path, True)
    texts = [" ".join(TEXTS[start : start + 3]) for start in range(20)] + ["proof"] * 3
    coarse = under_onnx(made, tmp_path)
    plain, exact = coarse.score(texts).values, made.score(texts).values
    margin = float(np.median(np.abs(plain - 2.5)))
    near = np.abs(plain - 2.5) < margin
    coarse.check_near(2.5, margin)
    found = coarse.score(texts).values
    np.testing.assert_allclose(found[near], exact[near], atol=1e-5)
    assert found[~near].tolist() == plain[~near].tolist()
    assert 0 < near.sum() < len(texts)


def test_nothing_is_checked_without_an_exact_network(classifier, graphs):
    alone = under_onnx(classifier, graphs, exact=None)
    with pytest.raises(ModelError, match="no exact network"):
        alone.check_near(2.5, 0.1)
    with pytest.raises(ModelError, match="only its OnnxEncoder is here"):
        alone.save(graphs / "never")


def test_threads_are_those_asked_for_and_change_no_vector(classifier, graphs):
    graph = under_onnx(classifier, graphs)
    tokens = random_tokens()
    before = graph.score_tokens(tokens).values
    graph.use_threads(1)
    first = graph.encoder.session
    assert first.get_session_options().intra_op_num_threads == 1
    assert graph.exact.threads == 1
    graph.use_threads(1)
    assert graph.encoder.session is first
    graph.use_threads(2)
    assert graph.encoder.session.get_session_options().intra_op_num_threads == 2
    np.testing.assert_allclose(graph.score_tokens(tokens).values, before, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "poolings"), [([2], ["mean"]), ([3], ["cls"]), ([3, 3], ["mean"]), ([], [])]
)
def test_another_layer_or_pooling_is_refused(classifier, graphs, layers, poolings):
    with pytest.raises(ValueError, match="the graph has layer 3, mean pooling only"):
        under_onnx(classifier, graphs).encoder.encode(random_tokens(), layers, poolings)


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_a_damaged_graph_is_refused(classifier, tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ModelError, match=r"^encoder\.onnx: ") as caught:
        under_onnx(classifier, tmp_path).score(["proof"])
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"^encoder\.onnx: "):
        under_onnx(classifier, tmp_path / "none").score(["proof"])


def test_no_batch_is_larger_than_its_budget(classifier, graphs, monkeypatch):
    graph = under_onnx(classifier, graphs).encoder
    real, seen = graph.session, []

    class Session:
        def get_outputs(self):
            return real.get_outputs()

        def run(self, names, given):
            seen.append(given["ids"].shape)
            return [np.zeros((len(given["ids"]), 32), np.float32)]

    monkeypatch.setattr(graph, "_session", Session())
    chance = np.random.default_rng(0)
    lengths = [*chance.integers(1, 65, 2_000), *[64] * 2_000, *[1] * 5_000]
    tokens = Tokens([[7] * length for length in lengths], 0)
    graph.encode(tokens, [3], ["mean"])
    assert max(batch * longest for batch, longest in seen) <= TOKENS_PER_BATCH
    assert sum(batch for batch, _ in seen) == len(lengths)
    filled = sum(batch * longest for batch, longest in seen)
    assert filled < 1.1 * sum(lengths)
    long = Tokens([[7] * (TOKENS_PER_BATCH + 1), [7]], 0)
    seen.clear()
    graph.encode(long, [3], ["mean"])
    assert seen == [(1, TOKENS_PER_BATCH + 1), (1, 1)]


class TestExport:
    def test_the_network_stays_as_it_was(self, classifier, graphs, tmp_path):
        network = classifier.torch_encoder.model
        attention = network.config._attn_implementation
        assert attention != "eager"
        before = classifier.score(TEXTS).values
        filters = list(logging.getLogger().filters)
        onnx.export(classifier, tmp_path, True)
        assert network.config._attn_implementation == attention
        assert classifier.score(TEXTS).values.tolist() == before.tolist()
        assert logging.getLogger().filters == filters

    def test_operators_are_fused(self, classifier, graphs):
        import onnx as library

        kinds = {node.op_type for node in library.load(graphs / EXACT).graph.node}
        assert {"Attention", "SkipLayerNormalization"} <= kinds
        assert "Softmax" not in kinds
        coarse = {node.op_type for node in library.load(graphs / FILE).graph.node}
        assert {"QAttention", "MatMulInteger"} <= coarse

    def test_an_operator_that_onnx_lacks_is_told_of(self, bert, tmp_path):
        made = make_classifier(bert)
        layers = made.torch_encoder.model.encoder.layer
        layers[0].register_forward_hook(
            lambda module, inputs, output: output + torch.special.bessel_j0(output)
        )
        with pytest.raises(ModelError, match=r"^ONNX export: .*bessel_j0") as caught:
            onnx.export(made, tmp_path, True)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "plain.onnx").exists()
        assert made.torch_encoder.model.config._attn_implementation != "eager"

    def test_an_error_without_words_is_named(self, classifier, tmp_path, monkeypatch):
        def fail(classifier, target):
            target.write_bytes(b"half")
            raise NotImplementedError

        monkeypatch.setattr(onnx, "_trace", fail)
        with pytest.raises(ModelError, match=r"^ONNX export: NotImplementedError$"):
            onnx.export(classifier, tmp_path, False)
        assert list(tmp_path.iterdir()) == []

    def test_a_graph_with_other_vectors_is_refused(self, bert, tmp_path, monkeypatch):
        made, trace = make_classifier(bert), onnx._trace

        def other(classifier, target):
            weight = classifier.torch_encoder.model.encoder.layer[1].output.dense.weight
            kept = weight.detach().clone()
            weight.data *= 1.01
            trace(classifier, target)
            weight.data = kept

        monkeypatch.setattr(onnx, "_trace", other)
        with pytest.raises(ModelError, match=r"vectors differ from those of torch by 0\.\d+"):
            onnx.export(made, tmp_path, True)

    def test_a_graph_of_one_length_only_is_refused(self, classifier, tmp_path, monkeypatch):
        real = torch.onnx.export

        def fixed(*given, dynamic_axes, **more):
            real(*given, **more)

        monkeypatch.setattr(torch.onnx, "export", fixed)
        with pytest.raises(ModelError, match=r"^ONNX export: "):
            onnx.export(classifier, tmp_path, False)


@pytest.mark.parametrize("backend", ["onnx", "onnx-int8"])
def test_it_runs_without_torch_and_transformers(classifier, tmp_path, backend):
    classifier.save(tmp_path / "model")
    folder = export(tmp_path / "model", backend, tmp_path / "home")
    code = (
        "import sys, json; from tamis.scoring.load import LoadScorer;"
        "found = LoadScorer(2.5, 10.0)(sys.argv[1]);"
        "values = found.score(json.loads(sys.stdin.read())).values.tolist();"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'pandas', 'onnx', 'ray'};"
        "print(json.dumps([sorted(heavy & set(sys.modules)), values]))"
    )

    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
        timeout=60,
    )
    heavy, values = json.loads(run.stdout)
    assert heavy == []
    np.testing.assert_allclose(values, classifier.score(TEXTS).values, atol=1e-4)
    assert (load_backend(folder).exact is None) == (backend == "onnx")


@st.composite
def tokens_and_texts(draw):
    """Tokens of one sequence a text or several, and some of the texts in any order."""
    counts = draw(st.lists(st.integers(1, 4), max_size=12))
    windows = draw(st.booleans())
    counts = counts if windows else [1] * len(counts)
    document = np.repeat(np.arange(len(counts)), counts)
    ids = [[text, at] for text, count in enumerate(counts) for at in range(count)]
    whole = np.arange(len(counts)) + 100 if draw(st.booleans()) else np.zeros(0, dtype=np.int64)
    join = draw(st.sampled_from(["mean", "max"]))
    none = np.zeros(0, dtype=np.int64)
    tokens = Tokens(ids, 9, whole, document if windows else none, join)
    order = draw(st.permutations(range(len(counts))))
    size = draw(st.integers(0, len(counts)))
    return counts, tokens, np.array(order[:size], dtype=np.int64)


@given(tokens_and_texts())
def test_taken_texts_are_as_if_the_others_had_never_been(given):
    counts, tokens, texts = given
    taken = tokens.take(texts)
    assert taken.ids == [[text, at] for text in texts for at in range(counts[text])]
    assert taken.documents == len(texts)
    assert (
        taken.owner.tolist()
        == np.repeat(np.arange(len(texts)), [counts[t] for t in texts]).tolist()
    )
    assert taken.read.tolist() == [2 * counts[text] for text in texts]
    assert (taken.pad, taken.join) == (9, tokens.join)
    assert taken.whole.tolist() == (tokens.whole[texts].tolist() if len(tokens.whole) else [])
    assert bool(len(taken.document)) == bool(len(tokens.document) and len(texts))
    assert tokens.take(np.arange(tokens.documents)).same(tokens)
