"""Task graphs and the router answer as the torch model does, whatever is asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.exporter.conftest import Exported
from tests.exporter.models import MODELS

from coterie.training.several import apply, take

Get = Callable[[str], Exported]


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 21])
def test_each_task_graph_answers_like_torch(exported: Get, name: str, rows: int) -> None:
    bundle = exported(name)
    feeds = bundle.feeds(slice(rows))
    inputs = apply(torch.from_numpy, take(bundle.samples, slice(rows)))
    for number, entry in enumerate(bundle.manifest.tasks):
        session = bundle.session(entry.graph)
        names = [value.name for value in session.get_outputs()]
        answer = dict(zip(names, session.run(None, feeds), strict=True))
        wanted = bundle.model.scores(number, inputs).numpy()
        assert answer["scores"].shape == (rows, entry.task.width)
        np.testing.assert_allclose(answer["scores"], wanted, rtol=1e-5, atol=1e-5)
        if entry.task.kind == "classification":
            expected = torch.softmax(torch.from_numpy(wanted), dim=1).numpy()
        elif entry.task.kind == "multilabel":
            expected = torch.sigmoid(torch.from_numpy(wanted)).numpy()
        else:
            assert "probabilities" not in answer
            continue
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("inputs", "questions"), [(0, 0), (5, 0), (1, 1), (1, 9), (21, 21), (7, 40)])
def test_the_router_answers_like_torch(exported: Get, name: str, inputs: int, questions: int) -> None:
    bundle = exported(name)
    generator = np.random.default_rng(inputs + questions)
    row = generator.integers(0, max(inputs, 1), questions)
    task = generator.integers(0, len(bundle.model.tasks), questions)
    session = bundle.session("router.onnx")
    feeds = {**bundle.feeds(slice(inputs)), "row": row, "task": task}
    (scores,) = session.run(["scores"], feeds)
    assert scores.shape == (questions, bundle.model.width)
    np.testing.assert_allclose(scores, bundle.wanted(row, task), rtol=1e-5, atol=1e-5)


def test_the_router_s_probabilities_are_each_tasks_own(exported: Get) -> None:
    bundle = exported("features")
    count = len(bundle.model.tasks)
    task = np.arange(count)
    feeds = {"inputs": bundle.samples[:1], "row": np.zeros(count, dtype=np.int64), "task": task}
    scores, probabilities = bundle.session("router.onnx").run(["scores", "probabilities"], feeds)
    for number, spec in enumerate(bundle.model.tasks):
        assert not scores[number, spec.width :].any()
        assert not probabilities[number, spec.width :].any()
        own = torch.from_numpy(scores[number, : spec.width])
        expected = {
            "classification": torch.softmax(own, dim=0),
            "multilabel": torch.sigmoid(own),
            "regression": torch.zeros_like(own),
        }[spec.kind]
        np.testing.assert_allclose(probabilities[number, : spec.width], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["bag", "textcnn"])
@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_token_sequences_may_have_any_length(exported: Get, name: str, length: int) -> None:
    bundle = exported(name)
    tokens = np.random.default_rng(length).integers(0, 40, (4, length))
    tokens[:, 0] = 3
    task = np.arange(4) % len(bundle.model.tasks)
    feeds = {"tokens": tokens, "row": np.arange(4), "task": task}
    (scores,) = bundle.session("router.onnx").run(["scores"], feeds)
    wanted = bundle.model(torch.from_numpy(tokens), torch.arange(4), torch.from_numpy(task)).numpy()
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)
    for number, entry in enumerate(bundle.manifest.tasks):
        (scores,) = bundle.session(entry.graph).run(["scores"], {"tokens": tokens})
        wanted = bundle.model.scores(number, torch.from_numpy(tokens)).numpy()
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("question", [{"row": 21, "task": 0}, {"row": 0, "task": 7}])
def test_a_row_or_task_out_of_range_is_an_error_not_another_answer(
    exported: Get, question: dict[str, int]
) -> None:
    bundle = exported("features")
    feeds = {"inputs": bundle.samples, **{name: np.array([number]) for name, number in question.items()}}
    with pytest.raises(Exception, match="out of data bounds"):
        bundle.session("router.onnx").run(None, feeds)


def test_the_graphs_signatures_are_the_contract_s(exported: Get) -> None:
    bundle = exported("features")
    router = bundle.session("router.onnx")
    assert [(value.name, value.type) for value in router.get_inputs()] == [
        ("inputs", "tensor(float)"),
        ("row", "tensor(int64)"),
        ("task", "tensor(int64)"),
    ]
    assert [(value.name, value.shape) for value in router.get_outputs()] == [
        ("scores", ["B", 5]),
        ("probabilities", ["B", 5]),
    ]
    regression = bundle.session(bundle.graph("e"))
    assert [(value.name, value.shape) for value in regression.get_outputs()] == [("scores", ["R", 2])]
