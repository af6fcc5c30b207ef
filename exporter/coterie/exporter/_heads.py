"""The last stage: a head for each task, and probabilities from scores.

Linear heads of equal shape lie in one tensor ``[G, D, C]``. A task graph points at its own slice; the router
gathers a slice for each question and multiplies them all at once. Other heads are dispatched like blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from torch import Tensor

from coterie.exporter._bind import BoundBlock, as_array
from coterie.exporter._builder import GraphBuilder
from coterie.exporter._weights import Array, TensorRef
from coterie.runtime.manifest import Precision, TensorUse
from coterie.runtime.tasks import TaskKind, TaskSpec

_GATHERED_NUMBERS = 1 << 15
"""Larger heads are dispatched: copying one for each question would cost more than it saves."""


_ONE_OF: frozenset[TaskKind] = frozenset({"classification", "tagging"})


@dataclass(frozen=True)
class LinearHeads:
    """Distinct linear heads of one shape.

    Attributes:
        weights: ``[G, D, C]`` in the weight file.
        biases: ``[G, C]`` in the weight file.
        sequences: Whether they answer each position of sequences, ``[R, L, D]``, rather than vectors.
        precision: What their weights are stored in.
    """

    weights: TensorRef
    biases: TensorRef
    sequences: bool = False
    precision: Precision = "fp32"

    @property
    def width(self) -> int:
        """Number of outputs, C."""
        return self.weights.shape[2]

    def parts(self, slot: int) -> dict[str, TensorRef]:
        """Return the weight ``[D, C]`` and bias ``[C]`` of one head, by name."""
        return {"weight": part_of(self.weights, slot), "bias": part_of(self.biases, slot)}

    def run_one(self, builder: GraphBuilder, slot: int, states: ir.Value) -> ir.Value:
        """Add one head to a graph, ``[R, D] -> [R, C]`` or ``[R, L, D] -> [R, L, C]``."""
        weight, bias = (builder.weight(ref, name) for name, ref in self.parts(slot).items())
        if self.sequences:
            return builder.op("Add", builder.op("MatMul", states, weight), bias)
        return builder.op("Gemm", states, weight, bias)

    def run_many(self, builder: GraphBuilder, states: ir.Value, slots: ir.Value) -> ir.Value:
        """Add all heads, each state ``[B, (L,) D]`` to its own head ``[B]``, ``-> [B, (L,) C]``."""
        weights = builder.op("Gather", builder.weight(self.weights, "weights"), slots, axis=0)
        biases = builder.op("Gather", builder.weight(self.biases, "biases"), slots, axis=0)
        if self.sequences:
            biases = builder.op("Unsqueeze", biases, builder.integers(1))
        return builder.op("Add", self._products(builder, states, weights), biases)

    def _products(self, builder: GraphBuilder, states: ir.Value, weights: ir.Value) -> ir.Value:
        """Add the product of each state ``[B, (L,) D]`` and its own matrix ``[B, D, C]``."""
        if self.sequences:
            return builder.op("MatMul", states, weights)
        rows = builder.op("Unsqueeze", states, builder.integers(1))
        return builder.op("Squeeze", builder.op("MatMul", rows, weights), builder.integers(1))


Keep = Callable[[Array, Array], LinearHeads]
"""Keeps stacked weights ``[G, D, C]`` and biases ``[G, C]`` of distinct heads."""


@dataclass(frozen=True)
class HeadGroup:
    """Heads that the router computes together: either linear heads of one shape, or one block.

    Attributes:
        heads: The linear heads, or the one block.
        slots: For each block of the head stage that is in the group, its place in ``heads``.
        width: Number of outputs, C.
    """

    heads: LinearHeads | BoundBlock
    slots: Mapping[int, int]
    width: int

    def run_one(self, builder: GraphBuilder, block: int, states: ir.Value) -> ir.Value:
        """Add one head of the group to a graph, ``[R, ...] -> [R, C]``."""
        if isinstance(self.heads, LinearHeads):
            return self.heads.run_one(builder, self.slots[block], states)
        return self.heads.run(builder, states)

    @property
    def distinct(self) -> int:
        """Number of different heads."""
        return len(set(self.slots.values()))

    @property
    def gathered(self) -> bool:
        """Whether the router gathers a head's weights for each question."""
        return isinstance(self.heads, LinearHeads) and self.distinct > 1

    def uses(self, block: int) -> tuple[TensorUse, ...]:
        """Return where one head's tensors lie in the weight file."""
        if isinstance(self.heads, BoundBlock):
            return self.heads.uses()
        parts = self.heads.parts(self.slots[block])
        return tuple(
            TensorUse(name=name, tensor=ref.key, shape=ref.shape, offset=ref.offset)
            for name, ref in parts.items()
        )


