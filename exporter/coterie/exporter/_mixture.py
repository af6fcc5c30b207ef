"""How the router mixes the results of a question's blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coterie.exporter._builder import GraphBuilder
from coterie.exporter._states import StateShape


@dataclass(frozen=True)
class Mixture:
    """One stage's mixture weights in the router's graph.

    Attributes:
        builder: The graph.
        weights: ``[N, k]``, of each task's blocks.
        shape: Shape of a block's result.
        task: ``[B]`` int64, the task of each question.
    """

    builder: GraphBuilder
    weights: npt.NDArray[np.float32]
    shape: StateShape
    task: ir.Value

    @property
    def blocks(self) -> int:
        """Blocks of a question, k."""
        return int(self.weights.shape[1])

    def add(self, chosen: ir.Value) -> ir.Value:
        """Return each question's results ``[B, k, ...]`` (``[B, ...]`` for k = 1), mixed, ``[B, ...]``."""
        if self.blocks > 1 and len(self.shape.dims) == 1:
            product = self.builder.op("MatMul", self._own(1, self.blocks), chosen)
            return self.builder.op("Squeeze", product, self.builder.integers(1))
        weighted = self._weigh(chosen)
        if self.blocks == 1:
            return weighted
        return self.builder.op("ReduceSum", weighted, self.builder.integers(1), keepdims=0)

    def join(self, chosen: ir.Value) -> ir.Value:
        """Return each question's results ``[B, k, ..., D]`` one after the other, ``[B, ..., k * D]``."""
        weighted = chosen if (self.weights == 1).all() else self._weigh(chosen)
        inner = len(self.shape.dims) - 1
        if inner > 0:
            order = [0, *range(2, 2 + inner), 1, 2 + inner]
            weighted = self.builder.op("Transpose", weighted, perm=order)
        width = self.blocks * int(self.shape.dims[-1] or 0)
        return self.builder.op("Reshape", weighted, self.builder.integers(*[0] * (1 + inner), width))

    def _weigh(self, chosen: ir.Value) -> ir.Value:
        """Return each question's results, each times its weight."""
        axes = [*([self.blocks] if self.blocks > 1 else []), *[1] * len(self.shape.dims)]
        return self.builder.op("Mul", chosen, self._own(*axes))

    def _own(self, *axes: int) -> ir.Value:
        """Return the weights of each question's task, ``[B, axes]``."""
        table = self.builder.constant(self.weights.reshape(len(self.weights), *axes), "mixture")
        return self.builder.op("Gather", table, self.task, axis=0)
