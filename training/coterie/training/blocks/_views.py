"""Views: unlike encodings of one input, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from coterie.training.blocks._base import Block, rates_within

ENCODERS = "encoders"


class Views(Block):
    """``[R, ...] -> [R, D]``, the encodings ``[R, D_v]`` of V views in a row.

    Args:
        views: By name the blocks of each, one after the other.
        sizes: D_v of each.
        rates: Factors of the learning rates of some.
        alone: Whether each is trained as if it were alone. All together then say V times as much as one, so
            that encodings are divided by V: for linear layers after them, scores of all views are the mean of
            what they are of each, the pool of several answers by their log odds.
    """

    def __init__(
        self,
        views: Mapping[str, Sequence[Block]],
        sizes: Sequence[int],
        rates: Mapping[str, float],
        *,
        alone: bool,
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.copies = len(self.sizes) if alone else 1
        self.encoders = nn.ModuleDict({name: nn.Sequential(*blocks) for name, blocks in views.items()})
        self.rates = rates_within(
            {
                f"{ENCODERS}.{name}.{place}": (block, rates.get(name, 1.0))
                for name, blocks in views.items()
                for place, block in enumerate(blocks)
            }
        )

    def forward(self, states: Tensor) -> Tensor:
        """Look at ``[R, ...]``."""
        return torch.cat([encoder(states) for encoder in self.encoders.values()], dim=1) / self.copies
