"""Spans of OpenTelemetry: of a call, of its time in the queue, and of the run that answered it."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coterie.runtime.serving.observing._calls import Call

if TYPE_CHECKING:
    from coterie.runtime.engine._prediction import Timing

_FAULTS = ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN")
_RUNS = 256
"""Runs whose span is remembered until all of their calls are over."""


class Tracing:
    """Makes the spans of every call, when it is over; a sink of ``Calls``.

    A call's span has the client's as its parent, and two children: ``queue`` and ``run``. Calls that one run
    answered share a span ``batch``, which each of their ``run`` links to; its parent is the first one's span.

    Args:
        provider: Of OpenTelemetry; it decides which traces are kept.
    """

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("coterie")
        self._propagator = TraceContextTextMapPropagator()
        self._batches: OrderedDict[float, SpanContext] = OrderedDict()

    def finished(self, call: Call, seconds: float) -> None:
        """Make the spans of a call, unless it asked no model and nothing is wrong."""
        done = call.done
        if done is None and not call.failed:
            return
        ahead = time.time() - time.perf_counter()
        parent = self._propagator.extract(call.carrier) if call.carrier else Context()
        span = self._tracer.start_span(
            call.what if done is None else f"infer {done.model}",
            parent,
            kind=SpanKind.SERVER,
            start_time=_nanoseconds(call.began + ahead),
        )
        call.trace = trace.format_trace_id(span.get_span_context().trace_id)
        if span.is_recording():
            span.set_attributes(_attributes(call))
            if call.status.startswith("5") or call.status in _FAULTS:
                span.set_status(Status(StatusCode.ERROR))
            if done is not None and done.timing is not None:
                self._parts(span, done.timing, ahead)
        span.end(_nanoseconds(call.began + seconds + ahead))

    def close(self) -> None:
        """Send what is not sent yet."""
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:
            shutdown()

    def _parts(self, span: Span, timing: Timing, ahead: float) -> None:
        inside = trace.set_span_in_context(span, Context())
        arrived, started = _nanoseconds(timing.arrived + ahead), _nanoseconds(timing.started + ahead)
        ended = _nanoseconds(timing.started + timing.seconds + ahead)
        self._tracer.start_span("queue", inside, start_time=arrived).end(started)
        batch = self._batches.get(timing.started)
        if batch is None:
            rows = {"coterie.rows": timing.rows}
            one = self._tracer.start_span("batch", inside, start_time=started, attributes=rows)
            one.end(ended)
            batch = self._batches[timing.started] = one.get_span_context()
            if len(self._batches) > _RUNS:
                self._batches.popitem(last=False)
        self._tracer.start_span("run", inside, start_time=started, links=[Link(batch)]).end(ended)


def _attributes(call: Call) -> dict[str, str | int]:
    """Return what is said of a call; of what a client made up only its id."""
    own: dict[str, str | int] = {"coterie.request_id": call.id, "network.protocol.name": call.transport}
    if call.transport == "http" and call.status:
        own["http.response.status_code"] = int(call.status)
    elif call.status:
        own["rpc.grpc.status"] = call.status
    if call.done is not None:
        own |= {
            "coterie.model": call.done.model,
            "coterie.version": call.done.version,
            "coterie.outcome": call.done.outcome,
            "coterie.questions": call.done.questions,
        }
    return own


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
