"""What a client is told when there is too much to do, when it is too late, and when it has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from tritonclient.grpc import service_pb2, service_pb2_grpc

from coterie.runtime import Engine, load
from coterie.runtime.batching import Batcher, Limits
from coterie.runtime.engine._asked import Asked
from coterie.runtime.serving.grpc._server import GrpcServer
from coterie.runtime.serving.http._front import Front
from coterie.runtime.serving.http._receiving import Receiving
from coterie.runtime.serving.models._models import Models

from ..gate import Gate
from ..handmade import HandMade

INFER = "/v2/models/topic/infer"
ROWS = 10
FEATURES = {"name": "features", "datatype": "FP32", "shape": [ROWS, 4], "data": [1.0] * 4 * ROWS}


def with_models(made: HandMade, work: Callable[[Models, Gate], Awaitable[Any]]) -> Any:
    """Run work with models whose engine waits, and which hold three requests of ten rows."""

    async def run() -> Any:
        engine: Engine = load(made.path, threads=1)
        gate = Gate(engine)
        models = Models(Batcher(engine, limits=Limits(rows=3 * ROWS)), max_rows=64)
        models.ready = True
        result = await work(models, gate)
        gate.open()
        await models.current.batcher.close()
        return result

    return asyncio.run(run())


def app_of(models: Models) -> Front:
    return Front(lambda: models, max_body=1 << 20, receiving=Receiving(1 << 28))


def client_of(models: Models) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app_of(models)), base_url="http://coterie")


async def filled(models: Models, gate: Gate) -> list[asyncio.Future[Any]]:
    """Fill all the room there is."""
    inputs = np.ones((ROWS, 4), dtype=np.float32)
    held = [asyncio.ensure_future(models.current.batcher.predict("mood", inputs)) for _ in range(3)]
    await gate.busy()
    return held


def test_http_says_429_and_when_to_try_again(features: HandMade) -> None:
    async def ask(models: Models, gate: Gate) -> None:
        held = await filled(models, gate)
        async with client_of(models) as client:
            refused = await client.post(INFER, json={"inputs": [FEATURES]})
            healthy = await client.get("/v2/health/ready")
            gate.open()
            await asyncio.gather(*held)
            taken = await client.post(INFER, json={"inputs": [FEATURES]})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "rows are waiting" in refused.json()["error"]
        assert (healthy.status_code, taken.status_code) == (200, 200)

    with_models(features, ask)


def test_grpc_says_resource_exhausted_and_when_to_try_again(features: HandMade) -> None:
    async def ask(models: Models, gate: Gate) -> None:
        await filled(models, gate)
        server = GrpcServer(models, host="127.0.0.1", port=0, max_body=1 << 20)
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(message())
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        trailing = dict(caught.value.trailing_metadata())
        assert int(trailing["retry-after"]) >= 1
        assert trailing["x-request-id"]
        status = rpc_status.from_call(caught.value)
        retry = RetryInfo()
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.seconds >= 1
        assert status.message == caught.value.details()
        gate.open()
        await server.stop(1)

    with_models(features, ask)


def test_a_timeout_of_triton_s_ends_the_wait(features: HandMade) -> None:
    async def ask(models: Models, gate: Gate) -> None:
        await filled(models, gate)
        gate.open()
        await asyncio.sleep(0.05)
        gate.close()
        async with client_of(models) as client:
            body = {"inputs": [FEATURES], "parameters": {"timeout": 20_000}}
            late = await client.post(INFER, json=body)
            wrong = await client.post(INFER, json={**body, "parameters": {"timeout": "soon"}})
        assert (late.status_code, wrong.status_code) == (504, 400)
        assert "within 0.02 seconds" in late.json()["error"]
        assert "microseconds" in wrong.json()["error"]

    with_models(features, ask)


def test_a_question_is_given_up_with_its_grpc_deadline(features: HandMade) -> None:
    async def ask(models: Models, gate: Gate) -> None:
        server = GrpcServer(models, host="127.0.0.1", port=0, max_body=1 << 20)
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(message(), timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await emptied(models)
        await server.stop(1)

    with_models(features, ask)


def test_a_question_is_given_up_with_its_http_client(features: HandMade) -> None:
    async def ask(models: Models, gate: Gate) -> None:
        sent: list[Any] = []
        body = json.dumps({"inputs": [FEATURES]}).encode()
        events: asyncio.Queue[Any] = asyncio.Queue()
        events.put_nowait({"type": "http.request", "body": body, "more_body": False})
        scope = {
            "type": "http",
            "method": "POST",
            "path": INFER,
            "headers": [(b"content-length", str(len(body)).encode())],
            "query_string": b"",
        }

        async def send(event: Any) -> None:
            sent.append(event)

        asking = asyncio.ensure_future(app_of(models)(scope, events.get, send))
        await gate.busy()
        assert models.current.batcher.waiting == 1
        events.put_nowait({"type": "http.disconnect"})
        await emptied(models)
        await asyncio.wait_for(asking, timeout=5)
        assert sent[0]["status"] == 499  # nobody reads it; the server's log does not take it for a fault

    with_models(features, ask)


def test_what_has_priority_goes_first_over_both_transports(features: HandMade) -> None:
    ran: list[float] = []

    async def ask() -> None:
        engine = load(features.path, threads=1)
        run = engine.run

        def noted(asked: Asked, stop: Any = None) -> Any:
            # In a batch, whatever was taken first stands first.
            ran.extend(dict.fromkeys(asked.inputs["features"][asked.row][:, 0].tolist()))
            return run(asked, stop)

        engine.run = noted  # type: ignore[method-assign]
        gate = Gate(engine)
        models = Models(Batcher(engine), max_rows=64)
        models.ready = True
        server = GrpcServer(models, host="127.0.0.1", port=0, max_body=1 << 20)
        port = await server.start()
        async with client_of(models) as client, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def over_http(number: int, priority: int) -> None:
                tensor = FEATURES | {"data": [float(number)] * 4 * ROWS}
                body = {"inputs": [tensor], "parameters": {"priority": priority}}
                assert (await client.post(INFER, json=body)).status_code == 200

            async def over_grpc(number: int, priority: int) -> None:
                request = message(float(number))
                request.parameters["priority"].uint64_param = priority
                await stub.ModelInfer(request)

            asking = []
            ways = (
                (over_http, 0),
                (over_http, 3),
                (over_grpc, 0),
                (over_grpc, 3),
                (over_http, 2),
                (over_grpc, 1),
            )
            for number, (way, priority) in enumerate(ways, start=1):
                asking.append(asyncio.ensure_future(way(number, priority)))
                while models.current.batcher.waiting < number:
                    await asyncio.sleep(0.001)
                await gate.busy()
            gate.open()
            await asyncio.gather(*asking)
            await server.stop(1)
        await models.current.batcher.close()

    asyncio.run(ask())
    assert ran == [1, 6, 3, 5, 2, 4]


async def emptied(models: Models) -> None:
    async with asyncio.timeout(5):
        while models.current.batcher.waiting:
            await asyncio.sleep(0.005)


def message(value: float = 1.0) -> Any:
    request = service_pb2.ModelInferRequest(model_name="topic")
    request.inputs.add(name="features", datatype="FP32", shape=[ROWS, 4])
    request.raw_input_contents.append(np.full((ROWS, 4), value, dtype=np.float32).tobytes())
    return request
