"""Errors as Google's REST services answer them."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}


class ApiError(Exception):
    """A refused request.

    Args:
        code: HTTP status.
        message: What was wrong.
        status: The canonical name, where it is not the usual one of the code.
    """

    def __init__(self, code: int, message: str, status: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or _NAMES.get(code, "UNKNOWN")

    def answer(self) -> JSONResponse:
        """The body that Google's clients read."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "status": self.status,
        }
        return JSONResponse({"error": error}, status_code=self.code)


def refused_state(message: str) -> ApiError:
    """The request is right, but not for a resource in this state."""
    return ApiError(400, message, "FAILED_PRECONDITION")


def missing(name: str) -> ApiError:
    """There is no resource of this name."""
    return ApiError(404, f"Resource {name} is not found.")
