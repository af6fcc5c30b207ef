"""What blocks on sequences have in common: where there is something to read, and how to sum it up.

A position whose vector is all zeros is padding. Blocks that give sequences keep padding at zeros, and a row's
result does not depend on how much of it there is.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.blocks._shapes import InputShape

Pool = Literal["last", "max", "mean", "attention", "none"]
"""How a sequence becomes one vector: its last state (a backward direction's is at the first position), the
largest or the mean number of each column, the mean weighted by attention; ``none`` leaves the sequence."""


def present(states: Tensor) -> Tensor:
    """Return where there is no padding, ``[..., L, D] -> [..., L]`` bool."""
    return (states != 0).any(dim=-1)


def sequence_width(shape: InputShape, block: str) -> int:
    """Return D where the states are sequences ``(L, D)`` or sequences of sequences ``(S, L, D)``.

    Raises:
        ConfigError: If they are something else.
    """
    if shape.tokens or len(shape.dims) not in (2, 3) or shape.dims[-1] is None:
        raise ConfigError(f"block {block!r} takes sequences (length, D), but its input is {shape}")
    return shape.dims[-1]


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax over the last axis where ``mask``, and 0 elsewhere; all 0 where nothing is."""
    lowest = torch.finfo(scores.dtype).min
    top = torch.where(mask, scores, lowest).amax(dim=-1, keepdim=True)
    weight = torch.exp(torch.where(mask, scores - top, lowest))
    # Where nothing is present, the exponent is 0 rather than the lowest number less itself.
    weight = weight * mask.to(scores.dtype)
    return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1e-12)


class Attention(nn.Module):
    """The mean of a sequence weighted by attention, ``[..., L, D] -> [..., D]``; zeros where it is empty.

    u = tanh(W h + b), weights softmax(u . q) (Yang et al. 2016, "Hierarchical Attention Networks for Document
    Classification", equations 5 to 7).
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, width)
        self.query = nn.Parameter(torch.randn(width) / width**0.5)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Sum up ``[..., L, D]`` where ``mask`` ``[..., L]``."""
        scores = torch.matmul(torch.tanh(self.layer(states)), self.query.unsqueeze(-1)).squeeze(-1)
        return torch.matmul(masked_softmax(scores, mask).unsqueeze(-2), states).squeeze(-2)


class Pooling(nn.Module):
    """One vector for each sequence, ``[..., L, D] -> [..., D]``, zeros where nothing is present."""

    def __init__(self, pool: Pool, size: int, *, backward_from: int | None = None) -> None:
        """Take the way of pooling.

        Args:
            pool: The way.
            size: D.
            backward_from: The first of the columns that were computed from the end to the start.
        """
        super().__init__()
        self.pool = pool
        self.backward_from = size if backward_from is None else backward_from
        self.attention = Attention(size, size) if pool == "attention" else None

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Sum up ``[..., L, D]`` where ``mask`` ``[..., L]``; padding holds zeros."""
        if self.pool == "none":
            return states
        if self.attention is not None:
            result: Tensor = self.attention(states, mask)
            return result
        if self.pool == "mean":
            count = mask.sum(dim=-1, keepdim=True).clamp(min=1)
            return states.sum(dim=-2) / count
        if self.pool == "max":
            lowest = torch.finfo(states.dtype).min
            top = torch.where(mask.unsqueeze(-1), states, lowest).amax(dim=-2)
            return torch.where(mask.any(dim=-1, keepdim=True), top, torch.zeros_like(top))
        last = (lengths_of(mask) - 1).clamp(min=0)[..., None, None]
        index = last.expand(*last.shape[:-1], self.backward_from)
        forward = states[..., : self.backward_from].gather(-2, index).squeeze(-2)
        return torch.cat([forward, states[..., 0, self.backward_from :]], dim=-1)


def lengths_of(mask: Tensor) -> Tensor:
    """Return one more than the last present position, ``[..., L] -> [...]`` int64."""
    positions = torch.arange(1, mask.shape[-1] + 1, device=mask.device)
    return (mask.to(torch.int64) * positions).amax(dim=-1)
