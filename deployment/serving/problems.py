"""Errors of the API: a status, a code for programs and one sentence for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from pydantic import ValidationError

Headers = list[tuple[bytes, bytes]]


class Problem(Exception):
    """A request that is not answered as asked.

    Args:
        status: Of HTTP.
        code: For programs.
        message: One sentence; it never repeats what was sent.
        headers: Further ones of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> bytes:
        """As it is sent."""
        error = {"code": self.code, "message": self.message}
        return json.dumps({"error": error, "request_id": request_id}).encode()


def busy(seconds: float, code: str = "overloaded") -> Problem:
    """503, with when to come back."""
    wait = max(1, math.ceil(seconds))
    message = f"The service is at its limit; try again in {wait} s."
    return Problem(503, code, message, {"Retry-After": str(wait)})


def too_slow(seconds: float) -> Problem:
    """408 for a body that does not come."""
    return Problem(408, "slow_body", f"The body has to arrive within {seconds:g} s.")


def too_large(what: str, most: int, code: str) -> Problem:
    """413 with the limit."""
    return Problem(413, code, f"{what}: at most {most:,} are allowed.")


def unfit(error: ValidationError) -> Problem:
    """422 (400 for what is no JSON) from what pydantic found first, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return Problem(400, "no_json", "The body is not valid JSON in UTF-8.")
    said = first["msg"][0].lower() + first["msg"][1:]
    return Problem(422, "unfit", f"{where or 'body'}: {said}.")


def as_problem(error: Exception) -> Problem:
    """What the client is told of an error: nothing of its inside."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TimeoutError):
        return busy(1, "timeout")
    said = "Something went wrong here; the request id finds it in the log."
    return Problem(500, "internal", said)
