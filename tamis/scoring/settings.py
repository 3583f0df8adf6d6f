"""Settings of scoring: which backend runs the encoder, and what the cascade promises."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tamis.config import Strict

BackendName = Literal["torch", "torch-bf16", "torch-packed", "onnx", "onnx-int8"]
"""``torch`` in fp32 is the reference that all others are judged by."""

_Open = Annotated[float, Field(gt=0, lt=1)]


class BackendGate(Strict):
    """What a backend must show before it may stand in for the reference."""

    f1: Annotated[float, Field(ge=0, le=1)] = 0.97
    """Least F1 of its keep/drop decisions, with those of the reference as the truth."""
    bias: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Largest mean difference of its scores, as a share of the scale."""
    documents: Annotated[int, Field(ge=50)] = 1_000
    """Documents of the corpus on which both are judged."""
    min_kept: Annotated[int, Field(ge=1)] = 30
    """Fewest of these that the reference keeps; with fewer an F1 says nothing."""


class Promise(Strict):
    """What must hold of the documents that are kept, beside those the fp32 encoder would keep.

    Attributes:
        recall: Least share of the documents that the reference keeps which are kept.
        precision: Least share of the documents that are kept which the reference keeps.
        confidence: How sure both have to be, over the draw of the calibration documents.
    """

    recall: _Open = 0.95
    precision: _Open = 0.95
    confidence: _Open = 0.95


class CascadeSettings(Strict):
    """How a student is made, and what is promised of the documents that are kept."""

    documents: Annotated[int, Field(ge=500)] = 20_000
    """Documents of the corpus that the encoder scores for it."""
    calibration: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Share of them that chooses the band."""
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Share of them on which the cascade is measured at last."""
    promise: Promise = Promise()
    audit: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the documents the student decides about that the encoder looks at all the same."""


class ScoringSettings(Strict):
    """How documents are scored."""

    backend: Literal["auto"] | BackendName = "auto"
    """``auto`` takes the fastest of those that run here and pass the gate."""
    gate: BackendGate = BackendGate()
    cascade: CascadeSettings = CascadeSettings()
