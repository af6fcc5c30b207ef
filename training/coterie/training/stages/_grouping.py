"""A start for gates: tasks that pull a common expert the same way begin with the same expert."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coterie.training.bank import Bank
from coterie.training.clustering import cluster
from coterie.training.dispatch import State
from coterie.training.similarity import GradientSimilarity
from coterie.training.stages._base import BankStage
from coterie.training.stages._shared import run_assigned


class Grouping(nn.Module):
    """Tasks share one expert, and are then grouped by their gradients there: a group for each expert.

    Gates that start undecided find many experts badly: some groups of tasks end in one expert, and others are
    torn apart, for by then the experts have grown into what they do.

    Attributes:
        open: Whether the tasks are still to be grouped; the experts are all alike till then.
    """

    open: Tensor

    def __init__(self, tasks: int, bank: Bank, *, groups: int, until: int, seed: int) -> None:
        """Group ``tasks`` tasks into ``groups`` when ``until`` epochs are over."""
        super().__init__()
        self.until = until
        self._groups = groups
        self._seed = seed
        self.similarity = GradientSimilarity(tasks, bank)
        self.register_buffer("open", torch.tensor(True))

    def run(self, stage: BankStage, state: State, task: Tensor) -> State:
        """Run the common expert for questions of tasks ``[B]``; while training, notice their gradients."""
        if stage.training:
            return run_assigned(stage, state, task, self.similarity.common(stage.bank))
        return run_assigned(stage, state, torch.zeros_like(task))

    def close(self, bank: Bank) -> Tensor:
        """Return each task's group ``[N]``; the experts go their own ways from here on."""
        labels = cluster(self.similarity.rows(bank), self._groups, seed=self._seed).labels
        self.similarity.forget()
        self.open.fill_(False)
        return labels
