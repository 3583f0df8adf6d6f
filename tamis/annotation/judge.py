"""A language model behind an OpenAI-compatible endpoint, asked for one score at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, ValidationError

from tamis.annotation.answers import Unusable, read_answer
from tamis.annotation.journal import Reading
from tamis.annotation.prompt import answer_schema, messages
from tamis.annotation.purse import Purse
from tamis.annotation.selection import Terms
from tamis.annotation.settings import AnnotationSettings

if TYPE_CHECKING:
    from openai import APIStatusError

_FATAL = (401, 403, 404)
_PASSING = (408, 409, 425, 429)
_TEMPLATE_TOKENS = 64
"""What a chat template may add to the messages."""
_DETAIL = 300


class EndpointFault(Exception):
    """The endpoint failed, not the document; asking again may help.

    Attributes:
        kind: Short: a status code, ``timeout``, ``connection``, ``bad_response``, ``rejected``.
        cost: The most that the attempt may have cost, in USD.
    """

    def __init__(self, kind: str, detail: str, cost: float = 0.0) -> None:
        super().__init__(f"{kind}: {detail[:_DETAIL]}")
        self.kind, self.cost = kind, cost


class EndpointRefused(Exception):
    """The endpoint will not answer any request: a wrong key, an unknown model, no credit."""


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0, le=10**9)
    completion_tokens: int = Field(ge=0, le=10**9)


class _Completion(BaseModel):
    """The part of a chat completion that is looked at."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


@dataclass(frozen=True)
class _Sent:
    """A request that was answered."""

    completion: _Completion
    tokens: tuple[int, int]
    cost: float


