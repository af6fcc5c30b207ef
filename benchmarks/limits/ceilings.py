"""What one thread of this machine can do: products of matrices, and reading memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

_READ_BYTES = 512 * 1024 * 1024
_SECONDS = 0.5


def gemm(rows: int, width: int, folder: Path) -> float:
    """Return the FLOP a second of ``[rows, width] @ [width, width]``, in ONNX Runtime, weights prepacked.

    The best of many runs: a ceiling is what is possible, not what is usual. Sixteen products follow each
    other in the graph, so that what a run costs beside them does not count.
    """
    depth = 16
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((width, width)) / width**0.5).astype(np.float32)
    nodes = [helper.make_node("MatMul", [f"x{step}", f"w{step}"], [f"x{step + 1}"]) for step in range(depth)]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [rows, width])],
        [helper.make_tensor_value_info(f"x{depth}", TensorProto.FLOAT, [rows, width])],
        [onnx.numpy_helper.from_array(weight, f"w{step}") for step in range(depth)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = folder / f"products-{rows}.onnx"
    onnx.save(model, file)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = {"x0": rng.standard_normal((rows, width)).astype(np.float32)}
    return 2.0 * rows * width * width * depth / best(lambda: session.run(None, inputs))


def memory() -> float:
    """Return the bytes a second at which one thread reads an array that no cache holds."""
    values = np.ones(_READ_BYTES // 8)
    return _READ_BYTES / best(lambda: np.max(values))


def best(run: Callable[[], object], seconds: float = _SECONDS) -> float:
    """Return the shortest time of a run, of at least five."""
    run()
    shortest, count, end = float("inf"), 0, time.perf_counter() + seconds
    while count < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        run()
        shortest = min(shortest, time.perf_counter() - began)
        count += 1
    return shortest
