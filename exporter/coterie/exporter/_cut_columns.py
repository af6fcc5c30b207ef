"""Stitched columns that hardly take from each other: small shares become 0, and what nobody needs then goes.

What a share is worth is measured: the more of them are 0, the smaller are task graphs and weights, and the
more a task may lose.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from coterie.exporter._verify import Reference
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import ColumnCut
from coterie.training import MultiTaskModel
from coterie.training.stages import StitchedStage

Measure = Callable[[Reference], Mapping[str, float]]
"""What a model scores on validation data: task name to its metric, where it is defined."""

_POINTS = 100.0
_ROUNDING = 1e-9


def cut_columns(model: MultiTaskModel, measure: Measure, allowed: float) -> tuple[MultiTaskModel, ColumnCut]:
    """Cut the smallest shares (alpha) of all stitched stages, as many as no task loses too much by.

    Args:
        model: The model, which is left as it is.
        measure: What a model scores on validation data.
        allowed: Points that a task may lose there; a point is 0.01 of its metric.

    Returns:
        The model without those shares, and what was cut.

    Raises:
        ExportError: If the model has no stitched columns, or ``allowed`` is no number from 0 on.
    """
    if not (math.isfinite(allowed) and allowed >= 0):
        raise ExportError(f"a task cannot be allowed to lose {allowed} points: give 0 or more, like 0.5")
    alphas = _alphas(model)
    if not alphas:
        raise ExportError("the model has no columns that take from each other: leave the cut of columns out")
    sizes = sorted({size for alpha in alphas for size in alpha.detach().abs().flatten().tolist() if size})
    # The first of them cuts nothing, the last whatever may be cut.
    thresholds = [0.0, *sizes[1:], *(2 * size for size in sizes[-1:])]
    before = measure(model)
    low, high, drops = 0, len(thresholds) - 1, dict.fromkeys(before, 0.0)
    # Where less is cut less is lost, by and large: halving finds a threshold that is allowed, and as a rule
    # the highest.
    while low < high:
        middle = (low + high + 1) // 2
        after = measure(_cut(model, thresholds[middle]))
        lost = {task: _POINTS * (score - after.get(task, 0.0)) for task, score in before.items()}
        if max(lost.values(), default=0.0) <= allowed + _ROUNDING:
            low, drops = middle, lost
        else:
            high = middle - 1
    result = _cut(model, thresholds[low])
    there, left = (
        sum(int(torch.count_nonzero(alpha)) for alpha in _alphas(each)) for each in (model, result)
    )
    return result, ColumnCut(
        threshold=thresholds[low],
        cut=there - left,
        of=there,
        max_metric_drop=allowed,
        drops={task: round(drop, 4) for task, drop in drops.items()},
    )


def _alphas(model: MultiTaskModel) -> list[nn.Parameter]:
    stages = [stage for stage in model.each_stage() if isinstance(stage, StitchedStage)]
    return [alpha for stage in stages for alpha in stage.alphas()]


@torch.no_grad()
def _cut(model: MultiTaskModel, threshold: float) -> MultiTaskModel:
    """Return a copy without the shares below a threshold, but for the largest of each subspace."""
    result = copy.deepcopy(model)
    for alpha in _alphas(result):
        size = alpha.abs()
        alpha.masked_fill_((size < threshold) & (size < size.max(dim=1, keepdim=True).values), 0.0)
    return result
