"""How large what a bundle replaces would be."""

from __future__ import annotations

from collections.abc import Sequence

from coterie.exporter._model import BoundModel
from coterie.exporter._weights import WeightFile
from coterie.runtime.manifest import TensorUse


def standalone_bytes(model: BoundModel, weights: WeightFile, graphs: Sequence[int]) -> int:
    """Return the bytes of all tasks as self-contained files.

    Args:
        model: What was exported.
        weights: Its weight file.
        graphs: Length of each task's graph, without weights.
    """
    uses = model.tensor_uses()
    total = 0
    for task, graph in enumerate(graphs):
        names = [stage.blocks[block].name for stage in model.plan.stages for block in stage.uses[task]]
        distinct = {(use.tensor, use.offset, use.shape): use for name in names for use in uses[name]}
        total += graph + _bytes(tuple(distinct.values()), weights)
    return total


def dense_bytes(model: BoundModel, weights: WeightFile) -> int:
    """Return the bytes of every block that was trained, used or not; blocks of a stage are alike."""
    uses = model.tensor_uses()
    total = 0
    for stage in model.plan.stages:
        kept = sum(_bytes(uses[block.name], weights) for block in stage.blocks)
        total += kept * stage.trained_blocks // len(stage.blocks)
    return total


def _bytes(uses: Sequence[TensorUse], weights: WeightFile) -> int:
    """Return the bytes of tensors; a part of a stacked tensor counts as that part alone."""
    return sum(weights.spans[use.tensor].part(use.shape) for use in uses)
