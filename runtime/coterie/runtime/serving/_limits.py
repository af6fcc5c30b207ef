"""Limits on what a request may send: its size, counted as it arrives, and its kind."""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.runtime.serving._failures import TooLargeError


class BodyLimit:
    """ASGI middleware that answers 413 to a request whose body is larger than ``limit`` bytes.

    A body that says its length is refused before it is read; any other is read no further than the limit.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._message = f"the body is larger than the {limit} bytes that this server takes: split the request"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared(scope) > self._limit:
            await _refuse(send, 413, self._message)
            return
        received = 0
        started = exceeded = False

        async def limited() -> Message:
            nonlocal received, exceeded
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                exceeded = True
                raise TooLargeError("the body is too large")
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            # Whatever the application makes of the interrupted body, the client hears of the limit.
            if exceeded and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, limited, guarded)
        except TooLargeError:
            if not exceeded:
                raise
        if exceeded and not started:
            await _refuse(send, 413, self._message)


class JsonOnly:
    """ASGI middleware that answers 415 to a body that is not JSON, except below ``/v2``.

    BentoML would take other types too, forms and Arrow among them, and fails inside on malformed ones.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and scope["method"] == "POST" and not scope["path"].startswith("/v2/"):
            kind = _header(scope, b"content-type").split(b";")[0].strip().lower()
            if kind not in (b"", b"application/json"):
                await _refuse(send, 415, "send JSON, with the header 'Content-Type: application/json'")
                return
        await self._app(scope, receive, send)


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # What was not read of the body would be taken for the next request.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _declared(scope: Scope) -> int:
    value = _header(scope, b"content-length")
    return int(value) if value.isdigit() else 0


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((bytes(value) for name, value in scope["headers"] if name == wanted), b"")
