"""Who needs which block for which input: the bookkeeping between questions, states and blocks.

B questions read S states through ``position`` [B]. A stage runs each needed (block, state) pair once, however
many questions need it; the router graph does the same with ONNX operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = 30
"""Choices that are packed into one number beside a question's."""

_DENSE = 8
"""So many possible pairs to a need are looked through faster than the needs are sorted."""


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
    needs = block * stride + state
    span = int(needs.max()) + 1 if len(needs) else 0
    if span <= _DENSE * len(needs):
        present = torch.zeros(span, dtype=torch.bool, device=needs.device)
        present[needs] = True
        keys, index = present.nonzero().flatten(), (present.cumsum(0) - 1)[needs]
    else:
        keys, index = torch.unique(needs, return_inverse=True)
    return Pairs(block=keys // stride, state=keys % stride, index=index)


def distinct_questions(question: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct questions among some that may ask the same of the same experts.

    Args:
        question: ``[B]`` int64, equal for questions of one task about one state.
        chosen: ``[B, M]`` bool, the experts each needs.

    Returns:
        The first of each distinct question, ascending, ``[U]``; and for each question its number, ``[B]``.
    """
    number = question
    for bits in torch.split(chosen, _BITS, dim=1):
        powers = 1 << torch.arange(bits.shape[1], device=chosen.device)
        keys = (number << _BITS) + (bits * powers).sum(dim=1)
        number = torch.unique(keys, return_inverse=True)[1]
    index = torch.arange(len(number), device=number.device)
    first = index.new_full((len(number),), len(number)).scatter_reduce(0, number, index, "amin")
    order = first[: int(number.max()) + 1 if len(number) else 0].argsort()
    return first[order], order.argsort()[number]
