"""How large what a bundle replaces would be, and how large it is, by what its bytes are for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from coterie.exporter._model import BoundModel
from coterie.exporter._weights import WeightFile
from coterie.runtime.manifest import KindSizes, TensorUse
from coterie.runtime.plan import StageKind

_CUTS: Mapping[StageKind, str] = {
    "gated": "cut_experts",
    "cluster": "cut_centroids",
    "stitched": "cut_columns",
}


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
    """Return the bytes of every block that was trained, used or not."""
    return sum(trained for trained, _ in _stage_bytes(model, weights))


def cut_bytes(model: BoundModel, weights: WeightFile) -> dict[str, int]:
    """Return the bytes that were trained and are not in the weight file, by why they are not.

    ``cut_experts``, ``cut_centroids``, ``cut_columns`` and ``cut_others`` are blocks of gated, cluster,
    stitched and other stages that no task uses; a cluster layer's were the tasks' own before they were
    clustered.
    ``cut_equal`` are tensors that equal another. What was cut by nothing is left out.
    """
    found: dict[str, int] = {}
    stages = zip(model.plan.stages, _stage_bytes(model, weights), strict=True)
    for stage, (trained, kept) in stages:
        key = _CUTS.get(stage.kind, "cut_others")
        found[key] = found.get(key, 0) + trained - kept
    uses = model.tensor_uses().values()
    distinct = {(use.tensor, use.offset, use.shape): use for block in uses for use in block}
    found["cut_equal"] = sum(_bytes(block, weights) for block in uses) - _bytes(
        tuple(distinct.values()), weights
    )
    return {key: size for key, size in found.items() if size > 0}


def kind_sizes(model: BoundModel, weights: WeightFile) -> dict[StageKind, KindSizes]:
    """Return the bytes of weights before and after, by kind of stage, from the input on."""
    uses = model.tensor_uses()
    found: dict[StageKind, KindSizes] = {}
    seen: set[tuple[str, int, tuple[int, ...]]] = set()
    for stage, (trained, _) in zip(model.plan.stages, _stage_bytes(model, weights), strict=True):
        users = stage.users()
        blocks = [uses[block.name] for block in stage.blocks]
        kept = 0
        for use in (use for block in blocks for use in block):
            part = (use.tensor, use.offset, use.shape)
            if part not in seen:
                seen.add(part)
                kept += _bytes((use,), weights)
        before = found.get(stage.kind, KindSizes(copies=0, trained=0, kept=0))
        found[stage.kind] = KindSizes(
            copies=before.copies
            + sum(users.get(at, 0) * _bytes(block, weights) for at, block in enumerate(blocks)),
            trained=before.trained + trained,
            kept=before.kept + kept,
        )
    return found


def _stage_bytes(model: BoundModel, weights: WeightFile) -> Iterator[tuple[int, int]]:
    """Yield for each stage the bytes of all blocks that were trained, and of those that are kept."""
    uses = model.tensor_uses()
    for stage in model.plan.stages:
        kept = sum(_bytes(uses[block.name], weights) for block in stage.blocks)
        parameters = sum(block.parameters for block in stage.blocks)
        if stage.trained_parameters is not None and parameters:
            trained = kept * stage.trained_parameters // parameters
        else:
            trained = kept * stage.trained_blocks // len(stage.blocks)
        yield trained, kept


def _bytes(uses: Sequence[TensorUse], weights: WeightFile) -> int:
    """Return the bytes of tensors; a part of a stacked tensor counts as that part alone."""
    return sum(weights.spans[use.tensor].part(use.shape) for use in uses)
