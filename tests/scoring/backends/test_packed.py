import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from tamis.models.encoder import Encoder
from tamis.models.tokens import Tokens, tokenize
from tamis.scoring.backends import packing
from tamis.scoring.backends.packed import PackedEncoder
from tamis.scoring.backends.packed_network import PackedNetwork, pool
from tamis.scoring.backends.packing import first_fit, pack
from tamis.task import TextLimits
from tests.tiny import easy_texts, save_tiny_bert

POOLINGS = ("mean", "cls", "max")
LIMITS = TextLimits(max_tokens=64)
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture
def model(folder):
    return AutoModel.from_pretrained(folder).eval()


@pytest.fixture
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def random_ids(count=50, longest=64, seed=0):
    rng = np.random.default_rng(seed)
    lengths = [1, longest, 1, *rng.integers(1, longest + 1, count)]
    return [rng.integers(5, 150, length).tolist() for length in lengths]


def padded(model, ids, layer, pooling):
    """What the padded encoder makes of the same tokens."""
    encoder = Encoder(model, None, LIMITS)
    return encoder.encode(Tokens(ids, 0), [layer], [pooling])[layer, pooling]


def small(**more):
    """A network of this configuration, with weights drawn at random."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
        sizes |= {"num_hidden_layers": 2, "vocab_size": 160, "max_position_embeddings": 80}
        made = BertModel(BertConfig(**(sizes | {"initializer_range": 0.4} | more))).eval()
        for name, weight in made.named_parameters():  # no bias is zero, no norm is one
            if name.endswith("bias") or "LayerNorm" in name:
                weight.data += 0.3 * torch.randn_like(weight)
    return made


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_packed_vectors_are_those_of_the_padded_encoder(model, tokenizer, layer, pooling):
    ids = random_ids()
    packed = PackedEncoder(model, tokenizer, LIMITS, layer, device="cpu", budgets=(200,))
    found = packed.encode(Tokens(ids, 0), [layer], [pooling])
    assert set(found) == {(layer, pooling)}
    vectors = found[layer, pooling]
    assert vectors.shape == (len(ids), 32)
    assert vectors.dtype == np.float32
    expected = padded(model, ids, layer, pooling)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    # Texts differ, so that a wrong order could not pass.
    assert np.abs(expected[1:] - expected[:-1]).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_activations_norms_and_token_types_are_those_of_the_network(hidden_act):
    made = small(hidden_act=hidden_act, layer_norm_eps=0.05)
    ids = random_ids(longest=40)
    vectors = PackedNetwork(made).encode(ids)
    np.testing.assert_allclose(vectors, padded(made, ids, 2, "mean"), atol=1e-5)
    other = small(hidden_act="relu" if hidden_act == "gelu" else "gelu", layer_norm_eps=0.05)
    if hidden_act in ("gelu", "relu"):
        assert np.abs(vectors - padded(other, ids, 2, "mean")).max() > 1e-3


def test_texts_are_read_as_by_the_padded_encoder(model, tokenizer):
    texts = [*easy_texts(np.random.default_rng(0).random(12)), "", "naïve 漢字 \x00", "proof " * 99]
    packed = PackedEncoder(model, tokenizer, LIMITS, device="cpu")
    same = tokenize(packed.tokenizer, texts, packed.limits)
    vectors = packed.encode(same, [3], ["mean"])
    expected, tokens = Encoder(model, tokenizer, LIMITS).features(texts, [3], ["mean"])
    np.testing.assert_allclose(vectors[3, "mean"], expected[3, "mean"], atol=1e-5)
    assert same.read.tolist() == tokens.tolist()
    assert same.lengths.tolist() == tokens.tolist()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_filler_changes_nothing(model, monkeypatch, pooling):
    ids = random_ids(30)
    plain = PackedNetwork(model, budgets=(150,)).encode(ids, pooling)
    filled = PackedNetwork(model, budgets=(150, 333), fill=True)
    seen = []
    run = filled._run
    monkeypatch.setattr(filled, "_run", lambda numbers, p: seen.append(p) or run(numbers, p))
    vectors = filled.encode(ids, pooling)
    np.testing.assert_allclose(vectors, plain, atol=1e-6)
    assert {p.tokens for p in seen} <= {150, 333}
    assert any(len(p.sizes) > p.texts for p in seen)
    monkeypatch.setattr(packing, "FILLER", 77)
    assert np.array_equal(filled.encode(ids, pooling), vectors)


def test_room_for_more_texts_changes_nothing(model):
    ids = random_ids(5)
    for texts in (0, 40):
        packed = pack(ids, 400, 64, texts)
        starts = packed.numbers[2 * packed.tokens :]
        assert len(starts) == max(texts, len(packed.sizes)) + 1
        assert starts[: len(packed.sizes) + 1].tolist() == [0, *np.cumsum(packed.sizes)]
        assert set(starts[len(packed.sizes) :].tolist()) == {400}
        assert max(packed.sizes) <= 64
        assert packed.sizes[: packed.texts] == [len(text) for text in ids]
        positions = packed.numbers[packed.tokens : 2 * packed.tokens].tolist()
        assert positions == [p for size in packed.sizes for p in range(size)]


def test_shapes_are_few_where_graphs_are_wanted(model):
    network = PackedNetwork(model, budgets=(256, 1_024), longest=64)
    network.fill = network.graphs = True  # as on a GPU, without one: only the packing is looked at
    shapes = set()
    for seed in range(40):
        ids = random_ids(np.random.default_rng(seed).integers(0, 12), seed=seed)
        packed = network._pack(ids)
        shapes.add((packed.tokens, len(packed.numbers)))
        assert len(packed.numbers) - 2 * packed.tokens - 1 >= len(packed.sizes)
    assert {tokens for tokens, _ in shapes} == {256, 1_024}
    assert len(shapes) <= 5


@given(st.lists(st.integers(0, 300), max_size=150), st.integers(1, 900))
@settings(max_examples=200, deadline=None)
def test_batches_keep_the_budget_and_take_every_text_once(lengths, budget):
    sizes = np.array(lengths, dtype=np.int64)
    found = [rows.tolist() for rows in first_fit(sizes, budget)]
    taken = sorted(row for rows in found for row in rows)
    assert taken == [row for row, length in enumerate(lengths) if length]
    for rows in found:
        held = [lengths[row] for row in rows]
        assert len(rows) == 1 or sum(held) <= budget
        assert held == sorted(held, reverse=True)


def test_batches_are_nearly_full():
    lengths = np.minimum(np.random.default_rng(0).lognormal(6, 0.6, 4_000), 512).astype(np.int64)
    found = [lengths[rows].sum() for rows in first_fit(lengths, 16_384)]
    assert len(found) <= -(-lengths.sum() // 16_384) + 1
    assert np.median(found) > 0.99 * 16_384


def test_bf16_is_close(model):
    ids = random_ids()
    exact = PackedNetwork(model).encode(ids)
    rough = PackedNetwork(model, dtype=torch.bfloat16).encode(ids)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rough, axis=1), 1, atol=1e-5)
    assert (exact * rough).sum(axis=1).min() > 0.99
    assert np.abs(exact - rough).max() > 1e-6  # it is another arithmetic, not the same


def test_a_text_does_not_depend_on_its_company(model):
    ids = random_ids(40)
    network = PackedNetwork(model, budgets=(256,))
    together = network.encode(ids)
    order = np.random.default_rng(5).permutation(len(ids))
    turned = network.encode([ids[row] for row in order])
    np.testing.assert_allclose(turned, together[order], atol=1e-6)
    alone = np.concatenate([network.encode([text]) for text in ids])
    np.testing.assert_allclose(alone, together, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_nothing_to_read_gives_zeros_or_nothing(model, pooling):
    network = PackedNetwork(model)
    assert network.encode([], pooling).shape == (0, 32)
    vectors = network.encode([[], [5, 6], []], pooling)
    assert vectors[[0, 2]].tolist() == np.zeros((2, 32)).tolist()
    np.testing.assert_array_equal(vectors[1:2], network.encode([[5, 6]], pooling))


def test_progress_is_told_after_every_batch(model, tokenizer):
    told = []
    ids = [[], *random_ids(30)]
    packed = PackedEncoder(model, tokenizer, LIMITS, device="cpu", budgets=(128,))
    packed.encode(Tokens(ids, 0), [3], ["mean"], lambda *n: told.append(n))
    done = [number for number, _ in told]
    assert len(told) > 3
    assert done == sorted(set(done))
    assert told[-1] == (len(ids), len(ids))


@pytest.mark.parametrize("join", ["mean", "max"])
def test_sequences_of_a_text_are_joined_as_by_the_padded_encoder(model, tokenizer, join):
    ids = random_ids(22)
    document = np.repeat(np.arange(10), [1, 4, 2, 1, 3, 5, 1, 2, 3, 3])
    tokens = Tokens(ids, 0, document=document, join=join)
    told = []
    packed = PackedEncoder(model, tokenizer, LIMITS, device="cpu", budgets=(128,))
    found = packed.encode(tokens, [3], ["cls"], lambda *n: told.append(n))[3, "cls"]
    expected = Encoder(model, tokenizer, LIMITS).encode(tokens, [3], ["cls"])[3, "cls"]
    assert found.shape == (10, 32)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert told[-1] == (10, 10)


def test_poolings_are_what_they_are_called():
    hidden = torch.tensor([[3.0, 0.0], [0.0, 4.0], [-1.0, 0.0]], dtype=torch.bfloat16)
    starts = torch.tensor([0, 2, 3], dtype=torch.int32)
    assert pool(hidden, starts, "cls").tolist() == [[1, 0], [-1, 0]]
    assert pool(hidden, starts, "mean").flatten().tolist() == pytest.approx([0.6, 0.8, -1, 0])
    assert pool(hidden, starts, "max").flatten().tolist() == pytest.approx([0.6, 0.8, -1, 0])


def swap_linear(made):
    made.encoder.layer[0].output.dense = torch.nn.Bilinear(4, 4, 4)
    return made


REFUSED = {
    "RobertaModel": lambda: RobertaModel(
        RobertaConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
    ),
    "DistilBertModel": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    ),
    "activation is silu": lambda: small(hidden_act="silu"),
    "decoder": lambda: small(is_decoder=True),
    "positions are relative_key": lambda: small(position_embedding_type="relative_key"),
    "output.dense is a Bilinear": lambda: swap_linear(small()),
    "is a Linear": lambda: torch.nn.Linear(2, 2),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_other_architectures_are_refused(reason):
    with pytest.raises(ValueError, match=f"^this network cannot be run packed: .*{reason}"):
        PackedNetwork(REFUSED[reason]())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 0}, "layers: given 0; allowed: 1 to 3"),
        ({"layers": 4}, "layers: given 4; allowed: 1 to 3"),
        ({"longest": 129}, "longest: given 129; allowed: 1 to 128"),
        ({"budgets": (0, 4)}, "budgets: given .*; allowed: positive"),
    ],
)
def test_numbers_out_of_range_are_refused(model, given, message):
    with pytest.raises(ValueError, match=message):
        PackedNetwork(model, **given)


def test_tokens_out_of_range_are_refused(model):
    network = PackedNetwork(model, longest=16)
    with pytest.raises(ValueError, match="a text of 17 tokens; allowed: 16"):
        network.encode([[5] * 16, [5] * 17])
    for bad in (-1, model.config.vocab_size):
        with pytest.raises(ValueError, match="a token id out of range"):
            network.encode([[5, bad]])


@pytest.mark.parametrize(
    ("layers", "poolings"), [([3], ["mean"]), ([1, 2], ["mean"]), ([2], ["mean", "cls"]), ([2], [])]
)
def test_one_layer_and_one_pooling_are_read(model, tokenizer, layers, poolings):
    packed = PackedEncoder(model, tokenizer, LIMITS, 2, device="cpu")
    assert packed.depth == 2
    with pytest.raises(ValueError, match="allowed: layer 2 and one pooling"):
        packed.encode(Tokens([[5]], 0), layers, poolings)


def test_compiled_code_that_fails_is_done_without_and_said(model, monkeypatch):
    def refuse(*given, **more):
        def fail(*arguments):
            raise RuntimeError("no compiler here\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", refuse)
    network = PackedNetwork(model, compiled=True)
    ids = random_ids(5)
    plain = PackedNetwork(model).encode(ids)
    np.testing.assert_allclose(network.encode(ids), plain, atol=1e-6)
    assert network.notes == ["torch.compile: RuntimeError: no compiler here"]


def test_graphs_without_a_gpu_are_done_without_and_said(model):
    network = PackedNetwork(model, graphs=True)
    assert not network.graphs
    assert network.notes == ["CUDA graphs: they need a GPU"]
    ids = random_ids(5)
    np.testing.assert_array_equal(network.encode(ids), PackedNetwork(model).encode(ids))


def test_the_network_is_left_as_it_was(model):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    PackedNetwork(model, layers=1, dtype=torch.bfloat16).encode(random_ids(5))
    assert len(model.encoder.layer) == 3
    after = model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert after.keys() == before.keys()


def test_the_core_needs_torch_and_numpy_only():
    code = (
        "import sys; import tamis.scoring.backends.packed_network;"
        "print(sorted({'transformers', 'pydantic', 'pyarrow', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_gpu_benchmark_runs_anywhere(tmp_path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, "bench/gpu.py", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert found["quick"] is True
    assert found["ran_on"]["device"]
    assert found["ceiling_tflops"] > 0
    assert "4 * layers * s**2 * d" in found["flop_formula"]
    rows = found["rows"]
    measured = [row for row in rows if "documents_per_second" in row]
    assert {(row["model"], row["lengths"]) for row in measured} == {
        (model, mix) for model in ("MiniLM-L6", "BERT-base") for mix in ("mixed", "longest")
    }
    for row in measured:
        rate = row["tokens"] / row["documents"] * row["documents_per_second"]
        assert row["tokens_per_second"] == pytest.approx(rate, rel=0.01)
        assert row["share_of_ceiling"] == pytest.approx(
            row["tflops"] / found["ceiling_tflops"], rel=0.05, abs=1e-3
        )
        assert row["cosine_min"] > 0.98
        assert 0 <= row["keep_f1"] <= 1
    sides = {row["side"] for row in measured}
    assert {"packed bf16", "padded autocast, sorted, batch 256"} <= sides
    assert all(row.get("skipped") for row in rows if row not in measured)
    assert any("graphs" in row["side"] for row in rows)
    assert {target["target"] for target in found["targets"]} == {0.5, 3.0}
    assert "documents/s" in done.stdout
