"""DSelect-k (Hazimeh et al. 2021), static: k selectors a task, each of which becomes one expert."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from coterie.training.draws import Draw
from coterie.training.stages.gates._base import PREFERENCE, Gate, renormalised
from coterie.training.stages.gates._selectors import binary_codes, indecision, selectors

_START = 0.01
"""Selectors start undecided, where the smooth step is steepest."""
_DECIDED = 0.4
"""Digits that begin decided: steps of .97, on a slope that gradients can still go down."""


class DSelectGate(Gate):
    """q = sum_j softmax(alpha)_j r_j: a mixture of k selectors, each a distribution over experts.

    A selector writes its expert's number in binary, each digit a smooth step of one variable: 0 below -1/2,
    1 above 1/2, a cubic between. So ordinary gradients make it exactly one expert, once its digits have left
    the middle. At the freeze each selector is its likeliest expert.

    The penalty is the selectors' entropy and, where M is no power of 2, the price of pointing at experts that
    do not exist.

    Attributes:
        digits: z, ``[N, k, ceil(log2 M)]``.
        logits: alpha, ``[N, k]``.
    """

    codes: Tensor

    def __init__(self, tasks: int, experts: int, k: int) -> None:
        super().__init__()
        self.k, self.experts = k, experts
        codes = binary_codes(experts)
        self.logits = nn.Parameter(torch.zeros(tasks, k))
        self.digits = nn.Parameter(_START * (2 * torch.rand(tasks, k, codes.shape[1]) - 1))
        self.register_buffer("codes", codes, persistent=False)

    def selectors(self) -> Tensor:
        """Return r, ``[N, k, M]``."""
        return selectors(self.digits, self.codes)

    def forward(self, task: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the experts of some weight, and q, both ``[B, M]``."""
        q = self.probabilities()
        return (q > 0)[task], q[task]

    @torch.no_grad()
    def prefer(self, expert: Tensor) -> None:
        """Begin with one expert for each task, ``[N]``: the first selector's, nearly decided."""
        self.digits[:, 0] = _DECIDED * (2 * self.codes[expert] - 1)
        share = PREFERENCE / (1 - PREFERENCE) * max(1, self.k - 1)
        self.logits[:, 0] = math.log(share)

    def selection(self) -> Tensor:
        """Return the likeliest expert of each selector, bool ``[N, M]``."""
        return (self._chosen() > 0).any(dim=1)

    def weights(self, selection: Tensor) -> Tensor:
        """Return the selectors' shares by the experts they chose, ``[N, M]``."""
        shares = torch.softmax(self.logits, dim=1).unsqueeze(2)
        return renormalised((self._chosen() * shares).sum(dim=1), selection)

    def probabilities(self) -> Tensor:
        """Return q, ``[N, M]``."""
        return (torch.softmax(self.logits, dim=1).unsqueeze(2) * self.selectors()).sum(dim=1)

    def density(self) -> Tensor:
        """Return the number of experts of some weight, ``[N]``."""
        return (self.probabilities().detach() > 0).sum(dim=1).to(torch.float32)

    def penalty(self) -> Tensor:
        """Return the mean over tasks of the selectors' entropies and of what they lose to no expert."""
        return indecision(self.selectors()).mean()

    def gate_parameters(self) -> list[nn.Parameter]:
        """Return alpha and z."""
        return [self.logits, self.digits]

    def _chosen(self) -> Tensor:
        return nn.functional.one_hot(self.selectors().argmax(dim=2), self.experts).to(self.logits.dtype)
