"""Modules that are not coterie's, as a user would write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """A vector to ``width`` numbers, through a fixed projection."""

    def __init__(self, width: int, size: int = 4) -> None:
        super().__init__()
        self.projection = nn.Linear(size, size, bias=False).requires_grad_(False)
        self.layer = nn.Linear(size, width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("offset", torch.ones(width))

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(torch.relu(self.layer(self.projection(states)))) + self.offset


class Mixing(nn.Module):
    """A row's result depends on the others."""

    def forward(self, states: Tensor) -> Tensor:
        return states - states.mean(dim=0, keepdim=True)


class Twice(nn.Module):
    """Gives two results."""

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return states, states


def normalised(size: int) -> nn.Module:
    """A function that makes a module with batch normalisation."""
    return nn.Sequential(nn.Linear(size, 3), nn.BatchNorm1d(3))
