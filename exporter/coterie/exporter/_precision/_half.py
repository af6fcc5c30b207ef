"""What a traced block becomes in fp16 and bf16.

fp16 is stored and computed in, from the block's border to its other border; between blocks, where states are
mixed, they are fp32. ONNX Runtime has fp16 kernels for GPUs; on a CPU it casts to fp32 around nearly every
node.

bf16 is stored alone: ONNX Runtime's CPU provider has no bf16 matrix product and refuses such a graph, and a
bundle that cannot be run here cannot be checked here. The graph casts the weights to fp32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from coterie.exporter._builder import GraphBuilder, Lowering
from coterie.exporter._precision._rewrite import Part, Rewrite, float_weights
from coterie.exporter._trace import Trace
from coterie.exporter._weights import Array

BF16 = ir.DataType.BFLOAT16.numpy()

_RETYPED = {"Cast": "to", "ConstantOfShape": "value"}
"""Nodes whose results have a type of their own, and the attribute that says which."""

_NO_FP16 = frozenset({"Range", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})


def to_fp16(array: Array) -> Array:
    """Return a float32 tensor as fp16; what is too large or too small becomes the largest or smallest.

    A mask of -3e38 must not become an infinity, and the small number that keeps a divisor from being 0 no 0.
    """
    limits = np.finfo(np.float16)
    narrow = np.clip(array, limits.min, limits.max).astype(np.float16)
    lost = (narrow == 0) & (array != 0) & np.isfinite(array)
    narrow = np.where(lost, np.copysign(limits.tiny, array).astype(np.float16), narrow)
    return np.where(np.isinf(array), array.astype(np.float16), narrow).reshape(array.shape)


def to_bf16(array: Array) -> Array:
    """Return a float32 tensor as bf16, rounded to nearest."""
    return array.astype(BF16)


def bf16_rewrite(trace: Trace) -> Rewrite | None:
    """Return how a traced block is stored in bf16; None where it has no weights."""
    parts, widened = {}, {}
    for value in float_weights(trace):
        if value not in trace.constants:
            stored = ir.Value(name="bf16")
            parts[value] = (Part(stored, "", to_bf16),)
            widened[value] = stored
    return Rewrite("bf16", parts, widened=widened) if parts else None


def fp16_rewrite(trace: Trace) -> Rewrite | None:
    """Return how a traced block computes in fp16; None where it has no weights, or cannot."""
    weights = float_weights(trace)
    branches = any(
        attribute.type == ir.AttributeType.GRAPH
        for node in trace.body
        for attribute in node.attributes.values()
    )
    if branches or all(value in trace.constants for value in weights):
        return None
    lowered: dict[ir.Node, Lowering] = {}
    for node in trace.body:
        if node.op_type in _NO_FP16 and node.outputs[0].dtype == ir.DataType.FLOAT:
            return None
        if _makes_float(node):
            lowered[node] = _retyped(node)
    return Rewrite("fp16", {value: (Part(value, "", to_fp16),) for value in weights}, lowered, half=True)


def _makes_float(node: ir.Node) -> bool:
    """Return whether a node makes float32 of something else, because an attribute says so."""
    attribute = node.attributes.get(_RETYPED.get(node.op_type, ""))
    if node.op_type == "Cast":
        return attribute is not None and attribute.as_int() == ir.DataType.FLOAT
    if node.op_type == "ConstantOfShape":
        return attribute is None or attribute.as_tensor().dtype == ir.DataType.FLOAT
    return False


def _retyped(node: ir.Node) -> Lowering:
    inputs = node.inputs
    (given,) = (value for value in inputs if value is not None)
    attribute = node.attributes.get("value")
    fill = np.zeros(1, dtype=np.float32) if attribute is None else attribute.as_tensor().numpy()

    def lower(builder: GraphBuilder, known: Mapping[ir.Value, ir.Value]) -> ir.Value:
        if node.op_type == "Cast":
            return builder.op("Cast", known[given], to=int(ir.DataType.FLOAT16))
        return builder.op("ConstantOfShape", known[given], value=ir.tensor(to_fp16(fill)))

    return lower
