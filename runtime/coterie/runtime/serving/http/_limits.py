"""Limits on what a request may send: its size, counted as it arrives, and its kind."""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.runtime.serving._failures import TooLargeError
from coterie.runtime.serving.http._asgi import declared_length, respond, respond_error, too_large


class BodyLimit:
    """ASGI middleware that answers 413 to a request whose body is larger than ``limit`` bytes.

    A body that says its length is refused before it is read; any other is read no further than the limit.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if declared_length(dict(scope["headers"])) > self._limit:
            await respond_error(send, too_large(self._limit))
            return
        received = 0
        started = exceeded = False

        async def limited() -> Message:
            nonlocal received, exceeded
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                exceeded = True
                raise too_large(self._limit)
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
            await respond_error(send, too_large(self._limit))


class JsonOnly:
    """ASGI middleware that answers 415 to a body that is not JSON.

    BentoML would take other types too, forms and Arrow among them, and fails inside on malformed ones.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and scope["method"] == "POST":
            kind = dict(scope["headers"]).get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind not in (b"", b"application/json"):
                message = "send JSON, with the header 'Content-Type: application/json'"
                close = [(b"connection", b"close")]  # its body is not read
                await respond(send, json.dumps({"error": message}).encode(), status=415, more=close)
                return
        await self._app(scope, receive, send)
