"""The facts of a trained classifier, kept beside its weights: one record for each family."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from tamis.config import Items, Strict
from tamis.errors import ModelError
from tamis.models.settings import Backbone, Formula, NgramRange, Pooling, WordVectors
from tamis.target import BinaryTarget, ClassesTarget, OrdinalTarget
from tamis.task import TextLimits

if TYPE_CHECKING:
    from tamis.corpus.split import Side

FILE = "classifier.json"


class TrainedOn(Strict):
    """The documents behind a classifier.

    Attributes:
        fingerprint: Of the whole labelled set.
        train: Ids of the documents fitted on.
        validation: Ids of the documents that chose layer, head and threshold.
        test: Ids of the documents never seen.
        window: Ids of those that came in with windows, whatever their side.
    """

    fingerprint: str
    train: Items[str]
    validation: Items[str]
    test: Items[str]
    window: Items[str] = ()

    def known(self) -> dict[str, Side]:
        """Side of each document by id."""
        sides: dict[Side, tuple[str, ...]] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return {name: side for side, ids in sides.items() for name in ids}


class Replayed(Strict):
    """What old and new documents weighed in training, where they did not weigh the same.

    Attributes:
        old: Old documents that were fitted on.
        new: New ones: of a window.
        old_weight: Of each old one; the weights have a mean of 1.
        new_weight: Of each new one.
    """

    old: int
    new: int
    old_weight: float
    new_weight: float

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.old} old documents of weight {self.old_weight:.3g}, "
            f"{self.new} new ones of {self.new_weight:.3g}"
        )


class ClassifierInfo(Strict):
    """What every classifier says of itself.

    Attributes:
        family: Which kind of model it is; the record of that family has more.
        head: What turns features into scores, in words.
        threshold: Score from which a document is kept.
        replay: What old and new documents weighed; None where each weighed the same.
    """

    format: Literal[1] = 1
    task: str
    task_fingerprint: str
    target: Annotated[OrdinalTarget | BinaryTarget | ClassesTarget, Field(discriminator="kind")]
    text: TextLimits
    family: Literal["linear", "recurrent", "encoder"]
    head: str
    threshold: float
    seed: int
    trained_on: TrainedOn
    replay: Replayed | None = None

    @property
    def variant(self) -> str:
        """Which of the family's variants it is, in a few words."""
        return self.head


class EncoderInfo(ClassifierInfo):
    """A transformer encoder, cut after a layer, with a head."""

    family: Literal["encoder"] = "encoder"
    train: Literal["frozen", "full", "lora", "distilled"]
    backbone: Backbone
    layer: int
    pooling: Pooling
    formula: Formula

    @property
    def variant(self) -> str:
        """How it was trained."""
        return self.train


class LinearInfo(ClassifierInfo):
    """A linear model on TF-IDF of word and character n-grams."""

    family: Literal["linear"] = "linear"
    words: NgramRange
    characters: NgramRange | None


class RecurrentInfo(ClassifierInfo):
    """Word vectors, and a network that reads them in order or averages them."""

    family: Literal["recurrent"] = "recurrent"
    vectors: WordVectors
    network: Literal["lstm", "average"]
    size: Annotated[int, Field(ge=1, le=1_024)]
    hidden: Annotated[int, Field(ge=1, le=1_024)]

    @property
    def variant(self) -> str:
        """The network and its word vectors."""
        return f"{self.network}, {self.vectors}"


Info = Annotated[EncoderInfo | LinearInfo | RecurrentInfo, Field(discriminator="family")]
_INFO: TypeAdapter[EncoderInfo | LinearInfo | RecurrentInfo] = TypeAdapter(Info)


def read_info(folder: Path | str) -> EncoderInfo | LinearInfo | RecurrentInfo:
    """What a saved classifier is, without loading its weights.

    Raises:
        ModelError: There is no such file, or it is of another format.
    """
    path = Path(folder) / FILE
    try:
        return _INFO.validate_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {str(error).splitlines()[0]}") from None


def as_dict(info: ClassifierInfo) -> dict[str, Any]:
    """The facts about a classifier that fit on a page (no lists of documents)."""
    facts = info.model_dump(mode="json", exclude={"trained_on"})
    facts["data_fingerprint"] = info.trained_on.fingerprint
    return facts
