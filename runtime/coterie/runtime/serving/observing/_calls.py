"""Calls: requests as clients make them, each with an id that its answer, its log line and its trace carry."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from coterie.runtime.engine._prediction import Timing

REQUEST_ID = "x-request-id"
"""The header, and the gRPC metadata, in which an id comes and goes."""
CARRIED = ("traceparent", "tracestate")
"""Of a call's headers, what a trace that it is part of is known by (W3C)."""
_ID = re.compile(r"[!-~]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_WHAT = 200
"""Characters of a path that are kept: it may be anything that a client makes up."""


class Done(NamedTuple):
    """What became of one request.

    Attributes:
        model: One of the bundle's, or ``unknown``.
        version: The version that was asked.
        transport: By which it was asked.
        outcome: ``ok``, or what its error is called.
        questions: Questions that were answered.
        seconds: From when the models were asked to the answer.
        timing: How long it waited and ran; ``None`` unless it was answered.
    """

    model: str
    version: str
    transport: str
    outcome: str
    questions: int
    seconds: float
    timing: Timing | None


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
    trace: str = ""

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
            elif name in CARRIED:
                carrier[name] = str(value)
        # An id is a name and no secret.
        own = given or f"{random.getrandbits(128):032x}"
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
