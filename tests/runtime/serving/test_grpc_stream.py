"""Streams of questions, with Triton's own clients and against a server in the same process."""

from __future__ import annotations

import asyncio
import itertools
import queue
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from coterie.runtime import Engine, load
from coterie.runtime.batching import Batcher
from coterie.runtime.errors import UnavailableError
from coterie.runtime.serving import Addresses
from coterie.runtime.serving.grpc._server import GrpcServer
from coterie.runtime.serving.grpc._stream import in_order
from coterie.runtime.serving.models._models import Models

from ..gate import Gate
from ..handmade import HandMade


@pytest.fixture(scope="module")
def local(features: HandMade) -> Engine:
    return load(features.path, threads=1)


def tensor(array: np.ndarray[Any, Any]) -> Any:
    made = triton.InferInput("features", list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return made


def questions(features: HandMade, count: int) -> list[tuple[str, np.ndarray[Any, Any]]]:
    return [
        (features.names[number % 4], features.inputs(1 + number % 3, seed=number)) for number in range(count)
    ]


def test_a_stream_answers_in_the_order_of_its_questions(
    server: Addresses, local: Engine, features: HandMade
) -> None:
    asked = questions(features, 100)
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number, (name, inputs) in enumerate(asked):
            client.async_stream_infer(
                name, [tensor(inputs)], request_id=str(number), enable_empty_final_response=number > 0
            )
        client.stop_stream()
    assert answers.qsize() == len(asked)
    for number, (name, inputs) in enumerate(asked):
        result, error = answers.get()
        assert error is None
        response = result.get_response()
        assert (response.id, response.model_name) == (str(number), name)
        assert response.parameters["triton_final_response"].bool_param == (number > 0)
        np.testing.assert_allclose(
            result.as_numpy("scores"), local.predict(name, inputs).scores, rtol=1e-5, atol=1e-6
        )


def test_a_wrong_question_of_a_stream_fails_alone(server: Addresses, features: HandMade) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    inputs = features.inputs(1)
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for name, array in (("topic", inputs), ("topik", inputs), ("mood", inputs[:, :3]), ("mood", inputs)):
            client.async_stream_infer(name, [tensor(array)])
        client.stop_stream()
    errors = [error and error.message() for _, error in answers.queue]
    assert errors[0] is errors[3] is None
    assert "did you mean 'topic'" in errors[1]
    assert "expected [R, 4]" in errors[2]


def test_an_error_of_a_stream_bears_the_id_of_its_question(server: Addresses, features: HandMade) -> None:
    request = service_pb2.ModelInferRequest(model_name="topik", id="seven")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        (answer,) = stub.ModelStreamInfer(iter([request]))
        assert answer.infer_response.id == "seven"
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ModelStreamInfer(iter([request]), metadata=(("triton_grpc_error", "true"),)))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_tritons_asyncio_client_streams(server: Addresses, local: Engine, features: HandMade) -> None:
    asked = questions(features, 20)

    async def ask() -> list[tuple[Any, Any]]:
        async def inputs() -> AsyncIterator[dict[str, Any]]:
            for name, array in asked:
                yield {"model_name": name, "inputs": [tensor(array)]}

        async with triton_aio.InferenceServerClient(server.grpc) as client:
            return [pair async for pair in client.stream_infer(inputs())]

    answers = asyncio.run(ask())
    assert len(answers) == len(asked)
    for (name, array), (result, error) in zip(asked, answers, strict=True):
        assert error is None
        np.testing.assert_allclose(
            result.as_numpy("scores"), local.predict(name, array).scores, rtol=1e-5, atol=1e-6
        )


def with_server(made: HandMade, work: Callable[[Any, GrpcServer, Batcher, Gate], Awaitable[None]]) -> None:
    """Run work with a stub, a server whose engine waits, and its batcher."""

    async def run() -> None:
        engine = load(made.path, threads=1)
        gate = Gate(engine)
        models = Models(Batcher(engine), max_rows=64)
        models.ready = True
        server = GrpcServer(models, host="127.0.0.1", port=0, max_body=1 << 20)
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                await work(
                    service_pb2_grpc.GRPCInferenceServiceStub(channel), server, models.current.batcher, gate
                )
            finally:
                gate.open()
        await server.stop(1)
        await models.current.batcher.close()

    asyncio.run(run())


