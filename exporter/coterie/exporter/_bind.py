"""From an architecture's trace and a block's tensors to a block that a graph can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from torch import Tensor

from coterie.exporter._builder import GraphBuilder, serialize
from coterie.exporter._precision._rewrite import Part, Rewrite
from coterie.exporter._precision._rewrites import rewrite
from coterie.exporter._trace import Trace
from coterie.exporter._weights import Array, TensorRef, WeightFile, WeightStore
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import Precision, TensorUse

_INLINE_BYTES = 1024
"""Constants under this stay inside the graphs, where shape inference can see them."""


@dataclass(frozen=True)
class BoundBlock:
    """One block, ready to be put into graphs.

    Attributes:
        name: The block's name in the plan.
        trace: Its architecture.
        tensors: For each value that the body reads from outside, but the states: its name and either the
            reference to the weight file or the constant itself.
        rewrite: How it computes in less than fp32.
    """

    name: str
    trace: Trace
    tensors: Mapping[ir.Value, tuple[str, TensorRef | Array]]
    rewrite: Rewrite | None = None

    @property
    def precision(self) -> Precision:
        """What its weights are stored in, where that was worth it."""
        return "fp32" if self.rewrite is None else self.rewrite.precision

    def uses(self) -> tuple[TensorUse, ...]:
        """Return the block's tensors in the weight file."""
        return tuple(
            TensorUse(name=name, tensor=ref.key, shape=ref.shape, offset=ref.offset)
            for name, ref in self.tensors.values()
            if isinstance(ref, TensorRef)
        )

    def signature(self) -> tuple[object, ...]:
        """Return a key that is equal for blocks that compute the same."""
        parts = (
            ref if isinstance(ref, TensorRef) else (ref.dtype.str, ref.shape, ref.tobytes())
            for _, ref in self.tensors.values()
        )
        return (id(self.trace), id(self.rewrite), *parts)

    def run(self, builder: GraphBuilder, *states: ir.Value) -> ir.Value:
        """Add the block's nodes to a graph, ``[R, ...] -> [R, ...]``; R may be 0.

        The states are one value, or one of each input that the block joins.
        """
        with builder.scope(self.name):
            if not self.trace.needs_rows:
                return self._copy(builder, states)
            return self._guarded(builder, states)

    def _copy(self, builder: GraphBuilder, states: Sequence[ir.Value]) -> ir.Value:
        half = self.rewrite is not None and self.rewrite.half
        values = {}
        for value, given in zip(self.trace.states, states, strict=True):
            narrow = half and value.dtype == ir.DataType.FLOAT
            values[value] = builder.op("Cast", given, to=int(ir.DataType.FLOAT16)) if narrow else given
        for value, (name, tensor) in self.tensors.items():
            if isinstance(tensor, TensorRef):
                values[value] = builder.weight(tensor, name)
            else:
                values[value] = builder.constant(tensor)
        if self.rewrite is None:
            return builder.copy(self.trace.body, values)[self.trace.output]
        for value, stored in self.rewrite.widened.items():
            values[value] = builder.op("Cast", values[stored], to=int(ir.DataType.FLOAT))
        result = builder.copy(self.trace.body, values, self.rewrite.lowered)[self.trace.output]
        return builder.op("Cast", result, to=int(ir.DataType.FLOAT)) if half else result

    def _guarded(self, builder: GraphBuilder, states: Sequence[ir.Value]) -> ir.Value:
        """Run the block only where there are rows: its kernels would end the process without any."""
        graphs: list[ir.Graph] = []
        some: list[ir.Value] = []
        with builder.branch(some, graphs, f"{self.name}/then"):
            some.append(self._copy(builder, states))
        none: list[ir.Value] = []
        with builder.branch(none, graphs, f"{self.name}/else"):
            # The states themselves are empty here: in another shape they are the empty result.
            empty = builder.op("Cast", states[0], to=int(ir.DataType.FLOAT))
            none.append(builder.op("Reshape", empty, self._empty_shape(builder, states[0]), allowzero=1))
        rows = builder.op("Shape", states[0], start=0, end=1)
        any_rows = builder.op("Greater", rows, builder.integers(0))
        then_branch, else_branch = graphs
        return builder.op("If", any_rows, then_branch=then_branch, else_branch=else_branch)

    def _empty_shape(self, builder: GraphBuilder, states: ir.Value) -> ir.Value:
        """Return the shape of the result for no rows; a length is that of the states."""
        sizes = [builder.integers(0)]
        for size, axis in zip(self.trace.shape.dims, self.trace.lengths, strict=True):
            if size is not None:
                sizes.append(builder.integers(size))
            elif axis is not None:
                sizes.append(builder.op("Shape", states, start=axis, end=axis + 1))
            else:
                raise ExportError(
                    f"block {self.name!r} cannot take zero rows, and its result has a length that its input "
                    "has not: give the result a fixed shape"
                )
        return builder.op("Concat", *sizes, axis=0)


