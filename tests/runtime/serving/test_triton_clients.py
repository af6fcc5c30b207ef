"""Triton's own clients, unmodified, against a real server, compared with the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

from coterie.runtime import Engine, load
from coterie.runtime.serving import Addresses

from ..handmade import HandMade, hammer


class Asker:
    """One transport of Triton's client; ``binary`` is how HTTP sends and wants its tensors."""

    def __init__(self, module: ModuleType, url: str, *, binary: bool | None = None) -> None:
        self.module = module
        self.client = module.InferenceServerClient(url)
        self._flags = {} if binary is None else {"binary_data": binary}

    def tensor(self, name: str, array: np.ndarray[Any, Any], datatype: str) -> Any:
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **self._flags)
        return tensor

    def ask(self, model: str, inputs: list[Any], outputs: list[str] | None = None, **more: Any) -> Any:
        wanted = outputs and [self.module.InferRequestedOutput(name, **self._flags) for name in outputs]
        return self.client.infer(model, inputs, outputs=wanted, **more)


def askers(addresses: Addresses) -> Iterator[tuple[str, Asker]]:
    yield "http-binary", Asker(triton_http, addresses.http, binary=True)
    yield "http-json", Asker(triton_http, addresses.http, binary=False)
    assert addresses.grpc is not None
    yield "grpc", Asker(triton_grpc, addresses.grpc)


@pytest.fixture(params=["http-binary", "http-json", "grpc"])
def asker(request: pytest.FixtureRequest, server: Addresses) -> Asker:
    return dict(askers(server))[request.param]


@pytest.fixture(params=["http-binary", "http-json", "grpc"])
def text_asker(request: pytest.FixtureRequest, text_server: Addresses) -> Asker:
    return dict(askers(text_server))[request.param]


@pytest.fixture(scope="module")
def local(features: HandMade) -> Engine:
    return load(features.path, threads=1)


def as_bytes(texts: list[str]) -> np.ndarray[Any, Any]:
    return np.array([text.encode() for text in texts], dtype=object)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_each_task_gives_the_engines_numbers(
    asker: Asker, local: Engine, features: HandMade, rows: int
) -> None:
    inputs = features.inputs(rows)
    for name in features.names:
        expected = local.predict(name, inputs)
        result = asker.ask(name, [asker.tensor("features", inputs, "FP32")])
        np.testing.assert_array_equal(result.as_numpy("scores"), expected.scores)
        if expected.probabilities is None:
            assert result.as_numpy("probabilities") is None
        else:
            np.testing.assert_array_equal(result.as_numpy("probabilities"), expected.probabilities)
        label = result.as_numpy("label")
        if expected.label is None:
            assert label is None
        elif label.dtype == np.uint8:
            np.testing.assert_array_equal(label, expected.label)
        else:
            assert [_text(item) for item in label] == expected.label.tolist()


@pytest.mark.parametrize("named", [True, False])
def test_the_router_gives_the_engines_numbers(
    asker: Asker, local: Engine, features: HandMade, named: bool
) -> None:
    rng = np.random.default_rng(5)
    inputs, row, task = features.inputs(3), rng.integers(0, 3, 8), rng.integers(0, 4, 8)
    expected = local.predict_many(inputs, row, task)
    tasks = as_bytes([features.names[index] for index in task]) if named else task
    result = asker.ask(
        "router",
        [
            asker.tensor("features", inputs, "FP32"),
            asker.tensor("row", row, "INT64"),
            asker.tensor("task", tasks, "BYTES" if named else "INT64"),
        ],
    )
    np.testing.assert_array_equal(result.as_numpy("scores"), expected.scores)
    np.testing.assert_array_equal(result.as_numpy("probabilities"), expected.probabilities)
    assert [_text(item) for item in result.as_numpy("label")] == expected.label_texts()


