"""Mixtures of all experts: nothing is chosen, so nothing is left out at the freeze."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coterie.training.draws import Draw
from coterie.training.stages.gates._base import Gate, leaning
from coterie.training.stages.gates._bernoulli import MixtureInit, initial_mixture


class UngatedMixture(Gate):
    """Task Multi-Clustering, section 4.1: b = 1, the cross-stitch network's linear combinations of experts.

    Attributes:
        mixture: w, ``[N, M]``.
    """

    separable = False

    def __init__(self, tasks: int, experts: int, *, mixture: MixtureInit = "gaussian") -> None:
        super().__init__()
        self.mixture = nn.Parameter(initial_mixture(tasks, experts, mixture, experts))
        self.logits = nn.Parameter(torch.zeros(tasks, experts), requires_grad=False)

    def forward(self, task: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return all experts, and w(t)."""
        return self.selection()[task], self.mixture[task]

    @torch.no_grad()
    def prefer(self, expert: Tensor) -> None:
        """Begin with the weight of one expert for each task, ``[N]``."""
        self.mixture.copy_(nn.functional.one_hot(expert, self.mixture.shape[1]))

    def selection(self) -> Tensor:
        """Return all experts, bool ``[N, M]``."""
        return torch.ones_like(self.mixture, dtype=torch.bool)

    def weights(self, selection: Tensor) -> Tensor:
        """Return w, ``[N, M]``."""
        del selection
        return self.mixture

    def probabilities(self) -> Tensor:
        """Return 1 for every expert, ``[N, M]``."""
        return torch.ones_like(self.mixture)

    def gate_parameters(self) -> list[nn.Parameter]:
        """Return nothing: w learns at the weights' rate."""
        return []


class SoftmaxGate(Gate):
    """A softmax over all experts: MMoE (Ma et al. 2018) with gates that see the task alone."""

    separable = False

    def __init__(self, tasks: int, experts: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(tasks, experts))

    def forward(self, task: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return all experts, and their shares."""
        return self.selection()[task], self.probabilities()[task]

    @torch.no_grad()
    def prefer(self, expert: Tensor) -> None:
        """Begin with one expert for each task, ``[N]``."""
        self.logits.copy_(leaning(expert, self.logits.shape[1]))

    def selection(self) -> Tensor:
        """Return all experts, bool ``[N, M]``."""
        return torch.ones_like(self.logits, dtype=torch.bool)

    def weights(self, selection: Tensor) -> Tensor:
        """Return the experts' shares, ``[N, M]``."""
        del selection
        return self.probabilities()

    def probabilities(self) -> Tensor:
        """Return the experts' shares, ``[N, M]``."""
        return torch.softmax(self.logits, dim=1)
