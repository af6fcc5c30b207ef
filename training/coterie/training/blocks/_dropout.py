"""Dropout of sequences (Srivastava et al. 2014), drawn cheaply."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """Sets a share of the numbers to zero while training, and padding always, ``[..., D] -> [..., D]``.

    The share is one of 65536 levels: four numbers are decided by one draw of 64 bits. On a CPU, drawing takes
    several times as long as all else about it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped = min(round(rate * _LEVELS), _LEVELS - 1)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Keep what is drawn where ``mask`` ``[...]`` is true."""
        inside = mask.unsqueeze(-1)
        if not self.training or self.dropped == 0:
            return states * inside
        draws = torch.empty(-(-states.numel() // 4), dtype=torch.int64, device=states.device)
        draws.random_(-(1 << 63), None)
        bits = draws.view(torch.int16)[: states.numel()].reshape(states.shape)
        kept = (bits >= self.dropped - _LEVELS // 2) & inside
        return states * (kept * (_LEVELS / (_LEVELS - self.dropped))).to(states.dtype)
