"""The router runs a block once for each distinct state that a question needs, and no other block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tests.exporter.conftest import Exported
from tests.exporter.models import MODELS

Get = Callable[[str], Exported]


def block_sizes(bundle: Exported, folder: Path, stage: str, row: np.ndarray, task: np.ndarray) -> list[int]:
    """Return how many states each block of a stage was run on."""
    model = ir.load(bundle.folder / "router.onnx")
    found = [value for node in model.graph for value in node.outputs if value.name == f"{stage}/sizes"]
    (sizes,) = found
    sizes.type, sizes.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([None])
    model.graph.outputs.append(sizes)
    ir.external_data.load_to_model(model)
    ir.save(model, folder / "open.onnx")
    feeds = {**bundle.feeds(), "row": row, "task": task}
    (result,) = bundle.session("open.onnx", folder).run([f"{stage}/sizes"], feeds)
    return list(result)


def test_tasks_of_one_cluster_share_the_run_of_its_centroid(exported: Get, tmp_path: Path) -> None:
    bundle = exported("shared")
    task = np.arange(6)
    one = np.zeros(6, dtype=np.int64)
    assert block_sizes(bundle, tmp_path, "one", one, task) == [1, 1]
    # The second stage sees two states, one of each centroid; its middle block is asked about both.
    assert block_sizes(bundle, tmp_path, "two", one, task) == [1, 2, 1]


def test_equal_questions_run_once(exported: Get, tmp_path: Path) -> None:
    bundle = exported("shared")
    row, task = np.array([2, 2, 2, 5]), np.array([0, 0, 1, 0])
    assert block_sizes(bundle, tmp_path, "one", row, task) == [2, 0]
    assert block_sizes(bundle, tmp_path, "two", row, task) == [2, 0, 0]


@pytest.mark.parametrize("questions", [1, 12, 60])
def test_experts_run_once_for_each_distinct_input(exported: Get, tmp_path: Path, questions: int) -> None:
    bundle = exported("features")
    generator = np.random.default_rng(questions)
    row, task = generator.integers(0, 4, questions), generator.integers(0, 7, questions)
    uses = bundle.manifest.plan.stage("experts").uses
    needed = {(block, int(index)) for index, number in zip(row, task, strict=True) for block in uses[number]}
    sizes = block_sizes(bundle, tmp_path, "experts", row, task)
    assert sizes == [sum(block == own for own, _ in needed) for block in range(5)]


@pytest.mark.parametrize("name", list(MODELS))
def test_the_router_holds_each_block_once(exported: Get, name: str) -> None:
    bundle = exported(name)
    readers: dict[str, int] = {}
    for node in ir.traversal.RecursiveGraphIterator(ir.load(bundle.folder / "router.onnx").graph):
        for value in node.inputs:
            if value is not None and isinstance(value.const_value, ir.ExternalTensor):
                readers[value.name] = readers.get(value.name, 0) + 1
    assert readers
    assert set(readers.values()) == {1}


def test_blocks_that_cannot_take_zero_rows_are_guarded(exported: Get) -> None:
    bundle = exported("lstm")
    graph = ir.load(bundle.folder / "router.onnx").graph
    assert not any(node.op_type == "LSTM" for node in graph)
    assert sum(node.op_type == "If" for node in graph) == 3
    # Only the first of three blocks has rows: without the guard the process would end here.
    feeds = {"inputs": bundle.samples[:2], "row": np.array([1]), "task": np.array([0])}
    (scores,) = bundle.session("router.onnx").run(["scores"], feeds)
    np.testing.assert_allclose(scores, bundle.wanted(np.array([1]), np.array([0])), atol=1e-5)


def test_large_heads_are_not_copied_for_each_question(exported: Get, tmp_path: Path) -> None:
    bundle = exported("wide")
    gathered = [
        node.inputs[0].shape
        for node in ir.load(bundle.folder / "router.onnx").graph
        if node.op_type == "Gather" and isinstance(node.inputs[0].const_value, ir.ExternalTensor)
    ]
    assert gathered == [ir.Shape([2, 64, 3]), ir.Shape([2, 3])]
    # Two groups of one large head each, and one group of both small ones.
    sizes = block_sizes(bundle, tmp_path, "heads", np.zeros(5, dtype=np.int64), np.array([0, 1, 3, 3, 2]))
    assert sizes == [1, 1, 3]
