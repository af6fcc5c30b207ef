"""Triton's extensions of the protocol, with Triton's own clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from coterie.runtime import Engine, load
from coterie.runtime.batching import Batcher
from coterie.runtime.engine import Prediction
from coterie.runtime.serving import Addresses, running_server
from coterie.runtime.serving.models._classification import classify
from coterie.runtime.serving.models._metadata import EXTENSIONS
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._questions import Question
from coterie.runtime.serving.models._tensors import Tensor
from coterie.runtime.tasks import TaskSpec

from ..gate import Gate
from ..handmade import TASKS, HandMade


class Asker:
    """One transport of Triton's client, whose answers to other calls than inference are dictionaries."""

    def __init__(self, module: ModuleType, url: str) -> None:
        self.module = module
        self.client = module.InferenceServerClient(url)
        self._as_dict = {"as_json": True} if module is triton_grpc else {}

    def classes(self, model: str, arrays: dict[str, np.ndarray[Any, Any]], output: str, count: int) -> Any:
        inputs = []
        for name, array in arrays.items():
            datatype = "BYTES" if array.dtype == object else {"f": "FP32", "i": "INT64"}[array.dtype.kind]
            inputs.append(self.module.InferInput(name, list(array.shape), datatype))
            inputs[-1].set_data_from_numpy(array)
        wanted = [self.module.InferRequestedOutput(output, class_count=count)]
        return self.client.infer(model, inputs, outputs=wanted).as_numpy(output)

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self.client, name)(*arguments, **self._as_dict)


@pytest.fixture(params=["http", "grpc"])
def asker(request: pytest.FixtureRequest, server: Addresses) -> Asker:
    return asker_of(request.param, server)


def asker_of(transport: str, addresses: Addresses) -> Asker:
    if transport == "http":
        return Asker(triton_http, addresses.http)
    assert addresses.grpc is not None
    return Asker(triton_grpc, addresses.grpc)


@pytest.fixture(scope="module")
def local(features: HandMade) -> Engine:
    return load(features.path, threads=1)


