"""What the peers serve: the exported int8 network with its tokenizer and head, and nothing else.

Plain code on onnxruntime and tokenizers, as one writes it for an endpoint. It reads the folder
that ``tamis.scoring.backends.folder.export`` makes and imports nothing of the project.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from tokenizers import Tokenizer


class OnnxScorer:
    """Scores of texts by an exported classifier with a linear head.

    Args:
        folder: The export, for ``onnx-int8``.
        threads: Of onnxruntime for one call; 0 for one a core.
    """

    def __init__(self, folder: Path | str, threads: int) -> None:
        folder = Path(folder)
        facts = json.loads((folder / "classifier.json").read_text("utf-8"))
        head = load_file(folder / "head.safetensors")
        self.characters = facts["text"]["max_characters"]
        self.scale = facts["target"]["minimum"], facts["target"]["maximum"]
        self.threshold = float(facts["threshold"])
        self.weight, self.bias = head["weight"][:, 0], float(head["bias"][0])
        self.points = head.get("score_map_x"), head.get("score_map_y")
        self.tokenizer = Tokenizer.from_file(str(folder / "backbone" / "tokenizer.json"))
        self.tokenizer.enable_truncation(facts["text"]["max_tokens"])
        self.tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(folder / "encoder.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def score(self, texts: Sequence[str]) -> list[float]:
        """Calibrated scores of the texts, as one batch."""
        encodings = self.tokenizer.encode_batch([text[: self.characters] for text in texts])
        given = {
            "ids": np.array([each.ids for each in encodings], dtype=np.int64),
            "mask": np.array([each.attention_mask for each in encodings], dtype=np.int64),
        }
        vectors = self.session.run(None, given)[0]
        scores = np.clip(vectors @ self.weight + self.bias, *self.scale)
        if self.points[0] is not None:
            scores = np.interp(scores, *self.points)
        found: list[float] = scores.tolist()
        return found
