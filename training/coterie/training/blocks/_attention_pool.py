"""One vector for each sequence, by attention (Yang et al. 2016)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from coterie.training.blocks._base import Block, BlockConfig
from coterie.training.blocks._linear import Width
from coterie.training.blocks._sequence import Attention, present, sequence_width
from coterie.training.blocks._shapes import InputShape


class AttentionPoolConfig(BlockConfig):
    """The mean of a sequence, weighted by attention."""

    kind: Literal["attention_pool"] = "attention_pool"
    width: Width | None = None
    """Size of what is compared with the query; the states' own when not given."""

    def build(self, shape: InputShape) -> AttentionPool:
        """Make the pooling for sequences ``(L, D)`` or ``(S, L, D)``."""
        return AttentionPool(self, shape)


class AttentionPool(Block):
    """``[R, ..., L, D] -> [R, ..., D]``; padding weighs nothing, and padding alone gives zeros."""

    batched = True

    def __init__(self, config: AttentionPoolConfig, shape: InputShape) -> None:
        super().__init__()
        size = sequence_width(shape, "attention_pool")
        self.attention = Attention(size, config.width or size)

    def forward(self, states: Tensor) -> Tensor:
        """Sum up ``[R, ..., L, D]``."""
        result: Tensor = self.attention(states, present(states))
        return result
