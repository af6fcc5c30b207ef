"""The arithmetic that questions need, counted from the plan."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from coterie.runtime import Bundle
from coterie.runtime.manifest import TensorUse


def flop(bundle: Bundle, task: npt.NDArray[np.int64]) -> float:
    """Return the FLOP that B questions about B different inputs need at least.

    Two for each weight of a matrix and each row that goes through it; what is added to a state or to its
    mixture is not counted. No two questions share a state, as their inputs differ.

    Args:
        bundle: Of fully connected blocks.
        task: [B].
    """
    manifest = bundle.manifest
    total = 0.0
    for stage in manifest.plan.stages:
        cost = [_matrices(manifest.tensors[block.name]) for block in stage.blocks]
        total += sum(2.0 * cost[block] for own in task.tolist() for block in stage.uses[own])
    return total


def block_bytes(bundle: Bundle, task: npt.NDArray[np.int64]) -> int:
    """Return the bytes of the weights that these tasks use, each block once: what must be read at least."""
    manifest = bundle.manifest
    used = {
        stage.blocks[block].name
        for stage in manifest.plan.stages
        for own in task.tolist()
        for block in stage.uses[own]
    }
    return sum(4 * math.prod(use.shape) for name in used for use in manifest.tensors[name])


def _matrices(uses: tuple[TensorUse, ...]) -> int:
    """Return the number of weights in a block's matrices."""
    return sum(math.prod(use.shape) for use in uses if len(use.shape) == 2)
