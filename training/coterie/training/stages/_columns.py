"""Stages that compute every task's state at once: columns that mix with each other, gates that see the input.

One block, ``[S, ...] -> [S, columns, ...]``, of which task t reads one column. It runs once for each distinct
state, however many questions are asked. Where gates see the input nothing of it can be cut for a task, and it
freezes to that one block.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from coterie.runtime.plan import BlockPlan, StageKind, StagePlan
from coterie.training.bank import Bank
from coterie.training.blocks import Block
from coterie.training.dispatch import State
from coterie.training.draws import Draw
from coterie.training.frozen import FrozenBank
from coterie.training.stages._base import Stage


class Columns(Block):
    """A block that gives several states for each one it takes, ``[S, ...] -> [S, columns, ...]``."""

    @abstractmethod
    def forward(self, states: Tensor) -> Tensor:
        """Map ``[S, ...]`` to ``[S, columns, ...]``."""

    def auxiliary(self, asked: Tensor) -> Tensor:
        """Return what the last ``forward`` adds to the loss, a scalar.

        Called once after each ``forward`` of a training step, so that nothing needs to be kept longer.

        Args:
            asked: ``[S, columns]`` bool, what some question reads.
        """
        return torch.zeros((), device=asked.device)

    def report(self) -> dict[str, float]:
        """Return scalars worth a line in the history."""
        return {}


class ColumnsStage(Stage):
    """One block for all tasks, of whose columns task t reads ``column[t]``.

    Attributes:
        block: The block.
        column: ``[N]`` int64.
    """

    column: Tensor

    def __init__(self, name: str, tasks: int, kind: StageKind, block: Columns, column: Sequence[int]) -> None:
        super().__init__(name, tasks)
        self.kind = kind  # type: ignore[misc]
        self.block = block
        self.register_buffer("column", torch.tensor(column), persistent=False)
        self._auxiliary = torch.zeros(())

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:  # noqa: ARG002
        """Run the block on the states ``[S, ...]``; each column of each is a state of its own."""
        values: Tensor = self.block(state.values)
        columns = values.shape[1]
        position = state.position * columns + self.column[task]
        if self.training:
            asked = torch.zeros(len(values) * columns, dtype=torch.bool, device=values.device)
            asked[position] = True
            self._auxiliary = self.block.auxiliary(asked.reshape(-1, columns))
        return State(values.flatten(0, 1), position)

    def penalty(self) -> Tensor:
        """Return what the block's last run adds to the loss."""
        return self._auxiliary

    def rates(self) -> dict[int, float]:
        """Return the factors of learning rates that the block asks for, by the parameters' ids."""
        return {id(self.block.get_parameter(name)): factor for name, factor in self.block.rates.items()}

    def report(self) -> dict[str, float]:
        """Return the block's scalars."""
        return self.block.report()

    def plan(self) -> StagePlan:
        """Return the plan: the one block for everybody, and each task's column."""
        parameters = sum(parameter.numel() for parameter in self.block.parameters())
        return StagePlan(
            name=self.name,
            kind=self.kind,
            trained_blocks=1,
            blocks=(BlockPlan(name=f"{self.name}/0", source=0, parameters=parameters),),
            uses=tuple((0,) for _ in range(self.tasks)),
            weights=tuple((1.0,) for _ in range(self.tasks)),
            columns=tuple(self.column.tolist()),
        )

    def frozen_bank(self) -> FrozenBank:
        """Return the block and its tensors."""
        named = {**dict(self.block.named_parameters()), **dict(self.block.named_buffers())}
        tensors = {name: tensor.detach().clone() for name, tensor in named.items()}
        template = copy.deepcopy(self.block).eval()
        for bank in template.modules():
            if isinstance(bank, Bank):
                # A copy of what was compiled would go on calling the original.
                bank.compute_in("fp32")
        return FrozenBank(template=template, tensors=(tensors,))
