import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.errors import ModelError
from tamis.models import encoder as module
from tamis.models.backbone import cut, transformer_layers
from tamis.models.encoder import Encoder, pad_batch, pool
from tamis.models.tokens import Tokens, batches, tokenize
from tamis.task import TextLimits
from tests.tiny import easy_texts

POOLINGS = ("mean", "cls", "max")
TEXTS = easy_texts(np.random.default_rng(0).random(30), seed=1)
TEXTS += ["", "proof", " ".join(TEXTS[:6]), "naïve 漢字 \x00 !", TEXTS[0]]


@given(st.lists(st.integers(1, 300), max_size=120), st.integers(1, 1_000))
@settings(max_examples=200, deadline=None)
def test_batches_keep_the_budget_and_take_every_text_once(lengths, budget):
    found = list(batches(np.array(lengths, dtype=np.int64), budget))
    rows = [row for batch in found for row in batch.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
    if lengths and max(lengths) * len(lengths) <= budget:
        assert len(found) == 1


def test_texts_are_cut_by_characters_then_by_tokens(encoder):
    limits = TextLimits(max_characters=100, max_tokens=16)
    tokens = tokenize(encoder.tokenizer, ["proof " * 50, "word1 " * 16, "", "z" * 999], limits)
    assert tokens.lengths.tolist() == [16, 16, 2, tokens.lengths[3]]
    alike = tokenize(encoder.tokenizer, [("proof " * 50)[:100]], limits)
    assert alike.ids[0] == tokens.ids[0]
    assert tokenize(encoder.tokenizer, [], limits).lengths.tolist() == []


def test_tokens_of_whole_texts_are_counted_or_extrapolated(encoder):
    limits = TextLimits(max_characters=100, max_tokens=16)
    texts = ["proof lemma word1", "", "   ", "proof " * 15, "proof " * 14 + " " * 900]
    texts += ["proof " * 150, "integral " * 40, "proof lemma " * 6 + "z" * 400]
    tokens = tokenize(encoder.tokenizer, texts, limits)
    assert tokens.whole.dtype == np.int64
    assert tokens.whole[:3].tolist() == [3, 1, 1]
    # Whole, though 16 with the special ones is more than may be read: 14 of 15 were.
    assert tokens.whole[3] == round(14 * 90 / 83)
    # Cut by characters only: what was read holds 100 characters.
    assert tokens.whole[4] == round(14 * 984 / 100)
    # Cut by tokens: 14 of 5 letters end at 83.
    assert tokens.whole[5] == round(14 * 900 / 83)
    # Cut by characters within a word, which gives 11 and a piece.
    assert tokens.whole[6] == round(12 * 360 / 100)
    # Cut by tokens within a word: the last piece that was read ends at 74.
    assert tokens.whole[7] == round(14 * 472 / 74)
    many = tokenize(encoder.tokenizer, texts * 3, limits)
    assert many.whole.tolist() == tokens.whole.tolist() * 3


def test_tokens_are_compared_by_all_they_hold(encoder):
    tokens = tokenize(encoder.tokenizer, ["proof", "lemma proof"], encoder.limits)
    assert tokens.same(tokenize(encoder.tokenizer, ["proof", "lemma proof"], encoder.limits))
    for other in ("proof lemma", "lemma proof "):
        assert tokens.same(tokenize(encoder.tokenizer, ["proof", other], encoder.limits)) == (
            other.strip() == "lemma proof"
        )
    assert not tokens.same(Tokens(tokens.ids, tokens.pad))


def test_padding_fills_up_to_the_longest(encoder):
    tokens = tokenize(encoder.tokenizer, ["proof", "proof theorem lemma"], encoder.limits)
    ids, mask = pad_batch(tokens, np.array([1, 0]), "cpu")
    assert ids.shape == mask.shape == (2, 5)
    assert mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert ids[1].tolist() == [*tokens.ids[0], 0, 0]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_does_not_look_at_padding(pooling):
    torch.manual_seed(0)
    hidden, mask = torch.randn(2, 6, 8), torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    spoilt = hidden.clone()
    spoilt[0, 4:] = 1e6
    assert torch.equal(pool(hidden, mask, pooling), pool(spoilt, mask, pooling))
    alone = pool(hidden[:1, :4], mask[:1, :4], pooling)
    torch.testing.assert_close(pool(hidden, mask, pooling)[:1], alone)
    spoilt[0, 0] += 5
    assert not torch.equal(pool(hidden, mask, pooling)[0], pool(spoilt, mask, pooling)[0])


def test_poolings_are_what_they_are_called():
    hidden = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "cls")[0].tolist() == [1, 0]
    assert pool(hidden, mask, "mean")[0].tolist() == pytest.approx([0.6, 0.8])
    assert pool(hidden, mask, "max")[0].tolist() == pytest.approx([0.6, 0.8])


