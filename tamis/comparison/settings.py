"""What ``compare`` puts side by side, and which of it should be deployed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tamis.config import Items, Strict, wrong
from tamis.models.preparation import PreparationStep
from tamis.models.settings import (
    LAST,
    EncoderSettings,
    FrozenSettings,
    LinearSettings,
    ModelSettings,
    RecurrentSettings,
)
from tamis.scoring.settings import BackendName

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]


class CompareModel(Strict):
    """One model of a comparison."""

    settings: ModelSettings
    preparations: Annotated[Items[Name], Field(min_length=1)] = ("raw",)
    """Names of the preparations it is tried with."""
    backends: Items[BackendName] = ()
    """Besides as it was trained, the encoder is judged as these run it."""

    @model_validator(mode="after")
    def _encoders_have_backends(self) -> CompareModel:
        if self.backends and self.settings.family != "encoder":
            raise wrong("backends", list(self.backends), "none: only encoders have backends")
        if len(set(self.backends)) < len(self.backends):
            raise wrong("backends", list(self.backends), "each of them once")
        return self


class DeployPolicy(Strict):
    """Which of the models that are near the best should be deployed."""

    within: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of the best figure that may be lost."""
    documents_per_second: Annotated[float, Field(ge=0)] = 100.0
    """Least documents that it scores in a second of one core."""
    prefer: Literal["best", "fastest"] = "best"
    """Of those that are left."""


def _frozen(**settings: object) -> EncoderSettings:
    return EncoderSettings(frozen=FrozenSettings.model_validate(settings))


_EVERY = ("raw", "normalised", "stemmed", "lemmatised")


def _models() -> dict[str, CompareModel]:
    linear = LinearSettings(family="linear")
    found: dict[str, CompareModel] = {
        "tfidf": CompareModel(settings=linear, preparations=_EVERY),
        "tfidf_words": CompareModel(settings=linear.model_copy(update={"characters": None})),
        "glove_average": CompareModel(
            settings=RecurrentSettings(family="recurrent", network="average")
        ),
    }
    for vectors in ("glove", "word2vec", "fasttext", "none"):
        recurrent = RecurrentSettings.model_validate({"family": "recurrent", "vectors": vectors})
        found[f"{vectors}_lstm"] = CompareModel(settings=recurrent)
    found |= {
        "sentence_linear": CompareModel(settings=_frozen(layers=[LAST], heads=["ridge"])),
        "frozen": CompareModel(settings=EncoderSettings(), backends=("onnx-int8",)),
        "lora": CompareModel(settings=EncoderSettings(train="lora")),
        "finetuned": CompareModel(settings=EncoderSettings(train="full"), backends=("onnx-int8",)),
        "distilled": CompareModel(
            settings=EncoderSettings(train="distilled"), backends=("onnx-int8",)
        ),
    }
    return found


def _row(model: str, preparation: str) -> str:
    return model if preparation == "raw" else f"{model}_{preparation}"


def _preparations() -> dict[str, tuple[PreparationStep, ...]]:
    return {
        "raw": (),
        "normalised": ("normalise",),
        "stemmed": ("normalise", "stem"),
        "lemmatised": ("normalise", "lemmatise"),
    }


class CompareSettings(Strict):
    """Models, preparations and folds of a comparison."""

    folds: Annotated[int, Field(ge=2, le=20)] = 5
    preparations: dict[Name, Items[PreparationStep]] = Field(default_factory=_preparations)
    models: Annotated[dict[Name, CompareModel], Field(min_length=1)] = Field(
        default_factory=_models
    )
    policy: DeployPolicy = DeployPolicy()

    @model_validator(mode="after")
    def _preparations_are_there(self) -> CompareSettings:
        for name, model in self.models.items():
            for preparation in model.preparations:
                if preparation not in self.preparations:
                    allowed = f"one of {', '.join(self.preparations)}"
                    raise wrong(f"models.{name}.preparations", preparation, allowed)
        return self

    @model_validator(mode="after")
    def _names_are_told_apart(self) -> CompareSettings:
        seen = set[str]()
        for name, model in self.models.items():
            for preparation in model.preparations:
                row = _row(name, preparation)
                if row in seen:
                    allowed = f"names of which no two rows of the table are both called {row}"
                    raise wrong(f"models.{name}.preparations", preparation, allowed)
                seen.add(row)
        return self

    def variants(self, of_task: ModelSettings) -> tuple[Variant, ...]:
        """Every model with each of its preparations.

        Args:
            of_task: The task's own model; encoders that name no backbone take its.
        """

        def settings(model: CompareModel) -> ModelSettings:
            found, default = model.settings, EncoderSettings().backbone
            if isinstance(found, EncoderSettings) and isinstance(of_task, EncoderSettings):
                mine = of_task.backbone if found.backbone == default else found.backbone
                return found.model_copy(update={"backbone": mine})
            return found

        return tuple(
            Variant(
                name=_row(name, preparation),
                settings=settings(model),
                preparation=preparation,
                steps=self.preparations[preparation],
                backends=model.backends,
            )
            for name, model in self.models.items()
            for preparation in model.preparations
        )


class Variant(Strict):
    """One model with one preparation.

    Attributes:
        name: Of the row in the table.
        settings: Of the model.
        preparation: Name of the preparation.
        steps: What it does.
        backends: As which the encoder is judged besides.
    """

    name: str
    settings: ModelSettings
    preparation: str
    steps: Items[PreparationStep]
    backends: Items[BackendName]