@pytest.mark.parametrize("name", ["topic", "mood", "tags", "price"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_classes_come_best_first_with_value_index_and_label(
    asker: Asker, local: Engine, features: HandMade, name: str, count: int
) -> None:
    inputs = features.inputs(4)
    spec = TASKS[features.names.index(name)]
    scores = local.predict(name, inputs).scores
    answer = asker.classes(name, {"features": inputs}, "scores", count)
    assert answer.shape == (4, min(count, spec.width))
    for row, own in zip(answer, scores, strict=True):
        assert_best_first(row.tolist(), own, spec)


def assert_best_first(texts: list[bytes], scores: np.ndarray[Any, Any], spec: TaskSpec) -> None:
    order = sorted(range(spec.width), key=lambda index: -scores[index])[: len(texts)]
    for text, index in zip(texts, order, strict=True):
        value, place, label = text.decode().split(":")
        assert (int(place), label) == (index, spec.labels[index])
        assert float(value) == pytest.approx(scores[index], abs=2e-6)


def test_the_router_names_the_classes_of_each_question_s_own_task(
    asker: Asker, local: Engine, features: HandMade
) -> None:
    # All of mood's scores may be below the 0 that stands past its two classes.
    inputs = features.inputs(1) - 5
    arrays = {
        "features": inputs,
        "row": np.zeros(4, dtype=np.int64),
        "task": np.array([name.encode() for name in features.names], dtype=object),
    }
    answer = asker.classes("router", arrays, "scores", 3)
    assert answer.shape == (4, 3)
    for row, spec in zip(answer, TASKS, strict=True):
        own = local.predict(spec.name, inputs).scores[0]
        assert_best_first(row[: spec.width].tolist(), own, spec)
        assert set(row[spec.width :].tolist()) <= {b""}


def test_each_word_of_a_tagging_has_its_classes() -> None:
    spec = TaskSpec(name="words", kind="tagging", labels=("a", "b", "c"))
    scores = np.array([[[1, 2, 0], [3, 3, 4]], [[0, 0, 1], [9, 9, 9]]], dtype=np.float32)
    prediction = Prediction((spec,), np.zeros(2, dtype=np.int64), scores, scores, np.array([2, 1]))
    answer = classify(prediction, scores, 2)
    assert answer.tolist() == [
        [[b"2.000000:1:b", b"1.000000:0:a"], [b"4.000000:2:c", b"3.000000:0:a"]],
        [[b"1.000000:2:c", b"0.000000:0:a"], [b"", b""]],
    ]


def test_a_label_has_no_classes(asker: Asker, features: HandMade) -> None:
    with pytest.raises(InferenceServerException, match="no classes to choose from"):
        asker.classes("topic", {"features": features.inputs(1)}, "label", 2)


@pytest.fixture(scope="module")
def fresh(features: HandMade) -> Iterator[Addresses]:
    """A server that nobody else asks: its statistics are what a test made of them."""
    with running_server(features.path, threads=1) as addresses:
        yield addresses


def statistics(asker: Asker, *model: str) -> dict[str, dict[str, Any]]:
    listed = asker.call("get_inference_statistics", *model)["model_stats"]
    return {each["name"]: numbers(each) for each in listed}


def numbers(value: Any) -> Any:
    """Return a message's numbers as such: the JSON of protobuf has those of 64 bits as strings."""
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbers(each) for each in value]
    return int(value) if isinstance(value, str) and value.isdigit() else value


def test_statistics_count_what_was_asked_and_how_long_it_took(fresh: Addresses, features: HandMade) -> None:
    http, grpc = (asker_of(transport, fresh) for transport in ("http", "grpc"))
    for asker, rows in ((http, 2), (grpc, 3)):
        asker.classes("topic", {"features": features.inputs(rows)}, "scores", 1)
        with pytest.raises(InferenceServerException):
            asker.classes("topic", {"features": features.inputs(1)[:, :3]}, "scores", 1)
    for asker in (http, grpc):
        topic = statistics(asker, "topic")["topic"]
        assert (topic["inference_count"], topic["execution_count"]) == (5, 2)
        assert topic["last_inference"] > 1_600_000_000_000
        spent = topic["inference_stats"]
        counts = {name: each["count"] for name, each in spent.items()}
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        assert counts == {"success": 2, "fail": 2, **dict.fromkeys(parts, 2)}
        assert spent["success"]["ns"] == pytest.approx(sum(spent[part]["ns"] for part in parts), rel=0.01)
        assert all(0 < spent[part]["ns"] < 10e9 for part in parts)
        assert {each["batch_size"]: each["compute_infer"]["count"] for each in topic["batch_stats"]} == {
            2: 1,
            3: 1,
        }
        every = statistics(asker)
        assert set(every) == {*features.names, "router"}
        assert every["topic"] == topic
        assert every["price"].get("inference_count", 0) == 0


def test_a_run_is_counted_once_however_many_requests_it_answers(features: HandMade) -> None:
    async def ask() -> tuple[dict[str, Any], dict[str, Any]]:
        engine = load(features.path, threads=1)
        gate = Gate(engine)
        models = Models(Batcher(engine), max_rows=64)
        models.ready = True
        inputs = {"features": Tensor("FP32", features.inputs(1))}
        asked = [Question(name, inputs) for name in ("mood", "topic", "mood", "mood", "topic")]
        asking = [asyncio.ensure_future(models.answer(asked[0], transport="http"))]
        await gate.busy()  # the first runs alone, and the others together after it
        asking += [asyncio.ensure_future(models.answer(each, transport="http")) for each in asked[1:]]
        while models.current.batcher.waiting < len(asked):
            await asyncio.sleep(0.001)
        gate.open()
        await asyncio.gather(*asking)
        await models.current.batcher.close()
        return models.statistics("mood")[0], models.statistics("topic")[0]

    mood, topic = asyncio.run(ask())
    assert (mood["inference_count"], mood["execution_count"]) == (3, 2)
    assert (topic["inference_count"], topic["execution_count"]) == (2, 1)
    assert [each["batch_size"] for each in mood["batch_stats"]] == [1, 4]
    assert [each["batch_size"] for each in topic["batch_stats"]] == [4]
    assert topic["inference_stats"]["queue"]["ns"] > 0


def test_an_unknown_model_has_no_statistics(asker: Asker) -> None:
    with pytest.raises(InferenceServerException, match="did you mean 'topic'"):
        asker.call("get_inference_statistics", "topik")


def test_the_index_lists_every_model(asker: Asker, features: HandMade) -> None:
    index = asker.call("get_model_repository_index")
    models = index["models"] if isinstance(index, dict) else index
    assert {(each["name"], each["version"], each["state"]) for each in models} == {
        (name, "1", "READY") for name in (*features.names, "router")
    }


def test_a_model_is_not_loaded_or_unloaded_at_a_client_s_word(asker: Asker) -> None:
    for call in (asker.client.load_model, asker.client.unload_model):
        with pytest.raises(InferenceServerException, match="whoever runs it") as caught:
            call("topic")
        assert caught.value.status() in ("403", "StatusCode.PERMISSION_DENIED")
    with pytest.raises(InferenceServerException, match="whoever runs it"):
        asker.client.load_model("topic", config="{}", files={"file:1/model.onnx": b"x"})
    assert asker.client.is_model_ready("topic")


def test_the_configuration_is_of_the_models_inputs_and_outputs(asker: Asker) -> None:
    configured = asker.call("get_model_config", "router")
    config = numbers(configured.get("config", configured))
    assert (config["name"], config["backend"], config.get("max_batch_size", 0)) == (
        "router",
        "onnxruntime",
        0,
    )
    assert [(each["name"], each["data_type"]) for each in config["input"]] == [
        ("features", "TYPE_FP32"),
        ("row", "TYPE_INT64"),
        ("task", "TYPE_STRING"),
    ]
    assert [each.get("optional", False) for each in config["input"]] == [False, True, False]
    assert [int(dim) for dim in config["output"][0]["dims"]] == [-1, 3]


def test_the_server_lists_its_extensions(asker: Asker) -> None:
    assert asker.call("get_server_metadata")["extensions"] == list(EXTENSIONS)
