"""HTTP requests as calls."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.runtime.serving.observing._calls import CARRIED, REQUEST_ID, Calls

_WANTED = frozenset(name.encode() for name in (REQUEST_ID, *CARRIED))


class CallMiddleware:
    """ASGI middleware that makes a call of every HTTP request and sends its id back."""

    def __init__(self, app: ASGIApp, calls: Calls) -> None:
        self._app = app
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [
            (name.decode("ascii"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name in _WANTED
        ]
        with self._calls.call("http", f"{scope['method']} {scope['path']}", headers) as call:

            async def named(message: Message) -> None:
                if message["type"] == "http.response.start":
                    call.status = str(message["status"])
                    own = (REQUEST_ID.encode(), call.id.encode())
                    message = {**message, "headers": [*message.get("headers", ()), own]}
                await send(message)

            await self._app(scope, receive, named)