def test_the_router_needs_no_rows_when_each_question_has_its_input(
    asker: Asker, local: Engine, features: HandMade
) -> None:
    inputs = features.inputs(2)
    tensors = [
        asker.tensor("features", inputs, "FP32"),
        asker.tensor("task", as_bytes(["mood", "tags"]), "BYTES"),
    ]
    result = asker.ask("router", tensors, outputs=["scores"])
    np.testing.assert_array_equal(result.as_numpy("scores"), local.predict(["mood", "tags"], inputs).scores)
    assert result.as_numpy("probabilities") is None


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_texts_go_in_as_bytes(text_asker: Asker, texts: HandMade, shape: tuple[int, ...]) -> None:
    inputs = texts.inputs(3)
    expected = load(texts.path, threads=1)
    for name in texts.names:
        result = text_asker.ask(name, [text_asker.tensor("text", as_bytes(inputs).reshape(shape), "BYTES")])
        np.testing.assert_array_equal(result.as_numpy("scores"), expected.predict(name, inputs).scores)
    tensors = [
        text_asker.tensor("text", as_bytes(inputs[:1]), "BYTES"),
        text_asker.tensor("row", np.zeros(4, dtype=np.int64), "INT64"),
        text_asker.tensor("task", as_bytes(list(texts.names)), "BYTES"),
    ]
    fan_out = expected.predict_many(inputs[:1], [0] * 4, list(texts.names))
    np.testing.assert_array_equal(text_asker.ask("router", tensors).as_numpy("scores"), fan_out.scores)


def test_metadata_lists_every_tensor(asker: Asker, text_asker: Asker) -> None:
    topic = _metadata(asker, "topic")
    assert topic["inputs"] == [("features", "FP32", [-1, 4])]
    assert topic["outputs"] == [
        ("scores", "FP32", [-1, 3]),
        ("probabilities", "FP32", [-1, 3]),
        ("label", "BYTES", [-1]),
    ]
    assert _metadata(asker, "price")["outputs"] == [("scores", "FP32", [-1, 1])]
    assert _metadata(asker, "tags")["outputs"][2] == ("label", "UINT8", [-1, 3])
    assert _metadata(asker, "router")["inputs"][1:] == [("row", "INT64", [-1]), ("task", "BYTES", [-1])]
    assert _metadata(text_asker, "mood")["inputs"] == [("text", "BYTES", [-1])]


def test_server_and_models_are_live_and_ready(asker: Asker) -> None:
    client = asker.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("topic")
    assert client.is_model_ready("router", "1")
    metadata = client.get_server_metadata()
    name = metadata["name"] if isinstance(metadata, dict) else metadata.name
    assert name == "coterie"


def test_the_request_id_and_version_come_back(asker: Asker, features: HandMade) -> None:
    result = asker.ask(
        "mood",
        [asker.tensor("features", features.inputs(1), "FP32")],
        request_id="question-7",
        model_version="1",
        parameters={"of_no_meaning": 1},
    )
    response = result.get_response()
    get = response.get if isinstance(response, dict) else lambda key: getattr(response, key)
    assert (get("id"), get("model_name"), get("model_version")) == ("question-7", "mood", "1")


def wrong_questions(asker: Asker) -> list[tuple[str, str, list[Any], dict[str, Any]]]:
    def features(shape: tuple[int, ...] = (1, 4), dtype: Any = np.float32, datatype: str = "FP32") -> Any:
        return asker.tensor("features", np.zeros(shape, dtype=dtype), datatype)

    nan = asker.tensor("features", np.full((1, 4), 3e38, dtype=np.float32), "FP32")
    task = asker.tensor("task", np.array([4], dtype=np.int64), "INT64")
    unknown = asker.tensor("task", as_bytes(["topik"]), "BYTES")
    return [
        ("not_found", "topik", [features()], {}),
        ("not_found", "topic", [features()], {"model_version": "9"}),
        ("not_found", "router", [features(), unknown], {}),
        ("invalid", "topic", [features((1, 3))], {}),
        ("invalid", "topic", [features((4,))], {}),
        ("invalid", "topic", [features((1, 4), np.float64, "FP64")], {}),
        ("invalid", "topic", [features((1, 4), np.int64, "INT64")], {}),
        ("invalid", "topic", [nan], {}),
        ("invalid", "topic", [asker.tensor("pixels", np.zeros((1, 4), dtype=np.float32), "FP32")], {}),
        ("invalid", "topic", [features(), features()], {}),
        ("invalid", "topic", [features()], {"outputs": ["logits"]}),
        ("invalid", "price", [features()], {"outputs": ["label"]}),
        ("invalid", "router", [features()], {}),
        ("invalid", "router", [features(), task], {}),
        ("too_large", "topic", [features((65, 4))], {}),
    ]


