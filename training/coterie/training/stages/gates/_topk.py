"""Noisy top-k gating (Shazeer et al. 2017), of the task alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from coterie.training.draws import Draw
from coterie.training.stages.gates._base import Gate, leaning, most_likely, renormalised


class TopKGate(Gate):
    """A softmax over the k experts of the largest logits; while training, of noisy ones (section 2.1).

    H_i(t) = logits_i(t) + N(0, 1) softplus(noise_i(t)), drawn for each question. The k experts' shares carry
    the gradient; nothing has to be estimated.

    Attributes:
        noise: ``[N, M]``, what the noise's deviation is the softplus of.
    """

    def __init__(self, tasks: int, experts: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.logits = nn.Parameter(torch.zeros(tasks, experts))
        self.noise = nn.Parameter(torch.zeros(tasks, experts))

    def forward(self, task: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """Choose k experts for each question; return them and their shares, both ``[B, M]``."""
        logits = self.logits[task]
        noisy = logits + draw.normal(logits.shape[1], logits.device) * softplus(self.noise[task])
        chosen = most_likely(noisy, self.k)
        return chosen, torch.softmax(noisy.masked_fill(~chosen, -torch.inf), dim=1)

    @torch.no_grad()
    def prefer(self, expert: Tensor) -> None:
        """Begin with one expert for each task, ``[N]``."""
        self.logits.copy_(leaning(expert, self.logits.shape[1]))

    def selection(self) -> Tensor:
        """Return the k experts of the largest logits, bool ``[N, M]``."""
        return most_likely(self.logits, self.k)

    def weights(self, selection: Tensor) -> Tensor:
        """Return the shares of the experts kept, ``[N, M]``."""
        return renormalised(self.probabilities(), selection)

    def probabilities(self) -> Tensor:
        """Return the softmax of all logits, ``[N, M]``."""
        return torch.softmax(self.logits, dim=1)

    def gate_parameters(self) -> list[nn.Parameter]:
        """Return the logits, and the noise's."""
        return [self.logits, self.noise]
