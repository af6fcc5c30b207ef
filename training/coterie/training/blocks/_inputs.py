"""First blocks: they turn raw inputs into the states that networks like. They learn nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.training.blocks._base import Block


class Standardise(Block):
    """``[R, D] -> [R, D]``: subtract each feature's training mean, divide by its deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.to(torch.float32))
        self.register_buffer("scale", scale.to(torch.float32))

    def forward(self, states: Tensor) -> Tensor:
        """Map raw features ``[R, D]`` to standardised ones."""
        return (states - self.mean) * self.scale


class ImageInput(Block):
    """uint8 pixels ``[R, H, W, C] -> [R, C, H, W]``, each channel standardised."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.to(torch.float32).reshape(-1, 1, 1))
        self.register_buffer("scale", scale.to(torch.float32).reshape(-1, 1, 1))

    def forward(self, states: Tensor) -> Tensor:
        """Map pixels ``[R, H, W, C]`` to channels first, ``[R, C, H, W]``."""
        return (states.to(torch.float32).permute(0, 3, 1, 2) - self.mean) * self.scale
