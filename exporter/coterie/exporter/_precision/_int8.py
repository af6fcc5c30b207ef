"""int8: a tensor as integers and scales, and the ONNX nodes that compute with them.

A matrix product takes its states in uint8, too. Each row of states is quantised by itself, with a scale of
its own, so that a row's answer does not depend on the rows it shares a batch with; ONNX's
`DynamicQuantizeLinear` has one scale for all of them.

    s       = max(|x|) / 127 for each row             [R, 1]
    x'      = round(x / s) + 128                      uint8 [R, D]
    x W     = (x' - 128) W' * s * scale               W' int8 [D, C], scale [C]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from coterie.exporter._builder import GraphBuilder
from coterie.exporter._weights import Array

TABLE_LEVELS = 127
"""Largest integer of a table whose rows are looked up."""

MATRIX_LEVELS = 63
"""Largest integer of a matrix. Processors without dot products of bytes (x86 before VNNI) add two products of
uint8 and int8 in 16 bits: 2 * 255 * 63 fits, 2 * 255 * 127 would be cut off, and a bundle would answer
otherwise there than where it was checked."""

_GROUP = 64
_ROW_LEVELS = 127
_MIDDLE = 128
_SMALLEST_SCALE = 1e-30


def quantise(array: Array, levels: int, axis: int | None) -> tuple[Array, Array]:
    """Return a float tensor as int8, and what its integers are multiplied by.

    Args:
        array: float32.
        levels: Largest integer, at most 127; the smallest is its negative.
        axis: The axis that shares a scale, so that each other index has its own; None is one scale for all.

    Returns:
        int8 of the same shape, and float32 scales, without that axis.
    """
    largest = np.abs(array).max(axis=axis, initial=0.0)
    scale = np.maximum(largest / levels, _SMALLEST_SCALE).astype(np.float32)
    spread = scale if axis is None else np.expand_dims(scale, axis)
    return np.rint(array / spread).astype(np.int8), scale


def matmul(
    builder: GraphBuilder, states: ir.Value, weight: ir.Value, scale: ir.Value, *, rank: int
) -> ir.Value:
    """Add the product of float states ``[..., D]`` and an int8 matrix ``[D, C]``, ``-> [..., C]``.

    Args:
        builder: The graph.
        states: float32; there may be no rows.
        weight: int8.
        scale: ``[C]``.
        rank: Number of the states' dimensions.
    """
    number = _Numbers(builder)
    # From the front: with an axis counted from the end, ONNX Runtime takes no rows for an error.
    axis = builder.integers(rank - 1)
    largest = builder.op("ReduceMax", builder.op("Abs", states), axis, keepdims=1)
    row = builder.op(
        "Mul", builder.op("Max", largest, number(_SMALLEST_SCALE)), number(1 / _ROW_LEVELS), name="row_scale"
    )
    middle = builder.constant(np.array(_MIDDLE, dtype=np.uint8))
    rounded = builder.op("QuantizeLinear", builder.op("Div", states, row), number(1.0), middle)
    # uint8 times int8: the one pairing that has a fast kernel on every processor.
    product = builder.op("MatMulInteger", rounded, weight, middle)
    whole = builder.op("Cast", product, to=int(ir.DataType.FLOAT))
    # One after the other: ONNX Runtime 1.31 takes a product of the two scales for its `MatMulIntegerToFloat`,
    # which adds a bias before it multiplies by a scale for each row.
    return builder.op("Mul", builder.op("Mul", whole, scale), row)


@dataclass(frozen=True)
class Table:
    """A table of int8 rows in a graph.

    Attributes:
        rows: int8 ``[V, D]`` or ``[V]``.
        scales: float32, one for each group of rows.
        middles: float32, what each group's integers count from; None where that is 0.
        shape: The table's.
    """

    rows: ir.Value
    scales: ir.Value
    middles: ir.Value | None
    shape: tuple[int, ...]

    def lookup(self, builder: GraphBuilder, ids: ir.Value) -> ir.Value:
        """Add the rows of ids ``[...]``, float32 ``[..., D]``; ids out of range, or negative, are refused.

        Not by `DequantizeLinear`: ONNX Runtime would move that before the look-up, and keep the whole table
        in fp32.
        """
        found = builder.op("Cast", builder.op("Gather", self.rows, ids), to=int(ir.DataType.FLOAT))
        group = rows_of_a_group(self.shape)
        if group > 1:
            # A shift, because dividing would take longer than all else.
            bits = builder.constant(np.array(group.bit_length() - 1, dtype=np.uint64))
            shifted = builder.op(
                "BitShift", builder.op("Cast", ids, to=int(ir.DataType.UINT64)), bits, direction="RIGHT"
            )
            ids = builder.op("Cast", shifted, to=int(ir.DataType.INT64))
        scales = builder.op("Gather", self.scales, ids)
        if len(self.shape) > 1:
            scales = builder.op("Unsqueeze", scales, builder.integers(-1))
        found = builder.op("Mul", found, scales)
        if self.middles is None:
            return found
        return builder.op("Add", found, builder.op("Gather", self.middles, ids))


def rows_of_a_group(shape: tuple[int, ...]) -> int:
    """Return how many rows of a table share a scale, a power of two: one, or as many as have 64 numbers."""
    rows = max(1, _GROUP // int(np.prod(shape[1:], dtype=np.int64)))
    return 1 << (rows.bit_length() - 1)


def quantise_rows(table: Array) -> tuple[Array, Array]:
    """Return a table as int8 ``[V, D]`` and a float32 scale for each group of rows.

    Rows of rare words are small beside those of frequent ones: one scale for a column would leave them few
    integers. One for each row would be half as large as the row, where that is short.
    """
    whole, scales = quantise(_grouped(table), TABLE_LEVELS, axis=1)
    return whole.reshape(-1, table.shape[1])[: len(table)], scales


def quantise_numbers(table: Array) -> tuple[Array, Array, Array]:
    """Return a number for each id, ``[V]``, as int8, and for each group a float32 scale and middle.

    Such numbers are weights of the ids, and so nearly all of one sign: counted from 0, half of the integers
    would stand for nothing.
    """
    groups = _grouped(table)
    low, high = groups.min(axis=1), groups.max(axis=1)
    middles = ((low + high) / 2).astype(np.float32)
    whole, scales = quantise(groups - middles[:, None], TABLE_LEVELS, axis=1)
    return whole.reshape(-1)[: len(table)], scales, middles


def _grouped(table: Array) -> Array:
    """Return the numbers of each group of rows, the last row repeated to fill the last group."""
    group = rows_of_a_group(table.shape)
    count = -(-len(table) // group)
    rows = np.minimum(np.arange(count * group), len(table) - 1)
    return np.asarray(table[rows].reshape(count, -1))


class _Numbers:
    def __init__(self, builder: GraphBuilder) -> None:
        self._builder = builder

    def __call__(self, number: float) -> ir.Value:
        return self._builder.constant(np.array(number, dtype=np.float32))
