"""One number by every way there is: torch, plain ONNX Runtime, the engine, HTTP, gRPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from coterie.runtime import ROUTER, load
from coterie.runtime.serving import Addresses

from .conftest import Made, coterie

Scores = Mapping[str, np.ndarray[Any, Any]]

TOLERANCE = 1e-4


def check(project: Made, answer: Callable[[str], np.ndarray[Any, Any]]) -> None:
    for task in project.tasks:
        scores = answer(task.name)
        assert scores.shape == project.expected[task.name].shape
        np.testing.assert_allclose(scores, project.expected[task.name], rtol=0, atol=TOLERANCE)


def check_many(project: Made, scores: np.ndarray[Any, Any]) -> None:
    """Check scores [R * N, ..., C] of every task about every input, task by task."""
    rows = project.rows
    for at, task in enumerate(project.tasks):
        part = scores[at * rows : (at + 1) * rows]
        np.testing.assert_allclose(
            part[..., : task.width], project.expected[task.name], rtol=0, atol=TOLERANCE
        )
        assert not part[..., task.width :].any()


def every_question(project: Made) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rows, tasks = project.rows, len(project.tasks)
    return np.tile(np.arange(rows), tasks), np.repeat(np.arange(tasks), rows)


def session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def triton(transport: str, address: Addresses) -> tuple[Any, Any]:
    if transport == "HTTP":
        return triton_http, triton_http.InferenceServerClient(address.http)
    return triton_grpc, triton_grpc.InferenceServerClient(address.grpc)


def tensors(module: Any, project: Made, **more: np.ndarray[Any, Any]) -> list[Any]:
    """Return the project's inputs, raw as a client has them, and more inputs by name."""
    datatypes = {"float32": "FP32", "uint8": "UINT8"}
    arrays: dict[str, tuple[Any, str]] = {}
    for name, values in project.raw.items():
        if isinstance(values, list):
            texts = np.array([text.encode() for text in values], dtype=object)
            arrays["text" if len(project.raw) == 1 else name] = (texts, "BYTES")
        else:
            arrays[name] = (values, datatypes[str(values.dtype)])
    arrays |= {name: (array, "INT64") for name, array in more.items()}
    made = []
    for name, (array, datatype) in arrays.items():
        made.append(module.InferInput(name, list(array.shape), datatype))
        made[-1].set_data_from_numpy(array)
    return made


def test_the_features_hold_what_they_are_meant_to_test(made: dict[str, Made]) -> None:
    tasks = made["features"].tasks
    assert {task.kind for task in tasks} == {"classification", "multilabel", "regression"}
    assert {task.width for task in tasks if task.kind == "classification"} == {2, 3, 5}
    kinds = [stage.kind for stage in made["features"].run.model.plan().stages]
    assert kinds == ["hard", "hard", "gated", "cluster", "cluster", "head"]  # the first one standardises


def test_every_project_mixes_experts_and_clusters_tasks(project: Made) -> None:
    plan = project.run.model.plan()
    assert any(stage.mixes for stage in plan.stages)
    assert any(stage.kind == "cluster" and len(stage.blocks) < stage.trained_blocks for stage in plan.stages)


def test_the_frozen_model(project: Made) -> None:
    frozen = project.run.model.freeze()
    names = [task.name for task in project.tasks]
    check(project, lambda task: frozen.scores(names.index(task), project.tensors).numpy())


def test_task_graphs_in_plain_onnx_runtime(project: Made) -> None:
    manifest = project.engine.bundle.manifest
    graphs = {entry.task.name: entry.graph for entry in manifest.tasks}
    check(project, lambda task: session(project.bundle / graphs[task]).run(["scores"], project.feeds)[0])


def test_the_router_graph_in_plain_onnx_runtime(project: Made) -> None:
    manifest = project.engine.bundle.manifest
    row, task = every_question(project)
    feeds = {**project.feeds, "row": row, "task": task}
    check_many(project, session(project.bundle / manifest.router).run(["scores"], feeds)[0])


@pytest.mark.parametrize("mode", ["router", "task"])
def test_the_engine(project: Made, mode: Any) -> None:
    engine = load(project.bundle, mode=mode, threads=1)
    check(project, lambda task: engine.predict(task, project.inputs).scores)
    check_many(project, engine.predict_many(project.inputs, *every_question(project)).scores)


