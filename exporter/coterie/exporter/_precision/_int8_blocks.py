"""What a traced block becomes in int8: which weights are stored so, and which nodes compute with them.

A matrix is multiplied by states (`MatMul`, `Gemm`), a table is looked up by ids (`Gather`, `GatherND`). Other
weights keep fp32: convolutions, because ONNX Runtime's integer kernels for them are slower than its fp32
ones; recurrences, because their integer kernel has one scale for a whole batch, so that a row's answer would
depend on its neighbours; and tensors too small for an integer kernel to be faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from coterie.exporter._builder import GraphBuilder, Lowering
from coterie.exporter._precision import _int8
from coterie.exporter._precision._rewrite import Part, Rewrite, float_weights
from coterie.exporter._trace import Trace, values_read
from coterie.exporter._weights import Array

SMALLEST_MATRIX = 1 << 14
"""Below this, quantising the states costs more than the faster product saves (measured: 128 x 128)."""

SMALLEST_TABLE = 1 << 12
"""Below this, a table is not worth its two further nodes."""


def int8_rewrite(trace: Trace) -> Rewrite | None:
    """Return how a traced block computes in int8; None where it has no weight that would."""
    parts: dict[ir.Value, Sequence[Part]] = {}
    lowered: dict[ir.Node, Lowering] = {}
    readers = _readers(trace.body)
    for value in float_weights(trace):
        nodes = readers.get(value, [])
        for kind in (_Matrix, _Table):
            if nodes and all(kind.reads(node, value) for node in nodes) and kind.fits(nodes, value):
                weight = kind(nodes, value)
                parts[value] = weight.parts
                lowered.update({node: weight.lowering(node) for node in nodes})
    return Rewrite("int8", parts, lowered) if parts else None


class _Weight:
    """A weight as int8 and what its integers are counted in.

    Attributes:
        parts: The integers, their scales, and in some the middles that they are counted from.
    """

    def __init__(self, split: Callable[[Array], Sequence[Array]], *suffixes: str) -> None:
        def take(index: int) -> Callable[[Array], Array]:
            return lambda array: split(array)[index]

        self.parts = tuple(
            Part(ir.Value(name=suffix), f".{suffix}", take(index)) for index, suffix in enumerate(suffixes)
        )

    def known(self, values: Mapping[ir.Value, ir.Value]) -> list[ir.Value]:
        """Return what stands for the parts in a graph."""
        return [values[part.value] for part in self.parts]


class _Matrix(_Weight):
    """``[D, C]``, or ``[C, D]`` in a `Gemm` that transposes it."""

    def __init__(self, nodes: Sequence[ir.Node], value: ir.Value) -> None:  # noqa: ARG002 - as the table's
        transposed = _transposed(nodes[0])

        def split(array: Array) -> tuple[Array, Array]:
            turned = np.ascontiguousarray(array.T) if transposed else array
            return _int8.quantise(turned, _int8.MATRIX_LEVELS, axis=0)

        super().__init__(split, "int8", "scale")

    @staticmethod
    def reads(node: ir.Node, value: ir.Value) -> bool:
        """Return whether a node multiplies states by the matrix, and does nothing else with it."""
        if node.op_type not in {"MatMul", "Gemm"} or node.domain or node.inputs[1] is not value:
            return False
        states = node.inputs[0]
        if states is value or states is None or states.shape is None or len(states.shape) < 2:
            return False
        if node.op_type == "MatMul":
            return True
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return bias is not value and all(
            _attribute(node, name, usual) == usual
            for name, usual in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
        )

    @staticmethod
    def fits(nodes: Sequence[ir.Node], value: ir.Value) -> bool:
        """Return whether integers are worth it, and all nodes take the matrix the same way round."""
        same = len({_transposed(node) for node in nodes}) == 1
        return same and len(value.shape or ()) == 2 and _numbers(value) >= SMALLEST_MATRIX

    def lowering(self, node: ir.Node) -> Lowering:
        states, bias = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
        if states is None or states.shape is None:
            raise AssertionError("only nodes with shapes are lowered")
        rank = len(states.shape)

        def lower(builder: GraphBuilder, known: Mapping[ir.Value, ir.Value]) -> ir.Value:
            weight, scale = self.known(known)
            product = _int8.matmul(builder, known[states], weight, scale, rank=rank)
            return product if bias is None else builder.op("Add", product, known[bias])

        return lower


class _Table(_Weight):
    """``[V, D]``, or a number for each id, ``[V]``."""

    def __init__(self, nodes: Sequence[ir.Node], value: ir.Value) -> None:  # noqa: ARG002 - as the matrix's
        self._shape = _sizes(value)
        if len(self._shape) == 1:
            super().__init__(_int8.quantise_numbers, "int8", "scale", "middle")
        else:
            super().__init__(_int8.quantise_rows, "int8", "scale")

    @staticmethod
    def reads(node: ir.Node, value: ir.Value) -> bool:
        """Return whether a node looks whole rows of the table up, and does nothing else with it."""
        if node.domain or node.inputs[0] is not value or node.inputs[1] is value:
            return False
        if node.op_type == "Gather":
            return _attribute(node, "axis", 0) == 0
        ids = node.inputs[1]
        if node.op_type != "GatherND" or ids is None or ids.shape is None:
            return False
        return _attribute(node, "batch_dims", 0) == 0 and ids.shape[-1] == 1

    @staticmethod
    def fits(nodes: Sequence[ir.Node], value: ir.Value) -> bool:  # noqa: ARG004 - as the matrix's
        """Return whether integers are worth it."""
        return len(value.shape or ()) in {1, 2} and _numbers(value) >= SMALLEST_TABLE

    def lowering(self, node: ir.Node) -> Lowering:
        ids, kind = node.inputs[1], node.op_type
        if ids is None:
            raise AssertionError("a look-up has ids")

        def lower(builder: GraphBuilder, known: Mapping[ir.Value, ir.Value]) -> ir.Value:
            rows, scales, *middles = self.known(known)
            stored = _int8.Table(rows, scales, middles[0] if middles else None, self._shape)
            if kind == "Gather":
                return stored.lookup(builder, known[ids])
            # Each id stands in an axis of its own there; ONNX Runtime's `Gather` is the faster one.
            own = builder.op("Squeeze", known[ids], builder.integers(-1))
            return stored.lookup(builder, own)

        return lower


def _readers(body: Iterable[ir.Node]) -> dict[ir.Value, list[ir.Node]]:
    """Return for each value the nodes that read it, themselves or in a branch."""
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in body:
        for value in values_read(node):
            readers.setdefault(value, []).append(node)
    return readers


def _transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and _attribute(node, "transB", 0) == 1


def _attribute(node: ir.Node, name: str, default: float) -> object:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _numbers(value: ir.Value) -> int:
    """Return how many numbers a tensor has; 0 where its shape is open."""
    return int(np.prod(_sizes(value), dtype=np.int64))


def _sizes(value: ir.Value) -> tuple[int, ...]:
    """Return a tensor's shape; an open size is 0."""
    return tuple(size if isinstance(size, int) else 0 for size in value.shape or ())
