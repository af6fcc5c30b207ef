"""The router in two parts: the dispatch ahead of the states, and nothing of it left in the other part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from tests.exporter.conftest import Exported, publish
from tests.exporter.models import MODELS

from coterie.exporter import _export
from coterie.exporter._divide import Parts, divide
from coterie.exporter._verify import DividedRouter
from coterie.runtime.errors import ParityError

Get = Callable[[str], Exported]

SIZED_BY_VALUES = {"NonZero", "ScatterElements", "CumSum", "Range", "Unique", "Compress"}
"""Operators of a dispatch; on a device, the host waits for the numbers that some of them compute."""


def graph_of(bundle: Exported, file: str) -> ir.Graph:
    return ir.load(bundle.folder / file).graph


def sources(value: ir.Value | None, stop: str) -> set[str]:
    """Return the graph inputs that a value depends on, not looking behind nodes of one type."""
    if value is None or value.is_initializer():
        return set()
    node = value.producer()
    if node is None:
        return {str(value.name)}
    return set() if node.op_type == stop else {name for each in node.inputs for name in sources(each, stop)}


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("inputs", "questions"), [(0, 0), (3, 0), (1, 1), (1, 9), (6, 25), (4, 2)])
def test_the_parts_answer_as_the_router(exported: Get, name: str, inputs: int, questions: int) -> None:
    bundle = exported(name)
    generator = np.random.default_rng(questions)
    row = generator.integers(0, max(inputs, 1), questions)
    task = generator.integers(0, len(bundle.model.tasks), questions)
    feeds = {**bundle.feeds(slice(inputs)), "row": row, "task": task}
    parts = bundle.manifest.router_parts
    assert parts is not None
    answer = DividedRouter(bundle.folder, parts.host, parts.device).run(feeds)
    router = bundle.session("router.onnx")
    for output, wanted in zip(router.get_outputs(), router.run(None, feeds), strict=True):
        np.testing.assert_allclose(answer[output.name], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_device_computes_no_dispatch(exported: Get, name: str) -> None:
    graph = graph_of(exported(name), "router.device.onnx")
    inputs = {spec.name for spec in exported(name).model.inputs}
    given = {value.name for value in graph.inputs} - inputs
    assert "row" not in given
    # What has an unfixed number of rows is sized by a tensor that the host has given, or by shapes alone.
    for node in graph:
        assert node.op_type not in SIZED_BY_VALUES
        if node.op_type == "Split" and len(node.inputs) > 1:
            assert sources(node.inputs[1], "Shape") <= given


@pytest.mark.parametrize("name", list(MODELS))
def test_the_dispatch_reads_no_weight_and_no_input(exported: Get, name: str) -> None:
    graph = graph_of(exported(name), "router.host.onnx")
    assert [value.name for value in graph.inputs] == ["count", "row", "task"]
    assert not any(isinstance(value.const_value, ir.ExternalTensor) for value in graph.initializers.values())
    wanted = {value.name: value.dtype for value in graph_of(exported(name), "router.device.onnx").inputs}
    assert all(value.dtype == wanted[value.name] for value in graph.outputs)


@pytest.mark.parametrize("name", list(MODELS))
def test_both_parts_hold_the_router_s_nodes_and_no_others(exported: Get, name: str) -> None:
    bundle = exported(name)
    router = {node.name for node in graph_of(bundle, "router.onnx")}
    host, device = (
        {node.name for node in graph_of(bundle, f"router.{part}.onnx")} for part in ("host", "device")
    )
    assert host | device <= router
    # The number of inputs is given to the host; what depends on that alone may be in both.
    assert router - (host | device) <= {"Shape"}
    assert len(host & device) <= 2


@pytest.mark.parametrize("name", ["features", "stitched", "columns", "lone"])
def test_a_row_out_of_range_is_refused_by_the_dispatch(exported: Get, name: str) -> None:
    session = exported(name).session("router.host.onnx")
    one = np.zeros(1, dtype=np.int64)
    session.run(None, {"count": one + 2, "row": one + 1, "task": one})
    with pytest.raises(InvalidArgument):
        session.run(None, {"count": one + 2, "row": one + 2, "task": one})


def test_a_task_out_of_range_is_refused_by_the_dispatch(exported: Get) -> None:
    one = np.zeros(1, dtype=np.int64)
    with pytest.raises(InvalidArgument):
        exported("shared").session("router.host.onnx").run(
            None, {"count": one + 1, "row": one, "task": one + 6}
        )


def test_parts_that_answer_otherwise_fail_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(router: ir.Model) -> Parts:
        parts = divide(router)
        graph = parts.device.graph
        (scores,) = (value for value in graph.outputs if value.name == "scores")
        node: Any = scores.producer()
        assert node.op_type == "Gemm"
        node.replace_input_with(2, None)  # its bias
        return parts

    publish(MODELS["lone"](), tmp_path / "right")
    monkeypatch.setattr(_export, "divide", wrong)
    with pytest.raises(ParityError, match=r"router\.device\.onnx"):
        publish(MODELS["lone"](), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
