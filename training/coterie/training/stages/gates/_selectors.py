"""Selectors of DSelect-k (Hazimeh et al. 2021, section 3): smooth choices of one expert each."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor


def binary_codes(experts: int) -> Tensor:
    """Return each expert's number in binary, ``[M, digits]``."""
    digits = max(1, (experts - 1).bit_length())
    codes = (torch.arange(experts).unsqueeze(1) >> torch.arange(digits)) & 1
    return codes.to(torch.float32)


def selectors(z: Tensor, codes: Tensor) -> Tensor:
    """Return how much each selector chooses each expert, ``[..., digits] -> [..., M]``.

    Every digit of the chosen number is the smooth step of one variable: 0 below -1/2, 1 above 1/2, a cubic
    between. So ordinary gradients make it exactly one expert, once its digits have left the middle.
    """
    z = z.clamp(-0.5, 0.5).unsqueeze(-2)
    step = -2 * z**3 + 1.5 * z + 0.5
    return reduce(torch.mul, (codes * step + (1 - codes) * (1 - step)).unbind(-1))


def indecision(chosen: Tensor) -> Tensor:
    """Return what k selectors ``[..., k, M]`` pay, ``[...]``: their entropy, and what they give to nobody.

    Where M is no power of 2, they can point at experts that do not exist.
    """
    entropy = -(chosen * chosen.clamp(min=1e-12).log()).sum(dim=(-2, -1))
    return entropy + (1 / chosen.sum(dim=-1).clamp(min=1e-3) - 1).sum(dim=-1)
