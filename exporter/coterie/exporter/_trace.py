"""From a block's architecture to ONNX nodes: each architecture is traced once, with its weights left open.

The block's parameters and buffers become inputs of the traced graph, so that one trace serves every block of
that architecture. Nodes that depend on them alone, and not on the states, form the prologue; it is evaluated
once for each block when its weights are bound, so that no session computes or stores such values again.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.func import functional_call

from coterie.exporter._states import StageInput, StateShape
from coterie.runtime.errors import ExportError
from coterie.training.blocks import Block
from coterie.training.several import Tensors, apply, each

OPSET = 18
"""Old enough for every ONNX Runtime that a bundle's graphs may meet, new enough for all that they need."""

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""What every module has; none of it but the children tells two of them apart."""

_ABORTS_ON_ZERO_ROWS = frozenset({"LSTM", "GRU", "RNN"})


@dataclass(frozen=True, eq=False)
class Trace:
    """One architecture as ONNX nodes.

    Attributes:
        states: The value that stands for the block's input, ``[R, ...]``; of a block that joins several
            inputs one for each.
        parameters: Parameter name to the value that stands for it.
        constants: Values that the tracer fixed, the same for every block.
        prologue: Nodes that depend on parameters and constants alone, in order.
        body: All other nodes, in order.
        reads: What the body reads from outside: the states, parameters, constants, results of the prologue.
        derived: The prologue's results among those.
        output: The body's result; ``shape`` says which one it has.
        shape: Shape of the result without the batch dimension.
        lengths: For each of its dimensions that differs from batch to batch, the states' axis that it equals.
        needs_rows: Whether a kernel of the body cannot take zero rows.
    """

    states: tuple[ir.Value, ...]
    parameters: Mapping[str, ir.Value]
    constants: tuple[ir.Value, ...]
    prologue: tuple[ir.Node, ...]
    body: tuple[ir.Node, ...]
    reads: frozenset[ir.Value]
    derived: tuple[ir.Value, ...]
    output: ir.Value
    shape: StateShape
    lengths: tuple[int | None, ...]
    needs_rows: bool


class Tracer:
    """Traces architectures, each once."""

    def __init__(self) -> None:
        self._traces: dict[object, Trace] = {}

    def trace(self, template: Block, tensors: Mapping[str, Tensor], given: StageInput) -> Trace:
        """Return the trace of a block.

        Args:
            template: The architecture, in evaluation mode.
            tensors: One block's parameters and buffers; only their types and shapes matter.
            given: States to trace with, ``[R, ...]``, and which dimensions differ from batch to batch.

        Raises:
            ExportError: If the block cannot be expressed in ONNX with a batch of any size.
        """
        signature = tuple((name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items())
        dtypes = tuple(str(states.dtype) for states in each(given.example))
        key = (architecture(template), signature, dtypes, given.shape)
        if key not in self._traces:
            graph = _traced_graph(template, tensors, given)
            self._traces[key] = _split(graph, tuple(tensors), len(each(given.example)))
        return self._traces[key]


def architecture(module: nn.Module) -> object:
    """Return a key that two modules share only if they compute the same function of states and weights.

    It names the classes and every plain attribute, recursively. A module with an attribute of another kind is
    its own architecture.
    """
    plain = {name: value for name, value in vars(module).items() if name not in _MODULE_ATTRIBUTES}
    if not all(_is_plain(value) for value in plain.values()):
        return id(module)
    children = tuple((name, architecture(child)) for name, child in module.named_children())
    attributes = tuple(sorted((name, repr(value)) for name, value in plain.items()))
    return (type(module).__module__, type(module).__qualname__, attributes, children)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


class _OpenBlock(nn.Module):
    """A block whose parameters are arguments of ``forward``."""

    def __init__(self, template: Block, names: tuple[str, ...]) -> None:
        super().__init__()
        # In a tuple, the template is no submodule, and its own weights do not enter the graph.
        self._template = (template,)
        self._names = names

    def forward(self, states: Tensors, *parameters: Tensor) -> Tensor:
        tensors = dict(zip(self._names, parameters, strict=True))
        result: Tensor = functional_call(self._template[0], tensors, (states,))
        return result


def _traced_graph(template: Block, tensors: Mapping[str, Tensor], given: StageInput) -> ir.Graph:
    dims: tuple[Any, ...] = (apply(_dynamic, given.shape),)
    if tensors:  # one entry for each argument that is there
        dims = (*dims, (None,) * len(tensors))
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                _OpenBlock(template, tuple(tensors)),
                (given.example, *tensors.values()),
                dynamo=True,
                dynamic_shapes=dims,
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(
            f"block {type(template).__name__!r} cannot be traced to ONNX ({reason}): its forward must be "
            "made of tensor operations that torch.onnx.export knows, for a batch of any size"
        ) from error
    if program is None:  # only where a file name is given
        raise ExportError(f"block {type(template).__name__!r}: torch.onnx.export returned nothing")
    model = program.model
    if model.functions:
        raise ExportError(
            f"block {type(template).__name__!r} needs operators outside ONNX: {list(model.functions)}"
        )
    return model.graph


def _dynamic(shape: StateShape) -> dict[int, Any]:
    """Return the axes of states that differ from batch to batch."""
    axes = [0, *(axis for axis, size in enumerate(shape.dims, start=1) if size is None)]
    return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracer's notes about optional packages; they would repeat for each trace."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _split(graph: ir.Graph, names: tuple[str, ...], given: int) -> Trace:
    _count_axes_from_the_front(graph)
    states, parameters = tuple(graph.inputs[:given]), graph.inputs[given:]
    (output,) = graph.outputs
    moving = set(states)
    prologue, body = [], []
    for node in graph:
        if moving.isdisjoint(values_read(node)):
            prologue.append(node)
        else:
            body.append(node)
            moving.update(node.outputs)
    if output not in moving:
        raise ExportError("a block's result does not depend on its states: there is nothing to export")
    early = [value for node in prologue for value in node.outputs]
    reads = frozenset(value for node in body for value in values_read(node))
    return Trace(
        states=states,
        parameters=dict(zip(names, parameters, strict=True)),
        constants=tuple(graph.initializers.values()),
        prologue=tuple(prologue),
        body=tuple(body),
        reads=reads,
        derived=tuple(value for value in early if value in reads),
        output=output,
        shape=_result_shape(output),
        lengths=_lengths(states, output),
        needs_rows=any(
            node.op_type in _ABORTS_ON_ZERO_ROWS for node in ir.traversal.RecursiveGraphIterator(graph)
        ),
    )


def _count_axes_from_the_front(graph: ir.Graph) -> None:
    """Write negative axes of reductions as positive ones.

    For no rows, ONNX Runtime 1.31 leaves an axis in place that was counted from the end.
    """
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if not node.op_type.startswith("Reduce") or len(node.inputs) < 2:
            continue
        states, axes = node.inputs
        if states is None or states.shape is None or axes is None or axes.const_value is None:
            continue
        numbers = axes.const_value.numpy()
        if (numbers >= 0).all():
            continue
        rank = len(states.shape)
        tensor = ir.tensor(numbers % rank, name=f"{axes.name}_of_{rank}")
        known = graph.initializers.get(str(tensor.name))
        if known is None:
            shape = ir.Shape(numbers.shape)
            known = ir.Value(name=tensor.name, shape=shape, type=axes.type, const_value=tensor)
            graph.register_initializer(known)
        node.replace_input_with(1, known)


def values_read(node: ir.Node) -> set[ir.Value]:
    """Return what a node reads, in its subgraphs too."""
    values = {value for value in node.inputs if value is not None}
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in ir.traversal.RecursiveGraphIterator(attribute.as_graph()):
                values.update(value for value in inner.inputs if value is not None)
            values.update(attribute.as_graph().outputs)
    return values


def _lengths(states: tuple[ir.Value, ...], output: ir.Value) -> tuple[int | None, ...]:
    """Return for each dimension of a result but the batch the states' axis of the same name, or None."""
    named = enumerate(states[0].shape or ())
    axes = {size.value: axis for axis, size in named if isinstance(size, ir.SymbolicDim)}
    dims = list(output.shape or ())[1:]
    return tuple(
        axes.get(size.value) if isinstance(size, ir.SymbolicDim) and size.value is not None else None
        for size in dims
    )


def _result_shape(output: ir.Value) -> StateShape:
    if output.shape is None or not isinstance(output.shape[0], ir.SymbolicDim):
        raise ExportError(
            "a block's result has a fixed number of rows: its first dimension must be the batch"
        )
    if output.dtype != ir.DataType.FLOAT:
        raise ExportError(f"a block's result is {output.dtype}: states after a block are float32")
    return StateShape(tuple(size if isinstance(size, int) else None for size in output.shape[1:]))
