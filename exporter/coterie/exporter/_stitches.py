"""Stitched columns in a graph: each block once, and between the layers the mixtures of what they made.

results = Concat(Unsqueeze(block_j(column of the layer before)) for j)   [n, S, ...]
parts   = MatMul(alpha, results)                                         [columns * subspaces, S, ...]
column  = Concat(its subspaces' parts)                                   [S, ...]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coterie.exporter._bind import BoundBlock
from coterie.exporter._builder import GraphBuilder
from coterie.exporter._dispatch import concat_rows
from coterie.runtime.plan import Stitches, StitchLayer

Columns = Mapping[int, ir.Value]
"""The columns of a layer by their place, ``[S, ...]`` each."""


def run_columns(
    builder: GraphBuilder,
    stitches: Stitches,
    blocks: Sequence[BoundBlock],
    states: ir.Value,
    wanted: Collection[int],
) -> list[Columns]:
    """Add stitched columns to a graph.

    Args:
        builder: The graph.
        stitches: How the blocks feed each other.
        blocks: The stage's blocks.
        states: Its input, ``[S, ...]``; S may be 0.
        wanted: The blocks to run. Columns that need others are left out.

    Returns:
        Each layer's columns.
    """
    given: Columns = {0: states}
    layers: list[Columns] = []
    for layer in stitches.layers:
        results = {
            index: blocks[block].run(builder, given[at])
            for index, (block, at) in enumerate(zip(layer.blocks, layer.takes, strict=True))
            if block in wanted
        }
        given = _mixed(builder, stitches, layer, results)
        layers.append(given)
    return layers


def read_columns(
    builder: GraphBuilder, layers: Sequence[Columns], read: Sequence[tuple[int, int, float]]
) -> ir.Value:
    """Add what a task reads: ``sum beta * column``, ``[S, ...]``."""
    parts = []
    for layer, column, beta in read:
        states = layers[layer][column]
        share = builder.constant(np.array(beta, dtype=np.float32), "beta")
        parts.append(states if beta == 1.0 else builder.op("Mul", states, share))
    return parts[0] if len(parts) == 1 else builder.op("Sum", *parts)


def _mixed(builder: GraphBuilder, stitches: Stitches, layer: StitchLayer, results: Columns) -> Columns:
    """Return the columns that can be made of these results of a layer's blocks."""
    alpha = np.array(layer.alpha, dtype=np.float32)
    there = np.isin(np.arange(alpha.shape[1]), list(results))
    made = [
        column
        for column in range(len(layer.columns))
        if not alpha[stitches.rows(column)][:, ~there].any() and results
    ]
    rows = [row for column in made for row in stitches.rows(column)]
    if not rows:
        return {}
    parts = _mixtures(builder, alpha[rows][:, there], [results[index] for index in sorted(results)])
    width = stitches.subspaces
    return {
        column: _row(builder, parts[place * width : (place + 1) * width], stitches.axis)
        for place, column in enumerate(made)
    }


def _mixtures(
    builder: GraphBuilder, alpha: npt.NDArray[np.float32], results: Sequence[ir.Value]
) -> Sequence[ir.Value]:
    """Return a mixture of results ``[S, ...]`` for each row of ``alpha [m, n]``."""
    if np.array_equal(alpha, np.eye(len(results), dtype=np.float32)):
        return results
    shape = builder.op("Shape", results[0])
    # The number of a state's numbers, rather than -1, which says nothing where there are no states.
    size = builder.op("ReduceProd", shape, builder.integers(0))
    each = builder.op("Concat", builder.integers(len(results)), size, axis=0)
    flat = builder.op("Reshape", concat_rows(builder, results), each, allowzero=1)
    mixed = builder.op("MatMul", builder.constant(alpha, "alpha"), flat)
    count = builder.op("Shape", results[0], start=0, end=1)
    rows = builder.op("Mul", count, builder.integers(len(alpha)))
    whole = builder.op("Concat", rows, builder.op("Shape", results[0], start=1), axis=0)
    mixed = builder.op("Reshape", mixed, whole, allowzero=1)
    if len(alpha) == 1:
        return [mixed]
    sizes = builder.op("Expand", count, builder.integers(len(alpha)))
    return builder.ops("Split", mixed, sizes, outputs=len(alpha), axis=0)


def _row(builder: GraphBuilder, parts: Sequence[ir.Value], axis: int) -> ir.Value:
    return parts[0] if len(parts) == 1 else builder.op("Concat", *parts, axis=axis)
