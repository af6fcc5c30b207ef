"""Errors that only a server has, and what each error is called on the wire."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from coterie.runtime.errors import (
    CoterieError,
    DeadlineError,
    OverloadedError,
    RequestError,
    UnavailableError,
    UnknownTaskError,
)

_LOG = logging.getLogger("coterie.serving")


class GoneError(RequestError):
    """Whoever asked has gone; nobody will read this."""


class TooLargeError(RequestError):
    """A request has more bytes, inputs or questions than the server takes."""


class RefusedError(RequestError):
    """Clients may not ask for this."""


class UnauthenticatedError(RequestError):
    """Nobody may ask without a key, and the request has none that the server knows."""


@dataclass(frozen=True)
class Failure:
    """What a client is told of an error."""

    outcome: str
    """Its label in the metrics."""
    http: int
    grpc: str
    """Name of the ``grpc.StatusCode``."""


_KINDS: tuple[tuple[type[CoterieError], Failure], ...] = (
    (UnknownTaskError, Failure("not_found", 404, "NOT_FOUND")),
    (TooLargeError, Failure("too_large", 413, "RESOURCE_EXHAUSTED")),
    (RefusedError, Failure("refused", 403, "PERMISSION_DENIED")),
    (UnauthenticatedError, Failure("unauthenticated", 401, "UNAUTHENTICATED")),
    (GoneError, Failure("cancelled", 499, "CANCELLED")),
    (DeadlineError, Failure("late", 504, "DEADLINE_EXCEEDED")),
    (OverloadedError, Failure("overloaded", 429, "RESOURCE_EXHAUSTED")),
    (UnavailableError, Failure("unavailable", 503, "UNAVAILABLE")),
    (RequestError, Failure("invalid", 400, "INVALID_ARGUMENT")),
)
_INTERNAL = Failure("internal", 500, "INTERNAL")


def not_ready() -> UnavailableError:
    """Return the error of a question that comes before the models are loaded."""
    return UnavailableError("the server is not ready yet: try again in a second")


def failure_of(error: BaseException) -> Failure:
    """Return what an error is called."""
    return next((failure for kind, failure in _KINDS if isinstance(error, kind)), _INTERNAL)


def retry_seconds(error: BaseException) -> int | None:
    """Return after how many seconds a client should try again; ``None`` where that would not help."""
    if isinstance(error, OverloadedError):
        return math.ceil(error.retry_seconds)
    return 1 if isinstance(error, UnavailableError) else None


_LONGEST = 2000
"""Characters of a message: gRPC has room for 8 KiB of what goes beside an answer."""


def message_of(error: BaseException) -> str:
    """Return what a client is told; what is not the client's doing goes to the server's log instead."""
    if failure_of(error) is not _INTERNAL:
        message = str(error)  # it may quote what the client sent, whatever that was
        return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
    _LOG.error("a request failed inside the server", exc_info=error)
    return "the server failed on this request; its log says why"
