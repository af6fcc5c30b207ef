"""The router in two parts: what can be computed before there are states, and the rest.

    router.onnx          inputs, row, task        -> scores, probabilities
    router.host.onnx     count, row, task         -> what of the dispatch the states go through
    router.device.onnx   inputs, task, and those  -> scores, probabilities

Which (block, state) pairs there are, in which order, and how many of them each block takes, depends on the
questions and on the number of inputs, and on no state. A GPU that computes them must be waited for at every
stage, since the host cannot begin a block before it knows its rows. Computed on the host first, they are
known before the first block begins, and what is left for the GPU are blocks, gathers and sums.

Both parts are the router's own nodes, cut where the dispatch ends; the export asks them what the router is
asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

_QUESTIONS = ("row", "task")
_COUNT = "count"


@dataclass(frozen=True)
class Parts:
    """The router's two parts.

    Attributes:
        host: From ``count`` (int64 ``[1]``, the number of inputs), ``row`` and ``task`` to the dispatch.
        device: From the inputs and that to scores and probabilities.
    """

    host: ir.Model
    device: ir.Model


def divide(router: ir.Model) -> Parts:
    """Cut the router's graph in two; the graph itself stays as it is."""
    cut = _cut(router.graph)
    host = _host(router, cut)
    return Parts(host, _device(router, host.graph.outputs))


def _cut(graph: ir.Graph) -> list[str]:
    """Return the names of the values that depend on the questions, on no state, and are read by what does."""
    ahead = {value: value.name in _QUESTIONS for value in graph.inputs if value.name in _QUESTIONS}
    early = set()
    for node in graph:
        if _counts_inputs(node) or _is_ahead(node, ahead):
            early.add(node)
            asks = any(ahead.get(value, False) for value in node.inputs if value is not None)
            ahead |= dict.fromkeys(node.outputs, asks)
    # What depends on the number of inputs alone the device knows as soon; it is in both parts, where needed.
    return [
        str(value.name)
        for node in graph
        if node in early
        for value in node.outputs
        if ahead[value] and any(reader not in early for reader, _ in value.uses())
    ]


def _is_ahead(node: ir.Node, ahead: dict[ir.Value, bool]) -> bool:
    """Return whether a node reads nothing but constants and what is known before there are states."""
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return False
    read = [value for value in node.inputs if value is not None]
    known = all(value in ahead or _is_small(value) for value in read)
    return known and any(value in ahead for value in read)


def _is_small(value: ir.Value) -> bool:
    """Return whether a value is a constant of the graph itself: no weight."""
    return value.is_initializer() and not isinstance(value.const_value, ir.ExternalTensor)


def _counts_inputs(node: ir.Node) -> bool:
    """Return whether a node's result is the number of inputs, as a vector of one number."""
    if node.op_type != "Shape" or node.inputs[0] is None or not node.inputs[0].is_graph_input():
        return False
    given = {name: attribute.as_int() for name, attribute in node.attributes.items()}
    return node.inputs[0].name not in _QUESTIONS and (given.get("start", 0), given.get("end")) == (0, 1)


def _host(router: ir.Model, cut: Iterable[str]) -> ir.Model:
    model = router.clone()
    graph = model.graph
    count = ir.Value(name=_COUNT, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    made = _made(graph)
    for node in [node for node in graph if _counts_inputs(node)]:
        node.outputs[0].replace_all_uses_with(count)
    graph.outputs[:] = [made[name] for name in cut]
    graph.inputs[:] = [count, *(value for value in graph.inputs if value.name in _QUESTIONS)]
    _keep_needed(graph)
    inferred = model.clone()
    ShapeInferencePass()(inferred)
    for value, known in zip(graph.outputs, inferred.graph.outputs, strict=True):
        value.type, value.shape = known.type, _sizes_only(known.shape)
    graph.name = "router.host"
    return model


def _keep_needed(graph: ir.Graph) -> None:
    """Remove all that the outputs do not depend on, whatever the branches of a removed ``If`` still read."""
    needed, todo = set(), [value.producer() for value in graph.outputs]
    while todo:
        node = todo.pop()
        if node is not None and node not in needed:
            needed.add(node)
            todo += [value.producer() for value in node.inputs if value is not None]
    for node in [node for node in graph if node not in needed]:
        graph.remove(node)
    read = {value.name for node in graph for value in node.inputs if value is not None}
    for name in [name for name in graph.initializers if name not in read]:
        del graph.initializers[name]


def _device(router: ir.Model, given: Iterable[ir.Value]) -> ir.Model:
    model = router.clone()
    graph = model.graph
    made = _made(graph)
    for value in given:
        stands_for = ir.Value(name=value.name, shape=value.shape, type=value.type)
        made[str(value.name)].replace_all_uses_with(stands_for)
        graph.inputs.append(stands_for)
    RemoveUnusedNodesPass()(model)
    graph.inputs[:] = [value for value in graph.inputs if value.name not in _QUESTIONS or value.uses()]
    graph.name = "router.device"
    return model


def _made(graph: ir.Graph) -> dict[str, ir.Value]:
    return {str(value.name): value for value in _results(graph)}


def _results(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        yield from node.outputs


def _sizes_only(shape: ir.Shape | None) -> ir.Shape | None:
    """Return a shape without the names that the inference gave to what it does not know."""
    return None if shape is None else ir.Shape([size if isinstance(size, int) else None for size in shape])