def question(identifier: str = "") -> Any:
    request = service_pb2.ModelInferRequest(model_name="topic", id=identifier)
    request.inputs.add(name="features", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.ones(4, dtype=np.float32).tobytes())
    return request


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


def test_a_stopping_server_answers_what_its_streams_were_asked_and_ends_them(features: HandMade) -> None:
    async def ask(stub: Any, server: GrpcServer, batcher: Batcher, gate: Gate) -> None:
        stream = stub.ModelStreamInfer()
        for number in range(3):
            await stream.write(question(str(number)))
        await until(lambda: batcher.waiting == 3)
        stopping = asyncio.ensure_future(server.stop(20))
        await asyncio.sleep(0.05)
        gate.open()
        seen = [(await stream.read()).infer_response.id for _ in range(3)]
        assert seen == ["0", "1", "2"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in caught.value.details()
        await asyncio.wait_for(stopping, timeout=5)

    with_server(features, ask)


def test_the_questions_of_a_cancelled_stream_are_dropped(features: HandMade) -> None:
    async def ask(stub: Any, server: GrpcServer, batcher: Batcher, gate: Gate) -> None:
        stream = stub.ModelStreamInfer()
        for _ in range(3):
            await stream.write(question())
        await until(lambda: batcher.waiting == 3)
        stream.cancel()
        await until(lambda: batcher.waiting == 0)

    with_server(features, ask)


def test_a_stream_reads_only_so_far_ahead_and_keeps_the_order() -> None:
    read, at_work, answered = 0, 0, asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        nonlocal read
        for number in range(20):
            read += 1
            yield number

    async def answer(number: int) -> int:
        nonlocal at_work
        at_work += 1
        await answered.wait()
        await asyncio.sleep(0.001 * (number % 3))
        return number

    async def run() -> list[int]:
        stream = in_order(numbers(), answer, asyncio.Event(), ahead=5)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.02)
        assert (read, at_work) == (6, 5)  # five have room; the sixth waits for it
        answered.set()
        return [await first, *[number async for number in stream]]

    assert asyncio.run(run()) == list(range(20))


def test_a_stream_that_is_closed_early_leaves_nothing_at_work() -> None:
    async def endless() -> AsyncIterator[int]:
        for number in itertools.count():
            yield number

    async def answer(number: int) -> int:
        await asyncio.sleep(60 * number)  # the first is answered at once, the others never
        return number

    async def run() -> int:
        before = asyncio.all_tasks()
        stream = in_order(endless(), answer, asyncio.Event(), ahead=5)
        await anext(stream)
        await stream.aclose()
        await asyncio.sleep(0.01)
        return len(asyncio.all_tasks() - before)

    assert asyncio.run(run()) == 0


def test_an_error_of_the_client_ends_the_stream_after_what_was_asked() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise UnavailableError("gone")

    async def answer(number: int) -> int:
        await asyncio.sleep(0.01)
        return number

    async def run() -> list[int]:
        stream = in_order(broken(), answer, asyncio.Event())
        seen = [await anext(stream)]
        with pytest.raises(UnavailableError, match="gone"):
            await anext(stream)
        return seen

    assert asyncio.run(run()) == [1]


def test_a_client_that_wants_a_status_gets_it(server: Addresses, features: HandMade) -> None:
    seen: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(
            lambda result, error: seen.put((result, error)), headers={"triton_grpc_error": "true"}
        )
        client.async_stream_infer("topik", [tensor(features.inputs(1))])
        _, error = seen.get(timeout=10)
        client.stop_stream(cancel_requests=True)
    assert isinstance(error, InferenceServerException)
    assert error.status() == "StatusCode.NOT_FOUND"
