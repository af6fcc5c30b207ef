"""What the tasks of a cluster layer are compared by: a row of numbers for each task.

KMeans then groups the rows. Weights are what the paper compares; gradients and outputs say the same of tasks
whose weights cannot be compared, or not yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coterie.training.bank import Bank

SimilarityKind = Literal["weights", "gradients", "function"]

_PROBE = 128
"""States on which tasks' outputs are compared."""
_KEPT = 0.99
"""Share of a task's mean gradient that stays when another is added."""


def similarity_of(kind: SimilarityKind, bank: Bank) -> Similarity:
    """Make what compares the blocks of a bank, one for each task."""
    if kind == "gradients":
        return GradientSimilarity(bank.blocks, bank)
    return FunctionSimilarity() if kind == "function" else WeightSimilarity()


class Similarity(nn.Module, ABC):
    """Compares tasks; what it remembers is in buffers, and so part of a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]

    @abstractmethod
    def rows(self, bank: Bank) -> Tensor:
        """Return a row for each task, ``[N, F]``."""

    def see(self, states: Tensor) -> None:
        """Notice the states ``[S, ...]`` that reach the layer in an epoch's first batch."""

    def forget(self) -> None:
        """Let go of what was remembered: the tasks are compared no more."""
        for name, remembered in list(self.named_buffers()):
            setattr(self, name, remembered.new_zeros(0))


class WeightSimilarity(Similarity):
    """By the tasks' weights w'_j (NCMTL, Algorithm 1, line 6)."""

    def rows(self, bank: Bank) -> Tensor:
        """Return the weights, ``[N, P]``."""
        return bank.flat()


class FunctionSimilarity(Similarity):
    """By what the tasks' blocks answer to the same real states: the order of hidden units plays no part.

    Attributes:
        probe: ``[S, ...]``, states that reached the layer while training; those of the newest epoch.
    """

    probe: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("probe", torch.zeros(0))

    def see(self, states: Tensor) -> None:
        """Keep some of the states, from everywhere among them: they may be in the order of their tasks."""
        chosen = torch.linspace(0, len(states) - 1, min(_PROBE, len(states)), device=states.device)
        self.probe = states.detach()[chosen.round().long()].clone()

    @torch.no_grad()
    def rows(self, bank: Bank) -> Tensor:
        """Return each task's outputs on the probe, ``[N, S * ...]``, as it would answer without dropout."""
        tasks, states = bank.blocks, len(self.probe)
        was_training = bank.training
        bank.eval()
        block = torch.arange(tasks, device=self.probe.device).repeat_interleave(states)
        outputs = bank.run(self.probe.repeat(tasks, *[1] * (self.probe.dim() - 1)), block)
        bank.train(was_training)
        return outputs.reshape(tasks, -1)


class GradientSimilarity(Similarity):
    """By where each task's loss would move the block that all of them still share.

    Clustered federated learning (Sattler et al. 2019) compares tasks so.

    Attributes:
        gradients: ``[N, P]``, each task's mean gradient at the common block, newer batches weighing more.
    """

    gradients: Tensor

    def __init__(self, tasks: int, bank: Bank) -> None:
        super().__init__()
        self.register_buffer("gradients", torch.zeros(tasks, bank.block_parameters))

    def common(self, bank: Bank) -> dict[str, Tensor]:
        """Return the blocks' mean weights for each task, ``[N, ...]``.

        Each task's gradient is noticed; what reaches the blocks' weights is the sum of all, so that they move
        as one.
        """
        shared, first = {}, 0
        means, tasks = bank.mean(), len(self.gradients)
        for name, weight in bank.weights.items():
            mean = means[name]
            tied = mean.expand(tasks, *mean.shape[1:])
            if tied.requires_grad:
                columns = slice(first, first + weight[0].numel())
                tied.register_hook(lambda gradient, columns=columns: self._notice(gradient, columns))  # type: ignore[no-untyped-call]
            first += weight[0].numel()
            shared[name] = tied
        return shared

    def _notice(self, gradient: Tensor, columns: slice) -> None:
        new = gradient.detach().flatten(1).to(self.gradients.dtype)
        asked = (new != 0).any(dim=1, keepdim=True)
        old = self.gradients[:, columns]
        self.gradients[:, columns] = torch.where(asked, _KEPT * old + (1 - _KEPT) * new, old)

    def rows(self, bank: Bank) -> Tensor:  # noqa: ARG002
        """Return the gradients' directions, less what all tasks have in common, ``[N, P]``."""
        own = self.gradients - self.gradients.mean(dim=0)
        return nn.functional.normalize(own, dim=1)


def _make_room(similarity: Similarity, stored: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Take the shapes of what was remembered before it is loaded: it differs from time to time."""
    for name, buffer in list(similarity.named_buffers()):
        tensor = stored.get(f"{prefix}{name}")
        if tensor is not None:
            setattr(similarity, name, torch.zeros_like(tensor, device=buffer.device))
