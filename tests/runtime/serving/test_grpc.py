"""The protocol over gRPC, where it is more than Triton's client asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc

from coterie.runtime import load
from coterie.runtime.batching import Batcher
from coterie.runtime.errors import UnavailableError
from coterie.runtime.serving import Addresses
from coterie.runtime.serving.grpc._server import GrpcServer
from coterie.runtime.serving.models._models import Models

from ..handmade import HandMade


@pytest.fixture(scope="module")
def channel(server: Addresses) -> Iterator[grpc.Channel]:
    assert server.grpc is not None
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def question(model: str = "topic", datatype: str = "FP32", **contents: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, id="x")
    tensor = request.inputs.add(name="features", datatype=datatype, shape=[1, 4])
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return request


def test_typed_contents_are_answered_in_kind(stub: Any, features: HandMade) -> None:
    inputs = np.array([[0.5, -1, 2, 0]], dtype=np.float32)
    for name in ("topic", "tags"):
        response = stub.ModelInfer(question(name, fp32_contents=inputs[0]))
        assert (response.id, response.model_name, len(response.raw_output_contents)) == ("x", name, 0)
        outputs = {output.name: output for output in response.outputs}
        scores = outputs["scores"].contents.fp32_contents
        np.testing.assert_allclose(scores, features.scores(name, inputs)[0], rtol=1e-5, atol=1e-5)
        label = outputs["label"].contents
        assert len(label.bytes_contents if name == "topic" else label.uint_contents) in (1, 3)


def test_router_takes_typed_names_and_numbers(stub: Any, features: HandMade) -> None:
    inputs = np.array([[0.5, -1, 2, 0]], dtype=np.float32)
    for datatype, values in (("BYTES", {"bytes_contents": [b"mood"]}), ("INT64", {"int64_contents": [1]})):
        request = question("router", fp32_contents=inputs[0])
        task = request.inputs.add(name="task", datatype=datatype, shape=[1])
        for field, value in values.items():
            getattr(task.contents, field).extend(value)
        response = stub.ModelInfer(request)
        scores = list(response.outputs[0].contents.fp32_contents)
        np.testing.assert_allclose(scores[:2], features.scores("mood", inputs)[0], rtol=1e-5, atol=1e-5)
        assert scores[2] == 0


def broken() -> Iterator[Any]:
    yield question(fp32_contents=[1, 2, 3])
    yield question(int64_contents=[1, 2, 3, 4])
    yield question(fp32_contents=[1, 2, 3, 4], int_contents=[1])
    yield question(datatype="FP16")
    yield question(datatype="")
    yield question(fp32_contents=[1, 2, 3, float("nan")])
    both = question(fp32_contents=[1, 2, 3, 4])
    both.raw_input_contents.append(b"\0" * 16)
    yield both
    twice = question()
    twice.raw_input_contents.extend([b"\0" * 16, b"\0" * 16])
    yield twice
    short = question()
    short.raw_input_contents.append(b"\0" * 15)
    yield short
    negative = question(fp32_contents=[1, 2, 3, 4])
    negative.inputs[0].shape[:] = [-1, 4]
    yield negative
    shared = question(fp32_contents=[1, 2, 3, 4])
    shared.inputs[0].parameters["shared_memory_region"].string_param = "x"
    yield shared
    yield service_pb2.ModelInferRequest(model_name="topic")


def test_a_message_that_is_no_question_is_an_invalid_argument(stub: Any) -> None:
    for request in broken():
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (request, caught.value)
        assert caught.value.details()
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live


def test_an_unknown_model_is_not_ready_as_triton_says(stub: Any) -> None:
    assert not stub.ModelReady(service_pb2.ModelReadyRequest(name="topik")).ready
    assert not stub.ModelReady(service_pb2.ModelReadyRequest(name="topic", version="7")).ready


def test_an_unknown_model_is_not_found(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="topik"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "did you mean 'topic'" in caught.value.details()


def test_health_checks_answer(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService"):
        status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
        assert status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_describes_every_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert services == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    pool = DescriptorPool(database)
    for service in services:
        assert pool.FindServiceByName(service).methods


def test_a_server_that_is_not_ready_or_stopping_is_unavailable(features: HandMade) -> None:
    async def ask() -> list[tuple[grpc.StatusCode, bool]]:
        batcher = Batcher(load(features.path, threads=1))
        models = Models(batcher, max_rows=8)
        server = GrpcServer(models, host="127.0.0.1", port=0, max_body=1 << 20)
        port = await server.start()
        seen = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for models.ready in (False, True):
                if not models.ready:  # and nobody waits for a turn to be told so
                    with pytest.raises(UnavailableError):
                        models.check_room("topic", "", 10)
                ready = (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
                try:
                    await stub.ModelInfer(question(fp32_contents=[1, 2, 3, 4]))
                    seen.append((grpc.StatusCode.OK, ready))
                except grpc.aio.AioRpcError as error:
                    seen.append((error.code(), ready))
            await batcher.close()
            with pytest.raises(grpc.aio.AioRpcError, match="shutting down"):
                await stub.ModelInfer(question(fp32_contents=[1, 2, 3, 4]))
        await server.stop(1)
        return seen

    assert asyncio.run(ask()) == [(grpc.StatusCode.UNAVAILABLE, False), (grpc.StatusCode.OK, True)]


def test_a_stopping_server_finishes_what_it_has_accepted(features: HandMade) -> None:
    async def ask() -> int:
        batcher = Batcher(load(features.path, threads=1))
        models = Models(batcher, max_rows=100_000)
        models.ready = True
        server = GrpcServer(models, host="127.0.0.1", port=0, max_body=1 << 24)
        port = await server.start()
        many = service_pb2.ModelInferRequest(model_name="topic")
        many.inputs.add(name="features", datatype="FP32", shape=[50_000, 4])
        many.raw_input_contents.append(np.ones((50_000, 4), dtype=np.float32).tobytes())
        options = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            accepted = [asyncio.ensure_future(stub.ModelInfer(many)) for _ in range(3)]
            while not batcher.waiting:
                await asyncio.sleep(0.001)
            await server.stop(20)
            answers = await asyncio.gather(*accepted, return_exceptions=True)
        await batcher.close()
        return sum(not isinstance(answer, BaseException) for answer in answers)

    assert asyncio.run(ask()) >= 1


def test_what_a_stopping_server_has_not_read_it_refuses_so_that_clients_ask_again(features: HandMade) -> None:
    async def ask() -> set[grpc.StatusCode]:
        batcher = Batcher(load(features.path, threads=1))
        models = Models(batcher, max_rows=8)
        models.ready = True
        server = GrpcServer(models, host="127.0.0.1", port=0, max_body=1 << 20)
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            await stub.ModelInfer(question(fp32_contents=[1, 2, 3, 4]))
            calls = [stub.ModelInfer(question(fp32_contents=[1, 2, 3, 4])) for _ in range(300)]
            while not batcher.waiting:
                await asyncio.sleep(0)
            await server.stop(5)
            codes = [await call.code() for call in calls]
        await batcher.close()
        return set(codes)

    assert asyncio.run(ask()) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
