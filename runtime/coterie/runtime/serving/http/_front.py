"""The outermost application of a server: who may ask, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from coterie.runtime.serving._failures import not_ready
from coterie.runtime.serving.access._callers import ANYBODY, Access
from coterie.runtime.serving.http._asgi import CALLER, Headers, respond, respond_error
from coterie.runtime.serving.http._infer import PREFIX, infer, is_question
from coterie.runtime.serving.http._pages import create_pages
from coterie.runtime.serving.http._receiving import Receiving
from coterie.runtime.serving.models._models import Models

_OPEN = frozenset({"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready", "/", "/docs.json"})
"""Health, for whoever watches over the server, and the page for people: without a key."""
_OWN = _OPEN | {"/v2", "/metrics", "/versions"}


class Front:
    """An ASGI application that answers by itself what belongs to the protocol, health and metrics.

    All else is left to the application beneath: BentoML's, whose middleware costs a request more than the
    protocol does.

    Args:
        models: Gives the models once they are loaded; until then every question is refused with 503.
        max_body: Largest body, in bytes, packed or unpacked.
        receiving: Counts the bodies that come.
        access: Who may ask; anybody, where it is not given.
        metrics: Gives the metrics in Prometheus's words; without it there are none.
        spec: Gives BentoML's OpenAPI description; without it there is none.
        beneath: The application for all other addresses; without one they are 404.
    """

    def __init__(
        self,
        models: Callable[[], Models | None],
        *,
        max_body: int,
        receiving: Receiving,
        access: Access | None = None,
        metrics: Callable[[], Awaitable[bytes]] | None = None,
        spec: Callable[[], Mapping[str, Any]] | None = None,
        beneath: ASGIApp | None = None,
    ) -> None:
        self._models = models
        self._max_body = max_body
        self._receiving = receiving
        self._access = access or Access(None)
        self._beneath = beneath or _nothing
        self._pages = create_pages(
            models,
            metrics,
            spec,
            keys=not self._access.is_open,
            max_body=max_body,
            receiving=receiving,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._beneath(scope, receive, send)
            return
        path: str = scope["path"]
        headers: Headers = dict(scope["headers"])
        own = path.startswith("/v2/") or path in _OWN or (path == "/tasks" and scope["method"] == "GET")
        caller = ANYBODY
        try:
            # What is beneath is asked by POST; anything else is what its page is made of.
            if path not in _OPEN and (own or scope["method"] == "POST"):
                caller = self._access.caller(
                    headers.get(b"authorization", b"").decode("latin-1"),
                    headers.get(b"x-api-key", b"").decode("latin-1"),
                )
            models = self._models()
            if models is not None and models.odd and path.startswith(PREFIX):
                path = unambiguous(path, models)
                scope = {**scope, "path": path}
            if is_question(path):
                if models is None:
                    raise not_ready()
                await infer(
                    scope,
                    headers,
                    receive,
                    send,
                    models=models,
                    caller=caller,
                    limit=self._max_body,
                    receiving=self._receiving,
                )
                return
        except Exception as error:
            await respond_error(send, error)
            return
        scope[CALLER] = caller
        await (self._pages if own else self._beneath)(scope, receive, send)


def unambiguous(path: str, models: Models) -> str:
    """Return an address under ``/v2/models`` with the version said, where a name looks as if it said one."""
    rest = path[len(PREFIX) :]
    for ending in ("", "/config", "/stats", "/ready"):
        name = rest.removesuffix(ending)
        if rest.endswith(ending) and name in models.odd:
            return f"{PREFIX}{name}/versions/{models.current.number}{ending}"
    return path


async def _nothing(_: Scope, _receive: Receive, send: Send) -> None:
    await respond(send, b'{"error":"there is nothing at this address"}', status=404)
