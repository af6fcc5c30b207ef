"""Spans: of a call, of its wait and its run, on both transports."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from coterie.runtime import load
from coterie.runtime.batching import Batcher
from coterie.runtime.errors import ConfigError
from coterie.runtime.serving import running_server
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._questions import Question
from coterie.runtime.serving.models._tensors import Tensor
from coterie.runtime.serving.observing._calls import Calls
from coterie.runtime.serving.observing._telemetry import tracing_from
from coterie.runtime.serving.observing._tracing import Tracing

from ..gate import Gate
from ..handmade import HandMade
from .watched import ROW, Watched, eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def traced(made: HandMade, count: int, **headers: str) -> tuple[list[ReadableSpan], list[Any]]:
    """Return the spans of so many questions that one run answers, and the questions' calls."""
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    calls = Calls([Tracing(provider)])
    finished = []

    async def ask(models: Models, model: str) -> None:
        with calls.call("http", "POST /", headers.items()) as call:
            finished.append(call)
            question = Question(model, {"features": Tensor("FP32", np.array([ROW], dtype=np.float32))})
            try:
                await models.answer(question, transport="http")
            except Exception:
                call.status = "503"
            else:
                call.status = "200"

    async def run() -> None:
        engine = load(made.path, threads=1)
        gate = Gate(engine)
        models = Models(Batcher(engine), max_rows=64)
        models.ready = count > 0
        first = asyncio.ensure_future(ask(models, "mood"))
        if models.ready:
            await gate.busy()
        rest = [asyncio.ensure_future(ask(models, "topic")) for _ in range(count)]
        await asyncio.sleep(0.01)
        gate.open()
        await asyncio.gather(first, *rest)
        await models.close()

    asyncio.run(run())
    return list(memory.get_finished_spans()), finished


def named(spans: list[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


def test_calls_that_one_run_answered_link_to_its_batch(features: HandMade) -> None:
    spans, _ = traced(features, 5)
    assert len(named(spans, "infer topic")) == 5
    assert sorted(span.attributes["coterie.rows"] for span in named(spans, "batch")) == [1, 5]
    (shared,) = [span for span in named(spans, "batch") if span.attributes["coterie.rows"] == 5]
    links = [span.links[0].context.span_id for span in named(spans, "run")]
    assert links.count(shared.context.span_id) == 5
    assert len({span.context.trace_id for span in named(spans, "infer topic")}) == 5


def test_a_call_is_its_clients_child_and_its_wait_and_run_are_within_it(features: HandMade) -> None:
    spans, calls = traced(features, 1, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert {call.trace for call in calls} == {TRACE}
    (call,) = named(spans, "infer topic")
    assert format(call.context.trace_id, "032x") == TRACE
    assert call.parent is not None
    assert format(call.parent.span_id, "016x") == PARENT
    assert call.attributes["coterie.outcome"] == "ok"
    own = [span for span in spans if span.parent and span.parent.span_id == call.context.span_id]
    queue, run = named(own, "queue")[0], named(own, "run")[0]
    assert queue.end_time - queue.start_time > 5_000_000  # it stood behind the other's run
    assert call.start_time <= queue.start_time
    assert queue.end_time == run.start_time
    assert run.end_time <= call.end_time


def test_a_call_of_which_nobody_keeps_the_trace_makes_no_spans(features: HandMade) -> None:
    spans, calls = traced(features, 2, traceparent=f"00-{TRACE}-{PARENT}-00")
    assert (spans, {call.trace for call in calls}) == ([], {TRACE})


def test_a_fault_of_the_server_is_an_error_of_its_span(features: HandMade) -> None:
    (span,), _ = traced(features, 0)
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["coterie.outcome"] == "unavailable"


@pytest.mark.parametrize(
    "environment",
    [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}],
)
def test_nothing_is_traced_unless_it_is_asked_for(environment: dict[str, str]) -> None:
    assert tracing_from(environment) is None


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_what_spans_cannot_be_sent_with_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="OTEL_"):
        tracing_from(environment)


def test_a_server_that_cannot_send_spans_is_not_started(
    features: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigError, match="zipkin"), running_server(features.path):
        pass


def test_both_transports_send_spans_of_the_clients_trace(watched: Watched) -> None:
    parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": ROW}]}
    assert watched.predict(**parent).status_code == 200
    assert httpx.post(f"{watched.http}/v2/models/topic/infer", json=body, headers=parent).status_code == 200
    with triton.InferenceServerClient(watched.grpc) as client:
        tensor = triton.InferInput("features", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.array([ROW], dtype=np.float32))
        client.infer("topic", [tensor], headers=parent)

    def arrived() -> list[Any]:
        return [span for span in watched.spans if span.trace_id.hex() == TRACE]

    assert eventually(lambda: len(arrived()) == 12), [span.name for span in arrived()]
    names = sorted(span.name for span in arrived())
    assert names == sorted(["infer topic", "queue", "batch", "run"] * 3)
    (protocols,) = [
        sorted(
            attribute.value.string_value
            for span in arrived()
            for attribute in span.attributes
            if attribute.key == "network.protocol.name"
        )
    ]
    assert protocols == ["grpc", "http", "http"]
