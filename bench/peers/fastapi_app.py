"""A bare endpoint on FastAPI: validated input, scores and decisions out, no safety at all.

``PEER_MODEL`` is the export's folder. The endpoint is not ``async``, so it runs in FastAPI's thread
pool, each call with one thread of onnxruntime, and the pool has a thread more than there are
cores. Of the forms that were tried (``async``, more threads in a call, a process a core, the pool's
default of 40 threads) this one scores most documents a second at 16 connections.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI
from pydantic import BaseModel

from bench.peers.scorer import OnnxScorer


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    pool = anyio.to_thread.current_default_thread_limiter()
    pool.total_tokens = len(os.sched_getaffinity(0)) + 1
    yield


scorer = OnnxScorer(os.environ["PEER_MODEL"], threads=1)
app = FastAPI(lifespan=_lifespan)


class Document(BaseModel):
    """A document to score."""

    text: str


class Given(BaseModel):
    """Body of a request."""

    documents: list[Document]


class Result(BaseModel):
    """Score and decision of a document."""

    score: float
    keep: bool


class Results(BaseModel):
    """Body of an answer."""

    documents: list[Result]


@app.get("/health")
def health() -> dict[str, str]:
    """Whether it answers."""
    return {"status": "ok"}


@app.post("/score")
def score(given: Given) -> Results:
    """Scores and decisions of documents, in their order."""
    scores = scorer.score([document.text for document in given.documents])
    found = [Result(score=value, keep=value >= scorer.threshold) for value in scores]
    return Results(documents=found)
