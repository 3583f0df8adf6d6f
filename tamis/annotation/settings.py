"""How a language model annotates the documents of a task: the key ``annotate`` of a task file."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from tamis.config import Strict, wrong

Strategy = Literal["random", "uncertain", "drifted", "disagreeing"]
LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


def _address(url: str) -> str:
    """A base URL; one with a password in it would end up in every log."""
    parts = urlsplit(url)
    plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query
    if not plain or parts.username or parts.password or re.search(r"\s", url):
        raise ValueError("an address such as http://localhost:8000/v1, with no password in it")
    return url.rstrip("/")


Share = Annotated[float, Field(ge=0, le=1)]
Url = Annotated[str, AfterValidator(_address)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Prices(Strict):
    """What the endpoint asks, in USD for a million tokens."""

    input: Annotated[float, Field(ge=0)] = 0.0
    output: Annotated[float, Field(ge=0)] = 0.0

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Price of so many tokens, in USD."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


class Mix(Strict):
    """Shares of the strategies where several choose together; they need not add up to 1."""

    random: Share = 0.4
    uncertain: Share = 0.3
    drifted: Share = 0.15
    disagreeing: Share = 0.15

    @model_validator(mode="after")
    def _something(self) -> Mix:
        if not any(self.shares().values()):
            raise wrong("random", self.random, "at least one share above 0")
        return self

    def shares(self) -> dict[Strategy, float]:
        """The shares by strategy."""
        return {
            "random": self.random,
            "uncertain": self.uncertain,
            "drifted": self.drifted,
            "disagreeing": self.disagreeing,
        }


class AnnotationSettings(Strict):
    """The judge, what it reads, what it may cost, and which documents it is shown."""

    rubric: str | None = None
    """A file of ``configs/rubrics`` by name, or a path; by default the one named like the task."""
    endpoint: Url | None = None
    """Base URL of an OpenAI-compatible API, such as ``http://localhost:8000/v1``."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """What the endpoint calls the judge."""
    key_variable: Variable | None = "TAMIS_JUDGE_KEY"
    """Environment variable that holds the API key; null where the endpoint wants none."""
    secret: str | None = None
    """ZenML secret whose values become environment variables of steps on other machines."""
    structured: Literal["auto", "always", "never"] = "auto"
    """Whether the answer's JSON schema is sent; ``auto`` stops where a server refuses it."""
    limit_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the limit of an answer."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_answer_tokens: Annotated[int, Field(ge=16, le=32_768)] = 300
    max_characters: Annotated[int, Field(ge=100, le=1_000_000)] = 4_000
    """How much of a document the judge is shown."""
    concurrency: Annotated[int, Field(ge=1, le=1_024)] = 8
    """Requests under way at a time."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """For a request as a whole."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    backoff_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Longest first pause; it doubles with each attempt, and a random part of it is waited."""
    max_backoff_seconds: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """Longest pause, also where the server asks for a longer one."""
    give_up_after: Annotated[int, Field(ge=1)] = 10
    """Documents in a row that the endpoint fails on before the run stops."""
    prices: Prices = Prices()
    cost_cap: Annotated[float, Field(gt=0)] | None = None
    """Most USD of a run."""
    strategy: Strategy | Literal["mix"] = "random"
    mix: Mix = Mix()
    candidates: Annotated[int, Field(ge=10, le=1_000_000)] = 5_000
    """Documents, drawn at random from the input, among which the strategy chooses."""
    double_share: Share = 0.1
    """Share of the documents that are read a second time, under another wording."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Of all draws; the task's by default."""

    @model_validator(mode="after")
    def _cap_binds(self) -> AnnotationSettings:
        if self.cost_cap is not None and not (self.prices.input or self.prices.output):
            raise wrong("cost_cap", self.cost_cap, "a cap only with prices above 0")
        return self

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        host = urlsplit(self.endpoint or "").hostname or ""
        return LOOPBACK.fullmatch(host) is not None

    def shares(self) -> dict[Strategy, float]:
        """Share of each strategy that has one, adding up to 1."""
        found = self.mix.shares() if self.strategy == "mix" else {self.strategy: 1.0}
        total = sum(found.values())
        return {name: share / total for name, share in found.items() if share}