class Judge:
    """Asks for scores; an async context manager.

    Args:
        settings: Endpoint, limits, prices.
        terms: Rubric, target and model.
        key: API key; None sends none.
        purse: What is left to spend.
        answered: Whether this endpoint has answered before.
        sleep: Waits; tests count.

    Attributes:
        sent: Requests sent.
        faults: Failed requests by kind.
    """

    def __init__(
        self,
        settings: AnnotationSettings,
        terms: Terms,
        key: str | None,
        purse: Purse,
        answered: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings, self.terms, self.purse = settings, terms, purse
        self.sent = 0
        self.faults: Counter[str] = Counter()
        self._key, self._answered, self._sleep = key, answered, sleep
        self._structured = settings.structured != "never"
        self._proven = settings.structured == "always"
        self._not_before = 0.0

    async def __aenter__(self) -> Self:
        import openai

        from tamis.annotation.transport import BoundedTransport

        limit = openai.Timeout(self.settings.timeout_seconds)
        http = openai.DefaultAsyncHttpxClient(
            transport=BoundedTransport(),
            trust_env=not self.settings.loopback,  # no proxy stands between
            timeout=limit,
            follow_redirects=False,
        )
        self._client = openai.AsyncOpenAI(
            base_url=self.settings.endpoint,
            api_key=self._key or "none",
            max_retries=0,
            http_client=http,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def read(self, sha256: str, text: str, repeat: int) -> Reading:
        """Show a document to the judge, as often as the endpoint needs to answer.

        Args:
            sha256: Content hash of the document.
            text: The document.
            repeat: Which reading.

        Raises:
            EndpointFault: It failed every time.
            EndpointRefused: It will not answer any request.
            CapReached: The next attempt might cost too much.
        """
        import tenacity

        limits = self.settings
        asked = messages(self.terms.rubric, self.terms.target, text, repeat, limits.max_characters)
        facts: dict[str, Any] = {
            "sha256": sha256,
            "instructions": self.terms.instructions(repeat),
            "model": self.terms.model,
            "repeat": repeat,
        }
        lost, attempts = 0.0, 0
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(EndpointFault),
            stop=tenacity.stop_after_attempt(limits.attempts),
            wait=tenacity.wait_random_exponential(
                multiplier=limits.backoff_seconds, max=limits.max_backoff_seconds
            ),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                attempts += 1
                try:
                    sent = await self._ask(asked)
                except EndpointFault as fault:
                    self.faults[fault.kind] += 1
                    lost += fault.cost
                    raise
                except Unusable as flaw:  # the server would not take this document
                    return Reading(**facts, flaw=flaw.flaw, detail=flaw.detail, attempts=attempts)
                return self._reading(facts, sent, lost, attempts)
        raise AssertionError("unreachable")

    def _reading(self, facts: dict[str, Any], sent: _Sent, lost: float, attempts: int) -> Reading:
        facts |= {
            "input_tokens": sent.tokens[0],
            "output_tokens": sent.tokens[1],
            "cost": sent.cost + lost,
            "attempts": attempts,
        }
        choice = sent.completion.choices[0]
        said = choice.message
        try:
            answer = read_answer(
                said.content, said.refusal, choice.finish_reason, self.terms.target
            )
        except Unusable as flaw:
            return Reading(**facts, flaw=flaw.flaw, detail=self._hide(flaw.detail))
        return Reading(**facts, score=answer.score, reason=self._hide(answer.reason))

    async def _ask(self, asked: list[dict[str, str]]) -> _Sent:
        """One attempt; where the server may not know structured output, one without."""
        from openai import APIStatusError

        structured = self._structured
        try:
            sent = await self._send(asked, structured)
        except APIStatusError as error:
            if not structured or self._proven:
                raise self._rejected(error) from None
            try:
                sent = await self._send(asked, False)
            except APIStatusError as again:
                raise self._rejected(again) from None
            self._structured = False
        self._proven |= structured and self._structured
        self._answered = True
        return sent

    def _rejected(self, error: APIStatusError) -> Exception:
        """What a refused request means: about the document only if others were answered."""
        told = f"HTTP {error.status_code}: {self._hide(_message(error))}"
        if self._answered:
            return Unusable("rejected", told)
        return EndpointFault("rejected", told)

    async def _send(self, asked: list[dict[str, str]], structured: bool) -> _Sent:
        """One request, paid for.

        Raises:
            APIStatusError: The server refuses this request.
        """
        await self._pause()
        size = sum(len(message["content"].encode()) for message in asked)
        # A token is a byte at least, so no request of this size has more.
        tokens = (size + _TEMPLATE_TOKENS, self.settings.max_answer_tokens)
        most = self.settings.prices.cost(*tokens)
        await self.purse.reserve(most)
        self.sent += 1
        cost = most
        try:
            completion = await self._post(asked, structured)
            used = _usage(completion) or (size // 3, self.settings.max_answer_tokens)
            cost = self.settings.prices.cost(*used)
            return _Sent(completion, used, cost)
        except EndpointFault as fault:
            if fault.kind not in ("timeout", "connection", "bad_response", "too_long"):
                cost = 0.0
            fault.cost = cost
            raise
        except Exception:
            cost = 0.0  # refused: servers ask nothing for that
            raise
        finally:
            await self.purse.settle(most, cost)

    async def _post(self, asked: list[dict[str, str]], structured: bool) -> _Completion:
        import openai

        from tamis.annotation.transport import AnswerTooLong

        limits, more = self.settings, {}
        if structured:
            schema = {"name": "rating", "strict": True, "schema": answer_schema(self.terms.target)}
            more["response_format"] = {"type": "json_schema", "json_schema": schema}
        body = {limits.limit_key: limits.max_answer_tokens, **more}
        create: Any = self._client.chat.completions.with_raw_response.create
        try:
            async with asyncio.timeout(limits.timeout_seconds):  # a trickle counts, too
                raw = await create(
                    model=self.terms.model,
                    messages=asked,
                    temperature=limits.temperature,
                    extra_body=body,
                )
            return _Completion.model_validate_json(raw.http_response.content)
        except openai.APIStatusError as error:
            raise self._status(error) from None
        except (TimeoutError, openai.APITimeoutError):
            raise EndpointFault("timeout", f"over {limits.timeout_seconds:g} s") from None
        except AnswerTooLong as error:
            raise EndpointFault("too_long", str(error)) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            told = f"{type(cause).__name__}: {cause}" if cause else str(error)
            raise EndpointFault("connection", self._hide(told)) from None
        except (ValidationError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise EndpointFault("bad_response", self._hide(first)) from None

    def _status(self, error: APIStatusError) -> Exception:
        """What a status means for the run."""
        code, told = error.status_code, self._hide(_message(error))
        if code in _FATAL or code < 400 or error.code == "insufficient_quota":
            return EndpointRefused(f"HTTP {code}: {told[:_DETAIL]}")
        if code in _PASSING or code >= 500:
            wait = retry_after(error.response.headers.get("Retry-After"))
            until = min(wait, self.settings.max_backoff_seconds)
            self._not_before = max(self._not_before, time.monotonic() + until)
            return EndpointFault(str(code), told)
        return error

    async def _pause(self) -> None:
        """Wait as long as the server asked for, all requests together."""
        left = self._not_before - time.monotonic()
        if left > 0:  # not all at the same moment
            await self._sleep(left + random.uniform(0, min(left, 1.0) / 4))

    def _hide(self, told: str) -> str:
        """Text of the server, without the key that it may repeat."""
        return told.replace(self._key, "***") if self._key else told


def _message(error: APIStatusError) -> str:
    return " ".join(str(error.message).split())[:_DETAIL]


def _usage(completion: _Completion) -> tuple[int, int] | None:
    """Tokens as the server counted them; None where it does not, or not plausibly."""
    try:
        used = _Usage.model_validate(completion.usage)
    except ValidationError:
        return None
    return used.prompt_tokens, used.completion_tokens


def retry_after(value: str | None) -> float:
    """Seconds of a ``Retry-After`` header, which holds a number or a date; 0 where it is none."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds) if seconds == seconds else 0.0
