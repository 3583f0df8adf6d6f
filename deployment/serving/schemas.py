"""Requests and answers of the API, as pydantic checks them and OpenAPI shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE = "Photosynthesis turns light into chemical energy: chlorophyll absorbs photons."
Id = Annotated[str, Field(min_length=1, max_length=256, examples=["doc-1"])]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DocumentIn(_Body):
    """A document to score."""

    text: Annotated[str, Field(description="The text, as plain text.", examples=[EXAMPLE])]
    id: Annotated[Id | None, Field(description="Named in the answer; made up if left out.")] = None


class ScoreRequest(_Body):
    """Documents to score."""

    documents: Annotated[tuple[DocumentIn, ...], Field(min_length=1, strict=False)]
    explain: Annotated[bool, Field(description="Say what each word adds to the score.")] = False


class LabelIn(_Body):
    """What a served document should have been given."""

    id: Id
    label: Annotated[
        Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(max_length=1_000)],
        Field(description="A score on the task's scale, or a class.", examples=[4.0]),
    ]


class FeedbackRequest(_Body):
    """Labels for documents that were served."""

    labels: Annotated[tuple[LabelIn, ...], Field(min_length=1, max_length=10_000, strict=False)]


class Instance(_Body):
    """A document, as Vertex AI sends it."""

    text: Annotated[str, Field(examples=[EXAMPLE])]
    id: Id | None = None


class PredictRequest(BaseModel):
    """Vertex AI's form of a request; what else it sends along is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    instances: Annotated[tuple[Instance, ...], Field(min_length=1, strict=False)]


class ModelName(BaseModel):
    """Which model answered."""

    task: Annotated[str, Field(examples=["my_quality"])]
    version: Annotated[str, Field(examples=["3"])]
    digest: Annotated[str, Field(description="sha256 over the registered model's files.")]


class WordOut(BaseModel):
    """A word and what it adds to the score."""

    text: str
    start: int
    end: int
    weight: float


class ExplanationOut(BaseModel):
    """Why a text scores as it does: ``base`` and the weights add up to the uncalibrated score."""

    method: str
    unit: str
    base: float
    read: Annotated[str, Field(description="What the model read; places are places in it.")]
    words: list[WordOut]


class DocumentOut(BaseModel):
    """A scored document."""

    id: str
    score: float
    decision: Literal["keep", "drop"]
    tokens: Annotated[int, Field(description="Of the whole text, by the model's tokenizer.")]
    explanation: ExplanationOut | None = None


class ScoreResponse(BaseModel):
    """Scores, in the order of the request."""

    request_id: str
    model: ModelName
    threshold: float
    documents: list[DocumentOut]


class PredictResponse(BaseModel):
    """Scores in Vertex AI's form."""

    predictions: list[DocumentOut]


class FeedbackResponse(BaseModel):
    """How many labels were taken in."""

    accepted: int


class LimitsOut(BaseModel):
    """What one request may ask for."""

    bytes: int
    documents: int
    characters: int
    explained: int


class ModelOut(ModelName):
    """What is served, and how."""

    backend: str
    threshold: float
    scale: tuple[float, float]
    auth: bool
    limits: LimitsOut


class ErrorBody(BaseModel):
    """What went wrong."""

    code: Annotated[str, Field(examples=["too_many_documents"])]
    message: str


class ErrorResponse(BaseModel):
    """An error, in one sentence."""

    error: ErrorBody
    request_id: str


_SAID = {
    400: "It is not HTTP or JSON as it should be.",
    401: "No key, or none that is in force.",
    408: "The body came too slowly.",
    413: "Larger than a limit allows.",
    415: "Not JSON, or compressed.",
    422: "The JSON is not what is asked for.",
    429: "This key asks too often; Retry-After says when to come back.",
    503: "Overloaded, or not ready; Retry-After says when to come back.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers of a route besides the good one, for OpenAPI."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": _SAID[status]} for status in statuses
    }
    for status in {429, 503} & set(statuses):
        found[status]["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}
        }
    return found
