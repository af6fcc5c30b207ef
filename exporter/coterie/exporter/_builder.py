"""Builds one ONNX graph node by node: constants once and inline, weights by reference to the weight file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
)

from coterie.exporter._trace import OPSET
from coterie.exporter._weights import Array, TensorRef, WeightFile

IR_VERSION = 8
"""The oldest that holds opset 18."""

Output = tuple[str, ir.Value, str, Sequence[int | str]]
"""A graph's output: name, value, dtype and shape; a dimension given as a name is of any size."""

Lowering = Callable[["GraphBuilder", Mapping[ir.Value, ir.Value]], ir.Value]
"""Adds what stands for a node: from what stands for each value it reads to its result."""

_Attribute = int | float | str | Sequence[int] | ir.TensorProtocol | ir.Graph


class GraphBuilder:
    """Collects the nodes of one graph.

    Args:
        name: The graph's name.
        weights: The weight file that the graph refers to; it lies beside the graph.
    """

    def __init__(self, name: str, weights: WeightFile) -> None:
        self._name = name
        self._weights = weights
        self._inputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._initializers: dict[object, ir.Value] = {}
        self._names: dict[str, int] = {}
        self._scope = ""

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put a name before those of the nodes and weights made within."""
        outer, self._scope = self._scope, f"{name}/"
        yield
        self._scope = outer

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
        """Add an input of the graph; a dimension given as a name is of any size."""
        self._names[name] = 1
        value = ir.Value(name=name, shape=ir.Shape(shape), type=_tensor_type(dtype))
        self._inputs.append(value)
        return value

    def constant(self, array: Array, name: str = "constant") -> ir.Value:
        """Return a constant that lies in the graph itself; equal ones are one."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._initializers:
            tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=self._unique(name))
            self._initializers[key] = _initializer(tensor, array.shape)
        return self._initializers[key]

    def integers(self, *numbers: int) -> ir.Value:
        """Return a constant vector of int64."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def weight(self, ref: TensorRef, name: str) -> ir.Value:
        """Return a tensor of the weight file; the name is used if it is the first to refer to that tensor."""
        if ref not in self._initializers:
            dtype = ir.DataType.from_numpy(np.dtype(ref.dtype))
            tensor = ir.ExternalTensor(
                self._weights.name,
                self._weights.offset(ref),
                ref.length,
                dtype,
                shape=ir.Shape(ref.shape),
                name=self._unique(self._scope + name),
            )
            self._initializers[ref] = _initializer(tensor, ref.shape)
        return self._initializers[ref]

    def op(
        self, op_type: str, *inputs: ir.Value | None, name: str = "", **attributes: _Attribute
    ) -> ir.Value:
        """Add a node with one output and return that."""
        return self.ops(op_type, *inputs, outputs=1, name=name, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: ir.Value | None, outputs: int, name: str = "", **attributes: _Attribute
    ) -> Sequence[ir.Value]:
        """Add a node with several outputs and return those."""
        made = [ir.convenience.convert_attribute(key, value) for key, value in attributes.items()]
        return self._add(ir.Node("", op_type, inputs, made, num_outputs=outputs), name).outputs

    def copy(
        self,
        nodes: Sequence[ir.Node],
        values: Mapping[ir.Value, ir.Value],
        lowered: Mapping[ir.Node, Lowering] = MappingProxyType({}),
    ) -> dict[ir.Value, ir.Value]:
        """Add copies of nodes that stand in another graph.

        Args:
            nodes: The nodes, each after those it reads.
            values: What stands here for each value that they read from outside.
            lowered: Nodes that others stand for here; they have one result.

        Returns:
            The same mapping, with the nodes' own outputs added.
        """
        known = dict(values)
        for node in nodes:
            if node in lowered:
                known[node.outputs[0]] = lowered[node](self, known)
                continue
            inputs = [None if value is None else known[value] for value in node.inputs]
            attributes = [_copy_attribute(attribute, known) for attribute in node.attributes.values()]
            copy = ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=len(node.outputs))
            known.update(zip(node.outputs, self._add(copy).outputs, strict=True))
        return known

    @contextlib.contextmanager
    def branch(self, outputs: list[ir.Value], graphs: list[ir.Graph], name: str) -> Iterator[None]:
        """Collect the nodes made within into a graph of their own, to be a branch of an ``If``.

        Args:
            outputs: Filled by the caller, within, with the branch's results.
            graphs: The branch is appended to it.
            name: Name of the branch.
        """
        outer, self._nodes = self._nodes, []
        yield
        graphs.append(ir.Graph([], outputs, nodes=self._nodes, name=self._unique(name)))
        self._nodes = outer

    def finish(self, outputs: Sequence[Output]) -> ir.Model:
        """Return the model.

        Args:
            outputs: In order.
        """
        results = []
        for name, value, dtype, shape in outputs:
            # A named copy: the value may be an input, or already carry another name.
            result = (
                value if value.producer() is not None and value not in results else self.op("Identity", value)
            )
            result.name = name
            result.shape, result.type = ir.Shape(shape), _tensor_type(dtype)
            results.append(result)
        graph = ir.Graph(
            self._inputs,
            results,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            name=self._name,
            opset_imports={"": OPSET},
        )
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="coterie")
        # Copied nodes leave their metadata behind, so there is none to clear.
        CommonSubexpressionEliminationPass()(model)
        RemoveUnusedNodesPass()(model)
        return model

    def _add(self, node: ir.Node, name: str = "") -> ir.Node:
        node.name = self._unique(self._scope + (name or node.op_type))
        for index, value in enumerate(node.outputs):
            value.name = node.name if index == 0 else f"{node.name}:{index}"
        self._nodes.append(node)
        return node

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self._unique(f"{name}_{count}")


def _tensor_type(dtype: str) -> ir.TensorType:
    return ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))


def _initializer(tensor: ir.TensorProtocol, shape: Sequence[int]) -> ir.Value:
    kind = ir.TensorType(tensor.dtype)
    return ir.Value(name=tensor.name, shape=ir.Shape(shape), type=kind, const_value=tensor)


def _copy_attribute(attribute: ir.Attr, known: Mapping[ir.Value, ir.Value]) -> ir.Attr:
    if attribute.type != ir.AttributeType.GRAPH:
        return attribute
    graph = attribute.as_graph().clone(allow_outer_scope_values=True)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for index, value in enumerate(node.inputs):
            if value is not None and value in known:
                node.replace_input_with(index, known[value])
    return ir.Attr(attribute.name, ir.AttributeType.GRAPH, graph)


def serialize(model: ir.Model) -> bytes:
    """Return a model as ONNX; what lies in the weight file stays there."""
    data: bytes = _message(model).SerializeToString(deterministic=True)
    return data


def length_without_weights(model: ir.Model) -> int:
    """Return the bytes a model would take if its external tensors were nothing at all."""
    content = _message(model)
    for tensor in content.graph.initializer:
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    length: int = content.ByteSize()
    return length


def _message(model: ir.Model) -> Any:
    """Return the model as a protobuf message; a constant says its type and shape itself, and that once."""
    message: Any = ir.serde.serialize_model(model)
    constants = {tensor.name for tensor in message.graph.initializer}
    others = [value for value in message.graph.value_info if value.name not in constants]
    del message.graph.value_info[:]
    message.graph.value_info.extend(others)
    return message


def constant_nodes(model: ir.Model) -> list[str]:
    """Return the names of nodes that depend on constants alone; an exported graph has none.

    Casts of weights that are stored in less than fp32 are no such nodes: they are what is wanted.
    """
    return [
        node.name or node.op_type
        for node in model.graph
        if all(value is None or value.is_initializer() for value in node.inputs)
        and not any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values())
        and not _widens(node)
    ]


def _widens(node: ir.Node) -> bool:
    stored = node.inputs[0] if node.op_type == "Cast" else None
    return stored is not None and stored.dtype in {ir.DataType.INT8, ir.DataType.BFLOAT16}
