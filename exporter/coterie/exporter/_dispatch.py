"""How the router runs each block once for each distinct state, inside the graph.

The states ``h [S, ...]`` and, for each of B questions, the state it is about, flow from stage to stage:

    keys    = block[task] * S + position              which (block, state) pairs the questions need
    present = zeros[blocks * S], 1 at keys            each pair once, block by block
    parts   = Split(Gather(h, state of pair), sizes)  one slice a block, some of them empty
    F       = Concat(block_b(parts_b) for b)          [P, ...]
    index   = how many pairs lie before each key      where in F each question finds its results

A stage that mixes nothing hands F on as the states: questions that share a block go on sharing its result.

S is never asked of the states themselves, but reckoned from the number of inputs on: so all of the above but
Gather, Split and the blocks depends on no state, and can be computed before there are any (``_divide``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coterie.exporter._builder import GraphBuilder
from coterie.exporter._states import StateShape

RunBlock = Callable[[int, ir.Value], ir.Value]
"""Adds one block's nodes to the graph: the block's index and its states ``[R, ...]`` to new states."""


@dataclass(frozen=True)
class Flow:
    """The states between two stages.

    Attributes:
        states: ``[S, ...]``.
        shape: Shape of one state.
        position: ``[B]`` int64, the state each question is about; None where question b is about state b.
        count: S as a vector of one number.
    """

    states: ir.Value
    shape: StateShape
    position: ir.Value | None
    count: ir.Value


@dataclass(frozen=True)
class Pairs:
    """The distinct (block, state) pairs that the questions need, block by block.

    Attributes:
        blocks: ``[P]`` int64, the block of each pair.
        rows: ``[P]`` int64, its state.
        sizes: ``[blocks]`` int64, how many pairs each block has.
        index: ``[B]`` or ``[B, k]`` int64, the pair of each question, or of each of its k blocks.
    """

    blocks: ir.Value
    rows: ir.Value
    sizes: ir.Value
    index: ir.Value

    def split(self, builder: GraphBuilder, states: ir.Value, blocks: int) -> Sequence[ir.Value]:
        """Return for each block the states it must take."""
        gathered = builder.op("Gather", states, self.rows, axis=0)
        return builder.ops("Split", gathered, self.sizes, outputs=blocks, name="parts", axis=0)


def count_of(builder: GraphBuilder, values: ir.Value) -> ir.Value:
    """Return the length of inputs, or of a question's or a pair's numbers, as a vector of one number."""
    return builder.op("Shape", values, start=0, end=1)


def positions(builder: GraphBuilder, flow: Flow) -> ir.Value:
    """Return the position of every question, ``[B]``, where they are needed as numbers."""
    if flow.position is not None:
        return flow.position
    count = builder.op("Squeeze", flow.count, builder.integers(0))
    zero, one = (builder.constant(np.array(number, dtype=np.int64)) for number in (0, 1))
    return builder.op("Range", zero, count, one)


def find_pairs(builder: GraphBuilder, flow: Flow, task: ir.Value, table: npt.NDArray[np.int64]) -> Pairs:
    """Find the distinct pairs.

    Args:
        builder: The router's graph.
        flow: The states, and which one each question is about.
        task: ``[B]`` int64.
        table: ``[N]`` or ``[N, k]``, the blocks each task uses; a repeated block costs nothing.
    """
    blocks = int(table.max()) + 1
    keys = state_keys(builder, flow, task, table)
    flat = keys if table.ndim == 1 else builder.op("Reshape", keys, builder.integers(-1))
    ones = builder.op("ConstantOfShape", builder.op("Shape", flat), value=_fill(1))
    total = builder.op("Mul", flow.count, builder.integers(blocks))
    zeros = builder.op("ConstantOfShape", total, value=_fill(0))
    present = builder.op("ScatterElements", zeros, flat, ones, axis=0)
    pairs = builder.op("Squeeze", builder.op("NonZero", present), builder.integers(0))
    first_axis = builder.constant(np.array(0, dtype=np.int64))
    before = builder.op("CumSum", present, first_axis, exclusive=1)
    by_block = builder.op("Reshape", present, builder.integers(blocks, -1))
    # Without states there are no pairs, but the divisor must not be 0 all the same.
    divisor = builder.op("Max", flow.count, builder.integers(1))
    return Pairs(
        blocks=builder.op("Div", pairs, divisor),
        rows=builder.op("Mod", pairs, divisor),
        sizes=builder.op("ReduceSum", by_block, builder.integers(1), name="sizes", keepdims=0),
        index=builder.op("Gather", before, keys, axis=0),
    )


def run_blocks(
    builder: GraphBuilder, flow: Flow, task: ir.Value, table: npt.NDArray[np.int64], run: RunBlock
) -> tuple[ir.Value, ir.Value | None, ir.Value]:
    """Run the blocks that the questions need, each once for each distinct state.

    Returns:
        The results of all pairs, ``[P, ...]``; the pair of each question (and block), ``[B]`` or ``[B, k]``,
        None where question b's is pair b; and P as a vector of one number.
    """
    blocks = int(table.max()) + 1
    if blocks == 1:
        # Everybody's block: it takes the states as they are.
        return run(0, flow.states), flow.position, flow.count
    if table.ndim == 2 and all(set(row) == set(range(blocks)) for row in table):
        # Everybody uses all of them: every pair is needed, and its number is its key.
        results = concat_rows(builder, [run(block, flow.states) for block in range(blocks)])
        count = builder.op("Mul", flow.count, builder.integers(blocks))
        return results, state_keys(builder, flow, task, table), count
    pairs = find_pairs(builder, flow, task, table)
    parts = pairs.split(builder, flow.states, blocks)
    results = concat_rows(builder, [run(block, part) for block, part in enumerate(parts)])
    return results, pairs.index, count_of(builder, pairs.rows)


def state_keys(builder: GraphBuilder, flow: Flow, task: ir.Value, table: npt.NDArray[np.int64]) -> ir.Value:
    """Return ``block * S + position`` for each question (and block).

    Args:
        builder: The router's graph.
        flow: The states, and which one each question is about.
        task: ``[B]`` int64.
        table: ``[N]`` or ``[N, k]``, the block of each task.
    """
    chosen = builder.op("Gather", builder.constant(table, "blocks"), task, axis=0)
    position = positions(builder, flow)
    if table.ndim == 2:
        position = builder.op("Unsqueeze", position, builder.integers(1))
    return builder.op("Add", builder.op("Mul", chosen, flow.count), position)


def concat_rows(builder: GraphBuilder, results: Sequence[ir.Value]) -> ir.Value:
    """Put states ``[S, ...]`` one after the other."""
    return results[0] if len(results) == 1 else builder.op("Concat", *results, axis=0)


def _fill(number: int) -> ir.TensorProtocol:
    return ir.tensor([number], dtype=ir.DataType.INT64)
