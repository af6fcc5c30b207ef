"""Stacked linear heads in less than fp32.

Heads that the router gathers for each question are int8 in storage alone: gathering a question's few numbers
and casting them is cheap, and their product is too small for integers to be faster. A larger head computes in
int8 as a block does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from coterie.exporter._builder import GraphBuilder
from coterie.exporter._heads import LinearHeads, is_gathered, part_of
from coterie.exporter._precision import _int8
from coterie.exporter._precision._half import to_bf16, to_fp16
from coterie.exporter._precision._int8_blocks import SMALLEST_MATRIX, SMALLEST_TABLE
from coterie.exporter._weights import Array, TensorRef, WeightStore
from coterie.runtime.manifest import Precision


@dataclass(frozen=True)
class Int8Heads(LinearHeads):
    """Heads ``[G, D, C]`` in int8, each column of each head with a scale.

    Attributes:
        scales: ``[G, C]`` in the weight file.
    """

    scales: TensorRef = field(kw_only=True)

    def parts(self, slot: int) -> dict[str, TensorRef]:
        """Return one head's tensors."""
        own = super().parts(slot)
        return {"weight.int8": own["weight"], "weight.scale": part_of(self.scales, slot), "bias": own["bias"]}

    def run_one(self, builder: GraphBuilder, slot: int, states: ir.Value) -> ir.Value:
        """Add one head to a graph, ``[R, (L,) D] -> [R, (L,) C]``."""
        weight, scale, bias = (builder.weight(ref, name) for name, ref in self.parts(slot).items())
        if is_gathered(self.weights.shape):
            wide = builder.op("Cast", weight, to=int(ir.DataType.FLOAT))
            product = builder.op("Mul", builder.op("MatMul", states, wide), scale)
        else:
            product = _int8.matmul(builder, states, weight, scale, rank=3 if self.sequences else 2)
        return builder.op("Add", product, bias)

    def run_many(self, builder: GraphBuilder, states: ir.Value, slots: ir.Value) -> ir.Value:
        """Add all heads, each state to its own head, ``[B, (L,) D] -> [B, (L,) C]``."""
        stacked = ((self.weights, "weights"), (self.scales, "scales"), (self.biases, "biases"))
        weights, scales, biases = (
            builder.op("Gather", builder.weight(ref, name), slots, axis=0) for ref, name in stacked
        )
        wide = builder.op("Cast", weights, to=int(ir.DataType.FLOAT))
        product = self._products(builder, states, wide)
        if self.sequences:
            scales, biases = (builder.op("Unsqueeze", each, builder.integers(1)) for each in (scales, biases))
        return builder.op("Add", builder.op("Mul", product, scales), biases)


@dataclass(frozen=True)
class HalfHeads(LinearHeads):
    """Heads in fp16, computed in it, or in bf16, which is stored alone.

    Attributes:
        compute: What the products are computed in.
    """

    compute: ir.DataType = field(kw_only=True)

    def run_one(self, builder: GraphBuilder, slot: int, states: ir.Value) -> ir.Value:
        """Add one head to a graph, ``[R, (L,) D] -> [R, (L,) C]``."""
        weight, bias = (
            self._in(builder, builder.weight(ref, name)) for name, ref in self.parts(slot).items()
        )
        product = builder.op("MatMul", self._given(builder, states), weight)
        return self._out(builder, builder.op("Add", product, bias))

    def run_many(self, builder: GraphBuilder, states: ir.Value, slots: ir.Value) -> ir.Value:
        """Add all heads, each state to its own head, ``[B, (L,) D] -> [B, (L,) C]``."""
        weights, biases = (
            self._in(builder, builder.op("Gather", builder.weight(ref, name), slots, axis=0))
            for ref, name in ((self.weights, "weights"), (self.biases, "biases"))
        )
        if self.sequences:
            biases = builder.op("Unsqueeze", biases, builder.integers(1))
        product = self._products(builder, self._given(builder, states), weights)
        return self._out(builder, builder.op("Add", product, biases))

    def _given(self, builder: GraphBuilder, states: ir.Value) -> ir.Value:
        return states if self.compute == ir.DataType.FLOAT else self._cast(builder, states, self.compute)

    def _in(self, builder: GraphBuilder, stored: ir.Value) -> ir.Value:
        bf16 = self.compute == ir.DataType.FLOAT
        return self._cast(builder, stored, ir.DataType.FLOAT) if bf16 else stored

    def _out(self, builder: GraphBuilder, scores: ir.Value) -> ir.Value:
        return scores if self.compute == ir.DataType.FLOAT else self._cast(builder, scores, ir.DataType.FLOAT)

    @staticmethod
    def _cast(builder: GraphBuilder, value: ir.Value, to: ir.DataType) -> ir.Value:
        return builder.op("Cast", value, to=int(to))


def keep_heads(
    store: WeightStore, weights: Array, biases: Array, *, sequences: bool, precision: Precision
) -> LinearHeads:
    """Keep distinct linear heads of one shape.

    Args:
        store: Where the tensors are kept.
        weights: float32 ``[G, D, C]``.
        biases: float32 ``[G, C]``.
        sequences: Whether they answer each position of sequences.
        precision: What they are stored in; int8 where that is worth it.
    """
    if precision in {"fp16", "bf16"}:
        narrow = to_fp16 if precision == "fp16" else to_bf16
        refs = store.add(narrow(weights)), store.add(narrow(biases))
        compute = ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.FLOAT
        return HalfHeads(*refs, sequences, precision, compute=compute)
    gathered = is_gathered(weights.shape)
    smallest = SMALLEST_TABLE if gathered else SMALLEST_MATRIX
    size = weights.size if gathered else weights[0].size
    if precision == "fp32" or size < smallest:
        return LinearHeads(store.add(weights), store.add(biases), sequences)
    levels = _int8.TABLE_LEVELS if gathered else _int8.MATRIX_LEVELS
    whole, scales = _int8.quantise(weights, levels, axis=1)
    return Int8Heads(store.add(whole), store.add(biases), sequences, precision, scales=store.add(scales))