def is_gathered(shape: Sequence[int]) -> bool:
    """Return whether a router gathers heads ``[G, D, C]`` for each question, where there is more than one."""
    return shape[1] * shape[2] <= _GATHERED_NUMBERS


def stack_heads(heads: Mapping[int, Mapping[str, Tensor]], keep: Keep) -> list[HeadGroup]:
    """Group linear heads by shape; equal heads become one.

    Args:
        heads: For each block its ``weight [D, C]`` and ``bias [C]``.
        keep: Keeps the stacked tensors.
    """
    shapes: dict[tuple[int, ...], list[int]] = {}
    for block, tensors in heads.items():
        shapes.setdefault(tuple(tensors["weight"].shape), []).append(block)
    groups = []
    for (size, width), blocks in shapes.items():
        slots: dict[int, int] = {}
        distinct: dict[bytes, int] = {}
        for block in blocks:
            content = as_array(heads[block]["weight"]).tobytes() + as_array(heads[block]["bias"]).tobytes()
            slots[block] = distinct.setdefault(content, len(distinct))
        first = {slot: block for block, slot in reversed(slots.items())}
        order = [heads[first[slot]] for slot in range(len(distinct))]
        stacked = keep(
            np.stack([as_array(tensors["weight"]) for tensors in order]),
            np.stack([as_array(tensors["bias"]) for tensors in order]),
        )
        if is_gathered((len(distinct), size, width)):
            groups.append(HeadGroup(stacked, slots, width))
            continue
        for slot in range(len(distinct)):
            members = {block: slot for block, its_slot in slots.items() if its_slot == slot}
            groups.append(HeadGroup(stacked, members, width))
    return groups


def task_probabilities(builder: GraphBuilder, task: TaskSpec, scores: ir.Value) -> ir.Value | None:
    """Add one task's probabilities, of its scores' shape; a regression has none."""
    if task.kind in _ONE_OF:
        return builder.op("Softmax", scores, axis=-1)
    if task.kind == "multilabel":
        return builder.op("Sigmoid", scores)
    return None


def mixed_probabilities(
    builder: GraphBuilder, tasks: Sequence[TaskSpec], scores: ir.Value, task: ir.Value
) -> ir.Value | None:
    """Add the probabilities of several tasks' questions, shaped as their scores; 0 where a task has none."""
    kinds = {spec.kind for spec in tasks}
    own = _own_columns(builder, tasks, task)
    zero = builder.constant(np.zeros((), dtype=np.float32))
    result = None
    if kinds & _ONE_OF:
        # Columns that are not the task's own take no part in its softmax.
        closed = builder.constant(np.array(-np.inf, dtype=np.float32))
        open_scores = scores if own is None else builder.op("Where", own, scores, closed)
        result = builder.op("Softmax", open_scores, axis=-1)
    if "multilabel" in kinds:
        each = builder.op("Sigmoid", scores)
        each = each if own is None else builder.op("Where", own, each, zero)
        result = (
            each
            if result is None
            else builder.op("Where", _is(builder, tasks, task, "multilabel"), each, result)
        )
    if result is not None and "regression" in kinds:
        result = builder.op("Where", _is(builder, tasks, task, "regression"), zero, result)
    return result


def _own_columns(builder: GraphBuilder, tasks: Sequence[TaskSpec], task: ir.Value) -> ir.Value | None:
    """Return which columns are a question's own, bool ``[B, (1,) C]``; None where all always are."""
    widths = np.array([[spec.width] for spec in tasks], dtype=np.int64)
    if tasks[0].kind == "tagging":
        widths = widths[:, None]
    if widths.min() == widths.max():
        return None
    columns = builder.constant(np.arange(widths.max(), dtype=np.int64))
    return builder.op("Less", columns, builder.op("Gather", builder.constant(widths), task, axis=0))


def _is(builder: GraphBuilder, tasks: Sequence[TaskSpec], task: ir.Value, kind: TaskKind) -> ir.Value:
    """Return whether a question's task is of a kind, bool ``[B, 1]``."""
    table = builder.constant(np.array([[spec.kind == kind] for spec in tasks]))
    return builder.op("Gather", table, task, axis=0)


def part_of(ref: TensorRef, slot: int) -> TensorRef:
    """Return one slice of a stacked tensor along its first axis."""
    shape = ref.shape[1:]
    whole = TensorRef(ref.key, ref.dtype, shape)
    return TensorRef(ref.key, ref.dtype, shape, slot * whole.length)
