"""Limits on what a request may send: its size, counted as it arrives, and its kind."""

from __future__ import annotations

import json
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.runtime.errors import CoterieError
from coterie.runtime.serving.http._asgi import declared_length, respond, respond_error, too_large
from coterie.runtime.serving.http._receiving import Receiving

RECEIVED = "coterie.received"
"""Where a scope holds what was received of its body."""


@dataclass
class Received:
    """How much of a body has come, in bytes."""

    nbytes: int = 0


class BodyLimit:
    """ASGI middleware that answers 413 to a request whose body is larger than ``limit`` bytes.

    A body that says its length is refused before it is read; any other is read no further than the limit.
    Where many are being received, further ones are answered 429.
    """

    def __init__(self, app: ASGIApp, limit: int, receiving: Receiving) -> None:
        self._app = app
        self._limit = limit
        self._receiving = receiving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if declared_length(dict(scope["headers"])) > self._limit:
            await respond_error(send, too_large(self._limit))
            return
        received = scope[RECEIVED] = Received()
        started = False
        exceeded: CoterieError | None = None

        async def limited() -> Message:
            nonlocal exceeded
            message = await receive()
            part = len(message.get("body", b""))
            received.nbytes += part
            try:
                if received.nbytes > self._limit:
                    raise too_large(self._limit)
                if message.get("more_body", False):
                    body.add(part)
                else:
                    body.release()
            except CoterieError as error:
                exceeded = error
                raise
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            # Whatever the application makes of the interrupted body, the client hears of the limit.
            if exceeded is not None and not started:
                return
            started = True
            await send(message)

        with self._receiving.body() as body:
            try:
                await self._app(scope, limited, guarded)
            except CoterieError as error:
                if error is not exceeded:
                    raise
        if exceeded is not None and not started:
            await respond_error(send, exceeded)


class JsonOnly:
    """ASGI middleware that answers 415 to a body that is not plain JSON.

    BentoML would take other types too, forms and Arrow among them, and fails inside on malformed ones.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and scope["method"] == "POST":
            headers = dict(scope["headers"])
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            message = ""
            if kind not in (b"", b"application/json"):
                message = "send JSON, with the header 'Content-Type: application/json'"
            elif headers.get(b"content-encoding", b"identity") != b"identity":
                message = "send the body as it is: compressed ones are read under /v2 only"
            if message:
                close = [(b"connection", b"close")]  # its body is not read
                await respond(send, json.dumps({"error": message}).encode(), status=415, more=close)
                return
        await self._app(scope, receive, send)
