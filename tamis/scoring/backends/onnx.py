"""The encoder under onnxruntime, in fp32 or with 8-bit weights."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import ModelError
from tamis.models.encoder import Progress, padded
from tamis.models.settings import Pooling
from tamis.models.tokens import Tokens, batches, combine, counter

if TYPE_CHECKING:
    from tamis.models.encoder_classifier import EncoderClassifier
    from tamis.task import TextLimits

FILE = "encoder.onnx"
EXACT = "exact.onnx"
TOKENS_PER_BATCH = 2_048
_OPSET = 17
_SAME = 1e-4
"""Largest difference of the graph's vectors from torch's; both are L2-normalised and in fp32."""


def export(classifier: EncoderClassifier, folder: Path, int8: bool) -> None:
    """Write a classifier's network and pooling as one ONNX graph, in fp32.

    Attention, layer norms and GELU become onnxruntime's fused operators where it knows the
    architecture. With ``int8`` there is a second graph, in which the weights of matrix products
    are quantised channel by channel to seven bits, which AVX2 adds up without overflow;
    activations are quantised as they come.

    Args:
        classifier: With a network of torch.
        folder: Where ``encoder.onnx`` goes, and ``exact.onnx`` if that is quantised.
        int8: Whether to quantise.

    Raises:
        ModelError: The network cannot be exported, or the graph gives other vectors than torch.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    plain = folder / "plain.onnx"
    fused = folder / (EXACT if int8 else FILE)
    try:
        _trace(classifier, plain)
        config = classifier.torch_encoder.model.config
        optimised = optimize_model(
            str(plain),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
        )
        optimised.save_model_to_file(str(fused))
        _compare(classifier, fused)
        if int8:
            logging.getLogger().addFilter(_quiet)  # it advises on convolutions, unasked
            quantize_dynamic(
                fused,
                folder / FILE,
                op_types_to_quantize=["MatMul", "Attention"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                extra_options={"DefaultTensorType": 1},  # float, for operators of Microsoft's own
            )
    except Exception as error:  # each library raises its own
        said = str(error).strip() or type(error).__name__
        raise ModelError(f"ONNX export: {said.splitlines()[0]}") from error
    finally:
        logging.getLogger().removeFilter(_quiet)
        plain.unlink(missing_ok=True)


def _quiet(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()


def _trace(classifier: EncoderClassifier, target: Path) -> None:
    """Write the graph as torch sees it."""
    import torch

    from tamis.models.encoder import pool

    encoder, info = classifier.torch_encoder, classifier.info
    network = encoder.model

    class Vectors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return pool(encoder.hidden(ids, mask, [info.layer])[info.layer], mask, info.pooling)

    ids = torch.randint(0, network.config.vocab_size, (2, 8), device=network.device)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    axes = {"ids": {0: "batch", 1: "tokens"}, "mask": {0: "batch", 1: "tokens"}}
    attention = network.config._attn_implementation
    # Written out, so that onnxruntime finds the pattern that it can fuse.
    network.set_attn_implementation("eager")
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of the tracer, about what it takes for constants
            torch.onnx.export(
                Vectors().eval(),
                (ids, mask),
                str(target),
                input_names=["ids", "mask"],
                output_names=["vectors"],
                dynamic_axes={**axes, "vectors": {0: "batch"}},
                opset_version=_OPSET,
                dynamo=False,  # whose graphs onnxruntime's fusions do not recognise
            )
    finally:
        network.set_attn_implementation(attention)


def _compare(classifier: EncoderClassifier, file: Path) -> None:
    """Raise ValueError if the graph's vectors of sequences of other shapes are not torch's."""
    encoder, info = classifier.torch_encoder, classifier.info
    chance = np.random.default_rng(0)
    vocabulary = encoder.model.config.vocab_size
    ids = [
        chance.integers(0, vocabulary, length).tolist()
        for length in (1, 5, min(info.text.max_tokens, 64))
    ]
    tokens = Tokens(ids, encoder.tokenizer.pad_token_id or 0)
    key = info.layer, info.pooling
    graph = OnnxEncoder(file, encoder.tokenizer, info.text, *key)
    difference = np.abs(
        graph.encode(tokens, [info.layer], [info.pooling])[key]
        - encoder.encode(tokens, [info.layer], [info.pooling])[key]
    ).max()
    if not difference <= _SAME:
        raise ValueError(f"its vectors differ from those of torch by {difference:.2g}")


class OnnxEncoder:
    """A network under onnxruntime, and its tokenizer; ``Encoder`` to those who read one layer.

    Args:
        file: What ``export`` wrote.
        tokenizer: Of the network.
        limits: How much of a text is read.
        layer: That the graph ends with.
        pooling: That is part of it.
    """

    device = "cpu"

    def __init__(
        self, file: Path, tokenizer: Any, limits: TextLimits, layer: int, pooling: Pooling
    ) -> None:
        self.file, self.tokenizer, self.limits = file, tokenizer, limits
        self.key = (layer, pooling)
        self.threads = 0
        self._session: Any = None

    def use_threads(self, threads: int) -> None:
        """Compute with so many threads; 0 for one a core."""
        if threads != self.threads:
            self.threads, self._session = threads, None

    @property
    def session(self) -> Any:
        """The loaded graph.

        Raises:
            ModelError: onnxruntime cannot load it.
        """
        if self._session is None:
            # It would write a device id below the home folder, and send it.
            os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            # Threads that wait by spinning burn the time of other workers.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.log_severity_level = 3
            try:
                self._session = onnxruntime.InferenceSession(
                    str(self.file), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's own, without a common base
                raise ModelError(f"{self.file.name}: {str(error).splitlines()[0]}") from None
        return self._session

    def encode(
        self,
        tokens: Tokens,
        layers: Sequence[int],
        poolings: Sequence[Pooling],
        progress: Progress | None = None,
    ) -> dict[tuple[int, Pooling], NDArray[np.float32]]:
        """As of ``Encoder.encode``, for the layer and the pooling of the graph alone.

        Raises:
            ValueError: Others were asked for.
        """
        if (list(layers), list(poolings)) != ([self.key[0]], [self.key[1]]):
            raise ValueError(f"the graph has layer {self.key[0]}, {self.key[1]} pooling only")
        size = int(self.session.get_outputs()[0].shape[1])
        vectors = np.zeros((len(tokens.ids), size), dtype=np.float32)
        count = counter(tokens)
        for rows in batches(tokens.lengths, TOKENS_PER_BATCH):
            ids, mask = padded(tokens, rows)
            vectors[rows] = self.session.run(None, {"ids": ids, "mask": mask})[0]
            if progress is not None:
                progress(count(rows), tokens.documents)
        return {self.key: combine(vectors, tokens)}
