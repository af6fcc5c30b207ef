"""What every stage has in common."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.runtime.plan import BlockPlan, StageKind, StagePlan
from coterie.training.bank import Bank
from coterie.training.dispatch import State
from coterie.training.draws import Draw
from coterie.training.frozen import FrozenBank
from coterie.training.moments import Moments


class Stage(nn.Module, ABC):
    """One layer: a bank of blocks, and for each task a sparse weighted subset of it.

    Attributes:
        name: Unique within the model.
        tasks: Number of tasks, N.
        copies: How many times a question is asked while training; more than once for one stage at most.
        one_process: Why the stage cannot be trained by several processes; empty when it can.
    """

    kind: ClassVar[StageKind]
    copies: int = 1
    one_process: str = ""

    def __init__(self, name: str, tasks: int) -> None:
        super().__init__()
        self.name = name
        self.tasks = tasks

    @property
    def ready(self) -> bool:
        """Whether the stage, as it is now, could be frozen."""
        return True

    @property
    def least_epochs(self) -> int:
        """How many epochs a training takes at least until the stage is ready."""
        return 1

    @abstractmethod
    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:
        """Answer B questions of tasks ``[B]``; with ``draw``, gates are drawn rather than decided."""

    @abstractmethod
    def plan(self) -> StagePlan:
        """Return the stage as it would be frozen now, its unused blocks left out."""

    @abstractmethod
    def frozen_bank(self) -> FrozenBank:
        """Return the used blocks' tensors, in the plan's order."""

    def begin_epoch(self, epoch: int, moments: Moments) -> None:
        """Do what is due before the batches of ``epoch``, counted from 0."""

    def settle(self, epoch: int, moments: Moments, dev_losses: Callable[[], Tensor]) -> None:
        """Decide what ``epoch`` needs decided on dev; ``dev_losses`` scores the model as it is, ``[N]``."""

    def after_step(self, epoch: int, step: int, moments: Moments) -> None:
        """Do what is due after an update of the weights."""

    def penalty(self) -> Tensor:
        """Return what this stage adds to the loss, a scalar."""
        return torch.zeros(())

    def gate_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the gates' rate."""
        return []

    def rates(self) -> dict[int, float]:
        """Return the factors of learning rates that parameters ask for, by their ids."""
        return {}

    def report(self) -> dict[str, float]:
        """Return scalars worth a line in the history."""
        return {}


class BankStage(Stage):
    """A stage whose blocks are of one architecture.

    Attributes:
        bank: The blocks.
    """

    def __init__(self, name: str, tasks: int, bank: Bank) -> None:
        super().__init__(name, tasks)
        self.bank = bank

    def rates(self) -> dict[int, float]:
        """Return the factors of learning rates that the architecture asks for, by the parameters' ids."""
        return self.bank.rates()

    def frozen_bank(self) -> FrozenBank:
        """Return the used blocks' tensors, in the plan's order."""
        return FrozenBank(
            template=copy.deepcopy(self.bank.template).eval(),
            tensors=tuple(self.bank.tensors(block.source) for block in self.plan().blocks),
        )


def plan_of(
    stage: BankStage,
    uses: list[list[int]],
    weights: list[list[float]] | None = None,
    *,
    probabilities: Tensor | None = None,
    trained: int | None = None,
) -> StagePlan:
    """Make a plan from each task's blocks (indices into the bank), leaving out the blocks nobody uses."""
    sources = sorted({block for used in uses for block in used})
    renumbered = {source: index for index, source in enumerate(sources)}
    return StagePlan(
        name=stage.name,
        kind=stage.kind,
        trained_blocks=trained or stage.bank.blocks,
        blocks=tuple(
            BlockPlan(name=f"{stage.name}/{source}", source=source, parameters=stage.bank.block_parameters)
            for source in sources
        ),
        uses=tuple(tuple(renumbered[block] for block in used) for used in uses),
        weights=tuple(map(tuple, weights)) if weights else tuple((1.0,) for _ in uses),
        gate_probabilities=None if probabilities is None else tuple(map(tuple, probabilities.tolist())),
    )
