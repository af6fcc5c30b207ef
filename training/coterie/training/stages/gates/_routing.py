"""Routing networks (Rosenbaum et al. 2017): one expert a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coterie.training.draws import Draw
from coterie.training.stages.gates._base import Gate, leaning, most_likely


class RoutingGate(Gate):
    """Each task goes through exactly one expert, drawn from its softmax while training, as it is.

    The router here sees the task alone, which is the paper's tabular case with a one-step policy for each
    layer. It learns by the trainer's gate estimator: REINFORCE with a baseline, as in the paper, or, where
    that costs no more, the exact expectation over the experts of one layer.
    """

    drawn = True

    def __init__(self, tasks: int, experts: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(tasks, experts))

    def forward(self, task: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Draw one expert for each question; return it, and ones, both ``[B, M]``."""
        chosen = draw.categorical(self.logits[task])
        return chosen, torch.ones_like(chosen, dtype=self.logits.dtype)

    @torch.no_grad()
    def prefer(self, expert: Tensor) -> None:
        """Begin with one expert for each task, ``[N]``."""
        self.logits.copy_(leaning(expert, self.logits.shape[1]))

    def selection(self) -> Tensor:
        """Return each task's likeliest expert, bool ``[N, M]``."""
        return most_likely(self.logits, 1)

    def weights(self, selection: Tensor) -> Tensor:
        """Return ones, ``[N, M]``."""
        return torch.ones_like(selection, dtype=self.logits.dtype)

    def probabilities(self) -> Tensor:
        """Return the policy, ``[N, M]``."""
        return torch.softmax(self.logits, dim=1)
