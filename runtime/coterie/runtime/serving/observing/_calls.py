"""Calls: requests as clients make them, each with an id that its answer, its log line and its trace carry."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from coterie.runtime.serving._models import Done

REQUEST_ID = "x-request-id"
"""The header, and the gRPC metadata, in which an id comes and goes."""
_CARRIED = ("traceparent", "tracestate")
_CALLED = "coterie.called"
"""Where a scope says that a middleware of this kind has seen it."""
_WANTED = frozenset(name.encode() for name in (REQUEST_ID, *_CARRIED))
_ID = re.compile(r"[!-~]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_WHAT = 200
"""Characters of a path that are kept: it may be anything that a client makes up."""


@dataclass(slots=True, eq=False)
class Call:
    """One call.

    Attributes:
        transport: ``http`` or ``grpc``.
        what: Method and path, or the method of gRPC.
        id: The client's, or one of our own.
        named: Whether the client gave the id.
        carrier: What the client sent of a trace that the call is part of, by the names of W3C.
        began: When it came, on the clock of ``time.perf_counter``.
        status: An HTTP status, or the name of gRPC's.
        done: What became of the question in it; ``None`` where no model was asked.
        trace: The id of its trace, 32 hexadecimal digits; empty where nobody traces it.
    """

    transport: str
    what: str
    id: str
    named: bool
    carrier: dict[str, str]
    began: float
    status: str = ""
    done: Done | None = None
    trace: str = field(default="")

    def suggest(self, name: str) -> None:
        """Take the id that a question itself has, where the call came with none."""
        if not self.named and _ID.fullmatch(name):
            self.id, self.named = name, True

    @property
    def failed(self) -> bool:
        """Whether it was not answered as it was asked."""
        return not (self.status.startswith(("2", "3")) or self.status == "OK")


_CURRENT: ContextVar[Call | None] = ContextVar("coterie_call", default=None)


def current_call() -> Call | None:
    """Return the call that is being answered."""
    return _CURRENT.get()


def suggest_id(name: str) -> None:
    """Give the call that is being answered the id of the question in it, if it has none of its own."""
    call = _CURRENT.get()
    if call is not None and name:
        call.suggest(name)


class Sink(Protocol):
    """Is told of every call, for traces and logs."""

    def finished(self, call: Call, seconds: float) -> None:
        """Take note of a call that took so many seconds."""


class Calls:
    """Follows calls from their first byte to their answer.

    Args:
        sinks: Told of every call that is over, in this order.
    """

    def __init__(self, sinks: Sequence[Sink] = ()) -> None:
        self._sinks = list(sinks)

    def tell(self, sink: Sink) -> None:
        """Tell one more of every call that is over, after the others."""
        self._sinks.append(sink)

    @contextmanager
    def call(self, transport: str, what: str, headers: Iterable[tuple[str, Any]]) -> Iterator[Call]:
        """Follow a call while the ``with`` block lasts; ``current_call`` is this one inside it.

        Args:
            transport: ``http`` or ``grpc``.
            what: Method and path.
            headers: Name, in small letters, and value of what came with it.
        """
        given, carrier = "", {}
        for name, value in headers:
            if name == REQUEST_ID:
                given = value if isinstance(value, str) and _ID.fullmatch(value) else ""
            elif name in _CARRIED:
                carrier[name] = str(value)
        own = given or f"{random.getrandbits(128):032x}"
        # An id is a name and no secret.
        call = Call(transport, what[:_WHAT], own, bool(given), carrier, time.perf_counter())
        if found := _TRACE.fullmatch(carrier.get("traceparent", "")):
            call.trace = found[1]
        before = _CURRENT.set(call)
        try:
            yield call
        finally:
            _CURRENT.reset(before)
            seconds = time.perf_counter() - call.began
            for sink in self._sinks:
                sink.finished(call, seconds)


class CallMiddleware:
    """ASGI middleware that makes a call of every HTTP request and sends its id back; mounted twice, once."""

    def __init__(self, app: ASGIApp, calls: Calls) -> None:
        self._app = app
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or _CALLED in scope:
            await self._app(scope, receive, send)
            return
        # The scope knows, and not the context: a request may begin in the context of the one before it.
        scope[_CALLED] = True
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
