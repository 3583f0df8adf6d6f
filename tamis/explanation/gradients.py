"""Integrated gradients of an encoder's raw score (Sundararajan, Taly & Yan 2017, section 3).

Along the straight line from the embeddings of a baseline, in which every token of the text is the
padding one (or the mask where there is none), to those of the text, the gradient of the score is
integrated; what each token gets adds up to the difference of the two scores (completeness, their
proposition 1), but for the error of the integration, which is reported.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from tamis.explanation.raw import raw_of, unit_of
from tamis.explanation.reading import Reading
from tamis.explanation.words import Explanation, Spans, spread, word_places, words_of
from tamis.target import Floats

if TYPE_CHECKING:
    import torch

    from tamis.models.encoder_classifier import EncoderClassifier
    from tamis.models.heads import Head

FIRST_STEPS = 16
MOST_STEPS = 256
MOST_TOKENS = 262_144
"""Steps times tokens of the finest integration: about a minute on two cores."""
TOKENS_PER_BATCH = {"cpu": 1_024, "cuda": 32_768}
CLOSE = 0.02
"""The gap that is good enough, as a share of the difference of the scores ..."""
LEAST = 0.01
"""... or in points or log-odds, where they hardly differ."""


class Gradients:
    """Explains texts of one encoder; each thread needs one of its own.

    The network is a copy of the modules over the same weights, so that the hooks which read and
    replace activations do not meet those of a text that is scored at the same moment.

    Args:
        classifier: With the network as torch runs it.
    """

    def __init__(self, classifier: EncoderClassifier) -> None:
        from tamis.models.backbone import transformer_layers

        self.classifier = classifier
        encoder = classifier.torch_encoder
        self.device, self.tokenizer = encoder.device, encoder.tokenizer
        self.network = private_copy(encoder.model)
        self._hidden: Any = None
        layer = transformer_layers(self.network)[classifier.info.layer - 1]
        layer.register_forward_hook(self._keep)
        self._arrays = _on_device(classifier.head, self.device)

    def _keep(self, module: object, inputs: object, output: Any) -> None:
        self._hidden = output[0] if isinstance(output, tuple) else output

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Raw scores (b,) of token ids and mask (b, t), with their gradient."""
        from tamis.models.encoder import pool

        self.network(input_ids=ids, attention_mask=mask)
        vectors = pool(self._hidden, mask, self.classifier.info.pooling)
        outputs = _outputs(self.classifier.head.formula, self._arrays, vectors)
        return raw_of(self.classifier.info.target, outputs)

    def explain(self, reading: Reading) -> Explanation:
        """What each word of a text that was read adds to its score."""
        weights, score, baseline, steps = self._integrate(reading)
        places = word_places(reading.text)
        body = ~reading.special
        spans = Spans(reading.starts[body], reading.ends[body], weights[body])
        of_words, rest = spread(len(reading.text), places, spans)
        rest += float(weights[reading.special].sum())
        target, score_map = self.classifier.info.target, self.classifier.score_map
        return Explanation(
            text=reading.text,
            words=words_of(reading.text, places, of_words),
            rest=rest,
            score=score,
            baseline=baseline,
            calibrated=float(score_map(_on_scale(target, score))[0]),
            unit=unit_of(target),
            method="integrated gradients",
            completeness_gap=float(weights.sum()) - (score - baseline),
            detail=f"{steps} steps" if steps else "there is no token to explain",
        )

    def _integrate(self, reading: Reading) -> tuple[Floats, float, float, int]:
        """Weights of the tokens (t,), both scores, and the steps that were taken."""
        import torch
        from captum.attr import LayerIntegratedGradients

        ids = torch.from_numpy(reading.ids)[None].to(self.device)
        # Padding found words whose deletion counts for more than the mask did (docs).
        neutral = self.tokenizer.pad_token_id
        if neutral is None:
            neutral = self.tokenizer.mask_token_id or 0
        body = torch.from_numpy(~reading.special)[None].to(self.device)
        empty = torch.where(body, torch.full_like(ids, int(neutral)), ids)
        mask = torch.ones_like(ids)
        with torch.no_grad():
            score, baseline = (float(self.forward(each, mask)[0]) for each in (ids, empty))
        length = len(reading.ids)
        if not bool(body.any()):
            return np.zeros(length), score, baseline, 0
        method = LayerIntegratedGradients(self.forward, self.network.get_input_embeddings())
        kind = "cpu" if self.device == "cpu" else "cuda"
        batch = max(1, TOKENS_PER_BATCH[kind] // length)
        steps, wanted = FIRST_STEPS, max(CLOSE * abs(score - baseline), LEAST)
        while True:
            found = method.attribute(
                ids,
                baselines=empty,
                additional_forward_args=(mask,),
                n_steps=steps,
                method="gausslegendre",
                internal_batch_size=batch,
            )
            weights: Floats = found.detach()[0].double().sum(-1).cpu().numpy()
            gap = abs(float(weights.sum()) - (score - baseline))
            finer = 2 * steps
            if gap <= wanted or finer > MOST_STEPS or finer * length > MOST_TOKENS:
                return weights, score, baseline, steps
            steps = finer


def private_copy(model: torch.nn.Module) -> Any:
    """The same modules anew over the same weights, without hooks, and no gradient for weights."""
    from torch import nn

    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    # Hooks come and go while other threads score; they are not even looked at.
    memo |= {id(module._forward_hooks): OrderedDict() for module in model.modules()}
    return copy.deepcopy(model, memo).eval()


def _on_device(head: Head, device: str) -> dict[str, torch.Tensor]:
    import torch

    return {
        name: torch.from_numpy(np.ascontiguousarray(array)).to(device)
        for name, array in head.arrays.items()
    }


def _outputs(formula: str, a: dict[str, torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
    """``Head.outputs`` in torch: outputs (n, k) of vectors (n, d)."""
    import torch

    if formula == "kernel":
        squares = (vectors**2).sum(1)[:, None] + (a["landmarks"] ** 2).sum(1)[None]
        distance = (squares - 2 * vectors @ a["landmarks"].T).clamp(min=0)
        vectors = torch.exp(-a["gamma"][0] * distance)
    elif formula == "mlp":
        vectors = torch.relu(vectors @ a["hidden_weight"] + a["hidden_bias"])
    return vectors @ a["weight"] + a["bias"]


def _on_scale(target: Any, raw: float) -> Floats:
    """A raw score (1,) on the target's scale."""
    if target.kind == "ordinal":
        low, high = target.scale
        return np.array([min(max(raw, low), high)])
    return np.array([1 / (1 + np.exp(-np.clip(raw, -700, 700)))])