def test_vectors_are_unit_vectors_of_every_layer_and_pooling(encoder):
    vectors, tokens = encoder.features(TEXTS, [1, 3], POOLINGS)
    assert set(vectors) == {(layer, pooling) for layer in (1, 3) for pooling in POOLINGS}
    for found in vectors.values():
        assert found.shape == (len(TEXTS), 32)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.abs(vectors[1, "mean"] - vectors[3, "mean"]).max() > 0.05
    assert np.abs(vectors[1, "mean"] - vectors[1, "max"]).max() > 0.05
    assert tokens.max() == 64
    assert tokens[TEXTS.index("")] == 2


def test_features_are_the_same_in_any_order_and_company(encoder, monkeypatch):
    together, tokens = encoder.features(TEXTS, [2, 3], POOLINGS)
    order = np.random.default_rng(3).permutation(len(TEXTS))
    turned, turned_tokens = encoder.features([TEXTS[row] for row in order], [2, 3], POOLINGS)
    assert tokens[order].tolist() == turned_tokens.tolist()
    monkeypatch.setitem(module.TOKENS_PER_BATCH, encoder.device, 1)
    alone, _ = encoder.features(TEXTS, [2, 3], POOLINGS)
    for key, vectors in together.items():
        np.testing.assert_allclose(turned[key], vectors[order], atol=1e-5)
        np.testing.assert_allclose(alone[key], vectors, atol=1e-5)
    first, last = together[3, "mean"][0], together[3, "mean"][-1]
    np.testing.assert_allclose(first, last, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_cut_network_gives_the_same_vectors_as_the_whole(encoder, layer):
    assert encoder.depth == 3
    whole, _ = encoder.features(TEXTS, [layer], POOLINGS)
    short = Encoder(cut(encoder.model, layer), encoder.tokenizer, encoder.limits)
    assert short.depth == layer
    assert short.model.config.num_hidden_layers == layer
    assert getattr(short.model, "pooler", None) is None
    again, _ = short.features(TEXTS, [layer], POOLINGS)
    for key, vectors in whole.items():
        np.testing.assert_allclose(again[key], vectors, atol=1e-6)


def test_progress_is_told_after_every_batch(encoder, monkeypatch):
    monkeypatch.setitem(module.TOKENS_PER_BATCH, encoder.device, 200)
    told = []
    encoder.features(TEXTS, [1], ["mean"], lambda *numbers: told.append(numbers))
    done = [number for number, _ in told]
    assert len(told) > 3
    assert done == sorted(set(done))
    assert told[-1] == (len(TEXTS), len(TEXTS))


def test_no_texts_give_no_vectors(encoder):
    vectors, tokens = encoder.features([], [1], ["mean"])
    assert vectors[1, "mean"].shape == (0, 32)
    assert len(tokens) == 0


def test_no_hook_stays_behind(encoder):
    encoder.features(TEXTS[:2], [1, 2], ["mean"])
    assert not any(layer._forward_hooks for layer in transformer_layers(encoder.model))


def test_a_network_without_layers_is_refused(encoder):
    encoder.model.config.num_hidden_layers = 7
    with pytest.raises(ModelError, match="BertModel: its transformer layers were not found"):
        transformer_layers(encoder.model)
