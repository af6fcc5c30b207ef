"""What ASGI leaves to its applications: bodies of a bounded size, answers, and clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from coterie.runtime.serving._failures import (
    GoneError,
    TooLargeError,
    UnauthenticatedError,
    failure_of,
    message_of,
    retry_seconds,
)
from coterie.runtime.serving.access._callers import ANYBODY, Caller
from coterie.runtime.serving.http._receiving import Receiving

T = TypeVar("T")
Headers = Mapping[bytes, bytes]
"""By their names in lower case."""

CALLER = "coterie.caller"
"""Where a scope holds who asks."""
JSON = b"application/json"
_PATIENCE = 0.1
"""Seconds for which a client waits before it is looked whether it still does."""


def caller_of(scope: Scope) -> Caller:
    """Return who asks, as the front has found out."""
    caller: Caller = scope.get(CALLER, ANYBODY)
    return caller


def too_large(limit: int) -> TooLargeError:
    """Return the error of a body that is larger than so many bytes."""
    return TooLargeError(
        f"the body is larger than the {limit} bytes that this server takes: split the request"
    )


def declared_length(headers: Headers) -> int:
    """Return the length that a request says its body has; 0 where it says none."""
    value = headers.get(b"content-length", b"")
    # More digits than any length has need no reading.
    return (int(value) if len(value) < 20 else 10**19) if value.isdigit() else 0


async def read_body(headers: Headers, receive: Receive, limit: int, receiving: Receiving) -> bytes:
    """Return a request's body, which is read no further than ``limit`` bytes.

    Raises:
        TooLargeError: If it is larger.
        OverloadedError: If it is one of many that are being received.
        GoneError: If the client goes away in the middle of it.
    """
    if declared_length(headers) > limit:
        raise too_large(limit)
    part, more = await _part(receive)
    if len(part) > limit:
        raise too_large(limit)
    if not more:
        return part
    parts, length = [part], len(part)
    with receiving.body() as body:
        body.add(length)
        while more:
            part, more = await _part(receive)
            length += len(part)
            if length > limit:
                raise too_large(limit)
            body.add(len(part))
            parts.append(part)
    return b"".join(parts)


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """Return the next part of a body, and whether there is more."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise GoneError("the client went away before its question was there")
    return message.get("body", b""), message.get("more_body", False)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await what is done for a client whose body is read; give it up when the client is gone.

    Raises:
        GoneError: If it is gone.
    """
    loop, asking = asyncio.get_running_loop(), asyncio.current_task()
    watcher: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if asking is not None:
            asking.cancel()

    def look() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch())

    # Most have their answer long before; a task for each of them would cost a tenth of all that it takes.
    patience = loop.call_later(_PATIENCE, look)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone or asking is None or asking.uncancel():
            raise
        raise GoneError("the client went away before its answer was there") from None
    finally:
        patience.cancel()
        if watcher is not None:
            watcher.cancel()


async def respond(
    send: Send, content: bytes, kind: bytes = JSON, *, status: int = 200, more: Iterable[Any] = ()
) -> None:
    """Send an answer; ``more`` are further headers."""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(content)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def respond_error(send: Send, error: Exception) -> None:
    """Send what a client is told of an error; it never holds a path or a stack trace."""
    status, headers = error_headers(error)
    body = json.dumps({"error": message_of(error)}).encode()
    await respond(
        send, body, status=status, more=[(name.lower().encode(), value.encode()) for name, value in headers]
    )


def error_headers(error: Exception) -> tuple[int, list[tuple[str, str]]]:
    """Return the status of an error's answer, and what headers go with it."""
    headers = []
    seconds = retry_seconds(error)
    if seconds is not None:
        headers.append(("Retry-After", str(seconds)))
    if isinstance(error, UnauthenticatedError):
        headers.append(("WWW-Authenticate", 'Bearer realm="coterie"'))
    if isinstance(error, TooLargeError):
        # What was not read of the body would be taken for the next request.
        headers.append(("Connection", "close"))
    return failure_of(error).http, headers
