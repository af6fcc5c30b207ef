"""The first block of a model of several inputs: each is encoded by itself, then put in a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coterie.training.blocks._base import Block, rates_within


class Joined(Block):
    """``[R, ...]`` of each input ``-> [R, D]``, the encodings ``[R, D_i]`` in a row.

    Args:
        encoders: For each input the blocks that encode it, one after the other; none leave it as it is.
    """

    def __init__(self, encoders: Sequence[Sequence[Block]]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(nn.Sequential(*blocks) for blocks in encoders)
        self.rates = rates_within(
            {
                f"encoders.{number}.{place}": (block, 1.0)
                for number, blocks in enumerate(encoders)
                for place, block in enumerate(blocks)
            }
        )

    # No other block takes several tensors: only what comes first in a model is given inputs.
    def forward(self, states: tuple[Tensor, ...]) -> Tensor:  # type: ignore[override]
        """Map the inputs to one state."""
        parts = [encoder(values) for encoder, values in zip(self.encoders, states, strict=True)]
        return torch.cat(parts, dim=1)
