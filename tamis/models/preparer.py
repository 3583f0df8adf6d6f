"""The half of a classifier that needs no network: its tokenizer and limits, without torch.

Processes that only prepare texts for others stay small so: torch and transformers take 350 MB
and three seconds in each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tamis.errors import ModelError
from tamis.models.backbone import require_tokenizer
from tamis.models.classifier import read_info
from tamis.models.tokens import Tokens, tokenize
from tamis.task import TextLimits


class Preparer:
    """The tokenizer of a classifier and its limits.

    Args:
        tokenizer: Of the backbone.
        limits: How much of a text is read.
    """

    def __init__(self, tokenizer: Any, limits: TextLimits) -> None:
        self.tokenizer, self.limits = tokenizer, limits

    def prepare(self, texts: Sequence[str]) -> Tokens:
        """The tokens that ``Classifier.score_tokens`` wants."""
        return tokenize(self.tokenizer, texts, self.limits)


class _Encoded(dict[str, Any]):
    """Token ids, with the encodings that they come from."""

    encodings: Sequence[Any]


class _LightTokenizer:
    """A saved fast tokenizer, called as transformers' own but without transformers."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        try:
            self.backend_tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the Rust library raises nothing more precise
            raise ValueError(f"tokenizer.json: {error}") from None
        self.backend_tokenizer.no_padding()
        self.truncation_side = config.get("truncation_side", "right")
        pad = config.get("pad_token")
        name = pad.get("content") if isinstance(pad, dict) else pad
        self.pad_token_id = None if name is None else self.backend_tokenizer.token_to_id(name)

    def num_special_tokens_to_add(self) -> int:
        return int(self.backend_tokenizer.num_special_tokens_to_add(False))

    def __call__(
        self,
        texts: Sequence[str],
        *,
        truncation: bool = False,
        max_length: int = 0,
        return_special_tokens_mask: bool = False,
        **ignored: object,
    ) -> _Encoded:
        if truncation:
            self.backend_tokenizer.enable_truncation(max_length, direction=self.truncation_side)
        else:
            self.backend_tokenizer.no_truncation()
        encodings = self.backend_tokenizer.encode_batch(list(texts), add_special_tokens=True)
        encoded = _Encoded(input_ids=[encoding.ids for encoding in encodings])
        if return_special_tokens_mask:
            encoded["special_tokens_mask"] = [one.special_tokens_mask for one in encodings]
        encoded.encodings = encodings
        return encoded


def load_preparer(folder: Path | str) -> Preparer:
    """Load only the tokenizer and the limits of a saved classifier.

    Raises:
        ModelError: One of them is missing, damaged or of another format.
    """
    backbone = Path(folder) / "backbone"
    limits = read_info(folder).text
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        require_tokenizer(backbone)
        return Preparer(_LightTokenizer(backbone), limits)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"classifier {folder}: {str(error).splitlines()[0]}") from None