STATUS = {
    "not_found": ("404", "StatusCode.NOT_FOUND"),
    "invalid": ("400", "StatusCode.INVALID_ARGUMENT"),
    "too_large": ("413", "StatusCode.RESOURCE_EXHAUSTED"),
}


def test_wrong_questions_are_refused_and_the_server_goes_on(
    asker: Asker, local: Engine, features: HandMade
) -> None:
    for expected, model, inputs, more in wrong_questions(asker):
        with pytest.raises(InferenceServerException) as caught:
            asker.ask(model, inputs, **more)
        assert caught.value.status() in STATUS[expected], (model, more, str(caught.value))
        message = caught.value.message()
        assert message
        assert "Traceback" not in message
        assert str(features.path.parent) not in message
        assert "/" not in message
    inputs = features.inputs(1)
    result = asker.ask("topic", [asker.tensor("features", inputs, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("scores"), local.predict("topic", inputs).scores)


def test_a_graph_that_fails_on_a_value_names_no_path(text_asker: Asker, texts: HandMade) -> None:
    with pytest.raises(InferenceServerException) as caught:
        text_asker.ask("topic", [text_asker.tensor("text", as_bytes(["unheard"]), "BYTES")])
    assert caught.value.status() in STATUS["invalid"]
    assert "/" not in caught.value.message()


def test_a_body_that_is_too_large_is_refused(asker: Asker) -> None:
    big = np.zeros((40_000, 4), dtype=np.float32)
    with pytest.raises(InferenceServerException) as caught:
        asker.ask("topic", [asker.tensor("features", big, "FP32")])
    assert caught.value.status() in STATUS["too_large"]


@pytest.mark.parametrize("module", [triton_http_aio, triton_grpc_aio], ids=["http", "grpc"])
def test_clients_of_an_event_loop_get_their_own_answers(
    server: Addresses, local: Engine, features: HandMade, module: ModuleType
) -> None:
    questions = [(name, features.inputs(1, seed)) for seed in range(5) for name in features.names]

    async def ask() -> list[Any]:
        async with module.InferenceServerClient(
            server.http if module is triton_http_aio else server.grpc
        ) as client:
            assert await client.is_model_ready("topic")
            asking = []
            for name, inputs in questions:
                tensor = module.InferInput("features", list(inputs.shape), "FP32")
                tensor.set_data_from_numpy(inputs)
                asking.append(client.infer(name, [tensor]))
            return [answer.as_numpy("scores") for answer in await asyncio.gather(*asking)]

    for question, scores in zip(questions, asyncio.run(ask()), strict=True):
        np.testing.assert_allclose(scores, local.predict(*question).scores, rtol=1e-5, atol=1e-6)


def test_clients_in_many_threads_get_their_own_answers(
    server: Addresses, local: Engine, features: HandMade
) -> None:
    questions = [(name, features.inputs(1, seed)) for seed in range(5) for name in features.names]
    assert server.grpc is not None
    client = triton_grpc.InferenceServerClient(server.grpc)

    def ask(question: tuple[str, np.ndarray[Any, Any]]) -> Any:
        name, inputs = question
        tensor = triton_grpc.InferInput("features", list(inputs.shape), "FP32")
        tensor.set_data_from_numpy(inputs)
        return client.infer(name, [tensor]).as_numpy("scores")

    expected = [local.predict(*question).scores for question in questions]
    for answers in hammer(ask, questions, threads=8):
        assert not isinstance(answers, Exception), answers
        for answer, scores in zip(answers, expected, strict=True):
            np.testing.assert_array_equal(answer, scores)


def _text(item: Any) -> str:
    # Triton's HTTP client gives the strings of JSON as they are, and those of binary data as bytes.
    return item.decode() if isinstance(item, bytes) else str(item)


def _metadata(asker: Asker, model: str) -> dict[str, list[tuple[str, str, list[int]]]]:
    raw = asker.client.get_model_metadata(model)
    if isinstance(raw, dict):
        return {
            key: [(item["name"], item["datatype"], item["shape"]) for item in raw[key]]
            for key in ("inputs", "outputs")
        }
    return {
        key: [(item.name, item.datatype, list(item.shape)) for item in getattr(raw, key)]
        for key in ("inputs", "outputs")
    }
