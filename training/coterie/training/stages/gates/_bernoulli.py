"""The paper's gates: each expert is open or closed for a task (Task Multi-Clustering, Yan et al. 2019)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from coterie.training.draws import Draw
from coterie.training.stages.gates._base import PREFERENCE, AtFreeze, Gate, most_likely

MixtureInit = Literal["gaussian", "ones", "mean"]

_OTHERS = 0.5
"""How many other experts a gate that begins with one opens on average."""


class BernoulliGate(Gate):
    """b_i(t) ~ Bernoulli(p_i(t)), drawn for each question; z(t, x) = sum_i b_i(t) w_i(t) f_i(x) (equation 1).

    A task keeps its round(sum_i p_i(t)) most likely experts (equation 4), at least one; ``at_freeze`` names
    the other choices that section 4.2 compares.

    Attributes:
        mixture: w, ``[N, M]``.
        at_freeze: ``own_k``: equation 4. ``mean_k``: the mean density over tasks for every task. ``round``:
            the experts more likely than not. ``sample``: drawn once. ``all``: every expert.
    """

    drawn = True

    def __init__(
        self,
        tasks: int,
        experts: int,
        *,
        probability: float = 0.5,
        mixture: MixtureInit = "gaussian",
        at_freeze: AtFreeze = "own_k",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.at_freeze = at_freeze
        self._seed = seed
        self.logits = nn.Parameter(torch.full((tasks, experts), math.log(probability / (1 - probability))))
        self.mixture = nn.Parameter(initial_mixture(tasks, experts, mixture, probability * experts))

    def forward(self, task: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw experts for questions of tasks ``[B]``; return them and their weights, ``[B, M]``."""
        return draw.bernoulli(self.logits[task]), self.mixture[task]

    @torch.no_grad()
    def prefer(self, expert: Tensor) -> None:
        """Begin with one expert for each task, ``[N]``, of weight 1; others seldom open."""
        own = nn.functional.one_hot(expert, self.logits.shape[1]).to(torch.bool)
        others = _OTHERS / self.logits.shape[1]
        self.logits.copy_(torch.logit(torch.where(own, PREFERENCE, others)))
        self.mixture[own] = 1.0

    def selection(self) -> Tensor:
        """Return the experts that each task keeps, bool ``[N, M]``."""
        probabilities = self.probabilities().detach()
        density = probabilities.sum(dim=1)
        if self.at_freeze == "all":
            return torch.ones_like(probabilities, dtype=torch.bool)
        if self.at_freeze == "round":
            return (probabilities > 0.5) | most_likely(probabilities, 1)
        if self.at_freeze == "sample":
            numbers = torch.rand(probabilities.shape, generator=torch.Generator().manual_seed(self._seed))
            drawn = numbers.to(probabilities.device) < probabilities
            return drawn | (most_likely(probabilities, 1) & ~drawn.any(dim=1, keepdim=True))
        if self.at_freeze == "mean_k":
            density = density.mean().expand_as(density)
        return most_likely(probabilities, density.round().clamp(min=1).to(torch.int64))

    def weights(self, selection: Tensor) -> Tensor:
        """Return w, ``[N, M]``."""
        del selection
        return self.mixture

    def probabilities(self) -> Tensor:
        """Return p, ``[N, M]``."""
        return torch.sigmoid(self.logits)

    def density(self) -> Tensor:
        """Return k(t) = sum_i p_i(t), ``[N]``."""
        return self.probabilities().sum(dim=1)

    def penalty(self) -> Tensor:
        """Return the mean over tasks of k(t)."""
        return self.density().mean()


def initial_mixture(tasks: int, experts: int, kind: MixtureInit, drawn: float) -> Tensor:
    """Return w at the start: standard Gaussian as in the paper, 1, or the mean of the experts drawn."""
    if kind == "gaussian":
        return torch.randn(tasks, experts)
    return torch.full((tasks, experts), 1.0 if kind == "ones" else 1.0 / drawn)
