"""Soft parameter sharing: a block for each task, pulled towards the others by a penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from coterie.runtime.plan import StagePlan
from coterie.training.bank import Bank
from coterie.training.blocks import Block
from coterie.training.dispatch import State
from coterie.training.draws import Draw
from coterie.training.stages._base import BankStage, Stage, plan_of
from coterie.training.stages._config import BlockStageConfig, NotNegative, Site
from coterie.training.stages._shared import run_assigned

SoftPenalty = Literal["l2", "trace_norm", "tucker"]

_SMOOTH = 1e-8
"""Added to squared singular values: the norm's gradient is not finite at 0."""


class SoftConfig(BlockStageConfig):
    """A block for each task; their weights pay for being unlike."""

    kind: Literal["soft"] = "soft"
    penalty: SoftPenalty = "l2"
    """``l2``: half the squared distance to the tasks' mean, summed over tasks (Duong et al. 2015).
    ``trace_norm`` and ``tucker`` (Yang and Hospedales 2017): of each stacked weight, the sum of the singular
    values of the matrix that has a row for each task, or of all matrices that it can be unfolded to."""
    strength: NotNegative = 1e-2
    """What the penalty is multiplied by."""
    alike: bool = True
    """Whether all tasks start from the same weights."""

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        tasks = len(site.tasks)
        bank = Bank(make, tasks, alike=self.alike)
        return SoftStage(site.name, tasks, bank, penalty=self.penalty, strength=self.strength)


class SoftStage(BankStage):
    """Task t uses block t; the blocks' weights are pulled together while training.

    Attributes:
        strength: What the penalty is multiplied by.
    """

    kind = "soft"

    def __init__(
        self, name: str, tasks: int, bank: Bank, *, penalty: SoftPenalty = "l2", strength: float = 1e-2
    ) -> None:
        super().__init__(name, tasks, bank)
        self.strength = strength
        self._measure = {"l2": _distance, "trace_norm": _trace_norm, "tucker": _tucker_norm}[penalty]

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:  # noqa: ARG002
        """Run each question's own block, ``[S, ...] -> [P, ...]``."""
        return run_assigned(self, state, task)

    def plan(self) -> StagePlan:
        """Return the plan: block t for task t."""
        return plan_of(self, [[task] for task in range(self.tasks)])

    def penalty(self) -> Tensor:
        """Return the strength times how unlike the tasks' weights are."""
        if self.strength == 0:
            return super().penalty()
        measured = [self._measure(weight) for weight in self.bank.weights.values()]
        return self.strength * torch.stack(measured).sum()

    def report(self) -> dict[str, float]:
        """Return how far the tasks' weights are from their mean, relative to its size."""
        rows = self.bank.flat()
        mean = rows.mean(0)
        return {"spread": float((rows - mean).norm(dim=1).mean() / mean.norm().clamp(min=1e-12))}


def _distance(weight: Tensor) -> Tensor:
    """Return half the squared distance of ``[N, ...]`` to its mean over tasks."""
    return 0.5 * (weight - weight.mean(0)).square().sum()


def _trace_norm(weight: Tensor) -> Tensor:
    """Return the sum of the singular values of ``[N, ...]`` as N rows ("last axis flattening")."""
    return _nuclear(weight.flatten(1))


def _tucker_norm(weight: Tensor) -> Tensor:
    """Return the sum of the singular values of all unfoldings of ``[N, ...]``."""
    return torch.stack([_nuclear(weight.movedim(axis, 0).flatten(1)) for axis in range(weight.dim())]).sum()


def _nuclear(matrix: Tensor) -> Tensor:
    """Return the sum of the singular values: the roots of the eigenvalues of the smaller product with itself.

    Their gradient holds no differences of eigenvalues, so equal ones, as of tasks that start alike, are no
    trouble.
    """
    rows, columns = matrix.shape
    gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return (squares.clamp(min=0) + _SMOOTH).sqrt().sum()
