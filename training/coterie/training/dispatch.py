"""Who needs which block for which input: the bookkeeping between questions, states and blocks.

B questions read S states through ``position`` [B]. A stage runs each needed (block, state) pair once, however
many questions need it; the router graph does the same with ONNX operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """What flows from stage to stage.

    Attributes:
        values: ``[S, ...]``, one row for each distinct state.
        position: ``[B]`` int64, the state each question reads.
    """

    values: Tensor
    position: Tensor


@dataclass(frozen=True)
class Pairs:
    """Distinct (block, state) pairs, ascending by block, then state.

    Attributes:
        block: ``[P]`` int64.
        state: ``[P]`` int64.
        index: For each need (a question's use of a block), its pair.
    """

    block: Tensor
    state: Tensor
    index: Tensor


def distinct_pairs(block: Tensor, state: Tensor, states: int) -> Pairs:
    """Find the distinct pairs among needs.

    Args:
        block: ``[E]`` int64, the block each need is of.
        state: ``[E]`` int64, the state it reads.
        states: Number of states, S.
    """
    stride = max(states, 1)
    keys, index = torch.unique(block * stride + state, return_inverse=True)
    return Pairs(block=keys // stride, state=keys % stride, index=index)