class Binder:
    """Binds tensors to traces, and keeps what the graphs will refer to."""

    def __init__(self, store: WeightStore, precision: Precision = "fp32") -> None:
        self._store = store
        self._precision = precision
        self._rewrites: dict[Trace, Rewrite | None] = {}
        self._prologues: dict[Trace, ort.InferenceSession] = {}

    def bind(self, name: str, trace: Trace, tensors: Mapping[str, Tensor]) -> BoundBlock:
        """Return a block with its tensors in the weight store, in the binder's precision where it can be."""
        arrays = {key: as_array(tensor) for key, tensor in tensors.items()}
        rewritten = self._rewrite(trace)
        bound: dict[ir.Value, tuple[str, TensorRef | Array]] = {}
        for key, value in trace.parameters.items():
            if value in trace.reads:
                bound.update(self._keep(rewritten, value, key, arrays[key]))
        fixed = [(value, _constant(value)) for value in trace.constants if value in trace.reads]
        derived = zip(trace.derived, self._derive(trace, arrays), strict=True)
        for value, array in fixed:
            small = array.nbytes < _INLINE_BYTES
            bound.update(self._keep(rewritten, value, f"constant.{len(bound)}", array, inline=small))
        for value, array in derived:
            # What weights were turned into are weights too, however small; sizes and axes are not.
            inline = array.size <= 1 or (array.dtype.kind != "f" and array.nbytes < _INLINE_BYTES)
            bound.update(self._keep(rewritten, value, f"derived.{len(bound)}", array, inline=inline))
        return BoundBlock(name, trace, bound, rewritten)

    def _keep(
        self, rewrite: Rewrite | None, value: ir.Value, name: str, array: Array, *, inline: bool = False
    ) -> Iterator[tuple[ir.Value, tuple[str, TensorRef | Array]]]:
        """Yield what is kept of a tensor: itself, or the parts that stand for it."""
        parts = None if rewrite is None else rewrite.parts.get(value)
        for part in parts or (Part(value, "", lambda array: array),):
            made = part.make(array)
            yield part.value, (name + part.suffix, made if inline else self._store.add(made))

    def _rewrite(self, trace: Trace) -> Rewrite | None:
        if trace not in self._rewrites:
            self._rewrites[trace] = rewrite(trace, self._precision)
        return self._rewrites[trace]

    def _derive(self, trace: Trace, arrays: Mapping[str, Array]) -> Sequence[Array]:
        """Evaluate the prologue for one block's tensors."""
        if not trace.derived:
            return []
        if trace not in self._prologues:
            self._prologues[trace] = _prologue_session(trace)
        session = self._prologues[trace]
        wanted = {value.name for value in session.get_inputs()}
        feeds = {f"p.{name}": array for name, array in arrays.items() if f"p.{name}" in wanted}
        results: Sequence[Array] = session.run(None, feeds)
        return results


def as_array(tensor: Tensor) -> Array:
    """Return a tensor as an array on the CPU, without a copy where it already is one."""
    return tensor.detach().cpu().contiguous().numpy()


def _constant(value: ir.Value) -> Array:
    if value.const_value is None:
        raise ExportError(f"the traced constant {value.name!r} has no value: this block cannot be exported")
    return np.asarray(value.const_value.numpy())


def _prologue_session(trace: Trace) -> ort.InferenceSession:
    """Return a session from parameters ``p.NAME`` to the values derived from them."""
    builder = GraphBuilder("prologue", WeightFile("", {}))
    values = {value: builder.constant(_constant(value)) for value in trace.constants}
    for name, value in trace.parameters.items():
        values[value] = builder.input(f"p.{name}", *_typed(value))
    values = builder.copy(trace.prologue, values)
    outputs = [
        (f"derived.{index}", values[value], *_typed(value)) for index, value in enumerate(trace.derived)
    ]
    content = serialize(builder.finish(outputs))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _typed(value: ir.Value) -> tuple[str, list[int | str]]:
    if value.shape is None or value.dtype is None:
        raise ExportError(f"the traced value {value.name!r} has no type: this block cannot be exported")
    return value.dtype.numpy().name, [size if isinstance(size, int) else str(size) for size in value.shape]