@pytest.mark.parametrize("transport", ["HTTP", "gRPC"])
def test_each_task_as_a_model_through_tritonclient(project: Made, address: Addresses, transport: str) -> None:
    module, client = triton(transport, address)
    inputs = tensors(module, project)
    check(project, lambda task: client.infer(task, inputs).as_numpy("scores"))


@pytest.mark.parametrize("transport", ["HTTP", "gRPC"])
def test_the_router_as_a_model_through_tritonclient(
    project: Made, address: Addresses, transport: str
) -> None:
    module, client = triton(transport, address)
    row, task = every_question(project)
    result = client.infer(ROUTER, tensors(module, project, row=row, task=task))
    check_many(project, result.as_numpy("scores"))


def rows_of(lists: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return several inputs as a list of objects, one for each row."""
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def test_plain_json(project: Made, address: Addresses) -> None:
    lists = {
        name: given if isinstance(given, list) else given.tolist() for name, given in project.raw.items()
    }
    (inputs,) = lists.values() if len(lists) == 1 else [rows_of(lists)]
    answers = httpx.post(f"http://{address.http}/ask", json={"inputs": inputs}, timeout=30).json()["answers"]
    assert len(answers) == len(inputs)

    def scores(task: str) -> np.ndarray[Any, Any]:
        found = project.expected[task].copy()  # what stands past a sentence's last word is not told
        for number, answer in enumerate(answers):
            given = answer[task]["scores"]
            words = given if isinstance(given, list) else [given]
            found[number].reshape(-1, found.shape[-1])[: len(words)] = [list(each.values()) for each in words]
        return found

    check(project, scores)
    for answer in answers:
        for task in project.tasks:
            given = answer[task.name]
            if task.kind == "classification":
                assert given["label"] == max(given["probabilities"], key=given["probabilities"].get)
                assert sum(given["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            elif task.kind == "regression":
                assert given["probabilities"] is None


def test_a_standalone_file_needs_no_other(project: Made, tmp_path: Path) -> None:
    def alone(task: str) -> np.ndarray[Any, Any]:
        file = tmp_path / "alone.onnx"
        coterie("export", project.bundle, "--standalone", task, "-o", file)
        assert [path.name for path in tmp_path.iterdir()] == ["alone.onnx"]
        scores: np.ndarray[Any, Any] = session(file).run(["scores"], project.feeds)[0]
        return scores

    check(project, alone)


def test_raw_text_over_http_is_understood(made: dict[str, Made], served: dict[str, Addresses]) -> None:
    good_and_bad = ["a fine lovely great gripping books", "dull awful poor long books"]
    body = {"task": "books", "inputs": good_and_bad}
    answer = httpx.post(f"http://{served['texts'].http}/predict", json=body, timeout=30).json()
    assert [each["label"] for each in answer["answers"]] == ["good", "bad"]


def test_each_word_has_a_tag_by_every_way_of_asking(
    made: dict[str, Made], served: dict[str, Addresses]
) -> None:
    project, address = made["taggings"], served["taggings"]
    lists = [text.split() for text in project.inputs]
    local = project.engine.predict("class", lists)
    wanted = [list(result.label or ()) for result in local]
    assert [len(tags) for tags in wanted] == [3, 5, 1, 3]
    assert wanted[0] == ["DET", "NOUN", "VERB"]
    assert [result.label for result in project.engine.predict("class", project.inputs)] == list(
        map(tuple, wanted)
    )
    for transport in ("HTTP", "gRPC"):
        module, client = triton(transport, address)
        assert client.get_model_metadata("class") is not None
        tags = client.infer("class", tensors(module, project)).as_numpy("label")
        assert tags.shape == (4, 5)
        texts = [[tag.decode() for tag in row] for row in tags]
        assert texts == [[*row, *[""] * (5 - len(row))] for row in wanted]
        row, task = every_question(project)
        every = client.infer(ROUTER, tensors(module, project, row=row, task=task)).as_numpy("label")
        assert (every[:4] == tags).all()
    for inputs in (project.inputs, lists):
        body = {"task": "class", "inputs": inputs}
        answer = httpx.post(f"http://{address.http}/predict", json=body, timeout=30).json()["answers"]
        assert [each["label"] for each in answer] == wanted
        assert [len(each["probabilities"]) for each in answer] == [3, 5, 1, 3]
    assert "DET NOUN VERB" in coterie("predict", project.bundle, "--text", project.inputs[0])
