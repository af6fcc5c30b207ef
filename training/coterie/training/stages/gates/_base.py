"""What every gate has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from coterie.training.draws import Draw

PREFERENCE = 0.9
"""How likely a gate that begins with one expert chooses it."""

AtFreeze = Literal["own_k", "mean_k", "round", "sample", "all"]


class Gate(nn.Module, ABC):
    """How each of N tasks chooses among M experts.

    Attributes:
        logits: ``[N, M]``, what the choice depends on; what it means differs from gate to gate.
        drawn: Whether experts are drawn at random while training, with a gradient that must be estimated.
        separable: Whether a task may be left with fewer experts than it chose.
    """

    logits: nn.Parameter
    drawn: bool = False
    separable: bool = True

    @abstractmethod
    def forward(self, task: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Choose for questions of tasks ``[B]`` while training.

        Returns:
            The experts chosen, bool, and the weights they are mixed with, both ``[B, M]``.
        """

    @abstractmethod
    def selection(self) -> Tensor:
        """Return the experts that each task keeps, bool ``[N, M]``."""

    @abstractmethod
    def weights(self, selection: Tensor) -> Tensor:
        """Return the weights ``[N, M]`` with which tasks mix the experts they keep, bool ``[N, M]``."""

    @abstractmethod
    def probabilities(self) -> Tensor:
        """Return how likely, or how strongly, each task uses each expert, ``[N, M]``."""

    @abstractmethod
    def prefer(self, expert: Tensor) -> None:
        """Begin with one expert for each task, ``[N]``, from which the gate can still learn away."""

    def density(self) -> Tensor:
        """Return the expected number of experts that each task computes while training, ``[N]``."""
        return self.selection().sum(dim=1).to(torch.float32)

    def penalty(self) -> Tensor:
        """Return what lambda multiplies, a scalar."""
        return torch.zeros((), device=self.logits.device)

    def gate_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the gates' rate."""
        return [self.logits]


def most_likely(probabilities: Tensor, number: Tensor | int) -> Tensor:
    """Return each task's ``number`` (``[N]``, or one for all) most likely experts, ``[N, M]`` bool."""
    # A stable sort, so that equally likely experts are taken in the same order everywhere.
    order = torch.sort(probabilities.detach(), dim=1, descending=True, stable=True).indices
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, place)
    return rank < (number.unsqueeze(1) if isinstance(number, Tensor) else number)


def leaning(expert: Tensor, experts: int) -> Tensor:
    """Return logits ``[N, M]`` whose softmax gives each task's expert ``[N]`` nine tenths."""
    own = math.log(PREFERENCE / (1 - PREFERENCE) * max(1, experts - 1))
    return own * nn.functional.one_hot(expert, experts)


def renormalised(weights: Tensor, selection: Tensor) -> Tensor:
    """Return weights ``[N, M]`` of the selected experts that add up to 1."""
    kept = torch.where(selection, weights, 0.0)
    return kept / kept.sum(dim=1, keepdim=True).clamp(min=1e-12)
