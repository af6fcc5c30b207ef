"""Blocks of the tests, and what builds a frozen model stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.plan import BlockPlan, SharingPlan, StageKind, StagePlan
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import Block, LinearHead
from coterie.training.frozen import FrozenBank, FrozenModel
from coterie.training.several import each
from coterie.training.stages import Stage

Uses = Sequence[dict[int, float]]
"""For each task its blocks and their mixture weights."""


class LstmBlock(Block):
    """``[R, D] -> [R, H]``, reading every feature as one step."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, batch_first=True)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[R, D]`` to the last hidden state."""
        _, (hidden, _) = self.lstm(states.unsqueeze(2))
        return hidden[0]


class Columns(Block):
    """``[R, ..., D] -> [R, columns, ..., D]``, a map of the last axis for each column."""

    def __init__(self, size: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(columns, size, size))

    def forward(self, states: Tensor) -> Tensor:
        """Return each column's map of the states."""
        return torch.stack([torch.tanh(states @ weight) for weight in self.weight.unbind(0)], dim=1)


class Embed(Block):
    """Tokens ``[R, L]`` to sequence states ``[R, L, D]``; padding stays 0."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocabulary, width))

    def forward(self, states: Tensor) -> Tensor:
        """Look the tokens up."""
        return self.table[states] * (states != 0).unsqueeze(-1)


class Pool(Block):
    """Sequence states ``[R, L, D]`` to their sums ``[R, D]``."""

    def forward(self, states: Tensor) -> Tensor:
        """Add up the positions."""
        return states.sum(1)


class QuadraticHead(Block):
    """A head that is no linear map."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, width)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[R, D]`` to scores ``[R, C]``."""
        return self.layer(states).square()


def tensors_of(block: nn.Module) -> dict[str, Tensor]:
    """Return random weights for a block, as a freeze would hold them."""
    named = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    return {name: torch.randn(tensor.shape) * 0.4 for name, tensor in named.items()}


@dataclass
class Maker:
    """Builds a frozen model stage by stage."""

    tasks: tuple[TaskSpec, ...]
    inputs: TensorSpec | tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        self.stages: list[StagePlan] = []
        self.banks: list[FrozenBank] = []

    def bank(self, name: str, kind: StageKind, template: Block, uses: Uses, **options: Any) -> Maker:
        """Add a stage with random tensors, as many as the plan's highest index asks for."""
        count = max(max(used) for used in uses) + 1
        tensors = tuple(tensors_of(template) for _ in range(count))
        return self.stage(name, kind, template, tensors, uses, **options)

    def stage(
        self,
        name: str,
        kind: StageKind,
        template: Block,
        tensors: tuple[dict[str, Tensor], ...],
        uses: Uses,
        *,
        trained: int | None = None,
        **options: Any,
    ) -> Maker:
        """Add a stage with given tensors."""
        self.stages.append(
            StagePlan(
                name=name,
                kind=kind,
                trained_blocks=trained or len(tensors),
                blocks=tuple(
                    BlockPlan(
                        name=f"{name}/{index}", source=index, parameters=sum(t.numel() for t in own.values())
                    )
                    for index, own in enumerate(tensors)
                ),
                uses=tuple(tuple(used) for used in uses),
                weights=tuple(tuple(used.values()) for used in uses),
                **options,
            )
        )
        self.banks.append(FrozenBank(template=template.eval(), tensors=tensors))
        return self

    def built(self, stage: Stage) -> Maker:
        """Add a stage as its freeze leaves it."""
        self.stages.append(stage.plan())
        self.banks.append(stage.frozen_bank())
        return self

    def heads(self, size: int) -> FrozenModel:
        """Add linear heads and return the model."""
        tensors = tuple(tensors_of(LinearHead(size, task.width)) for task in self.tasks)
        uses = [{index: 1.0} for index in range(len(self.tasks))]
        return self.stage("heads", "head", LinearHead(size, 2), tensors, uses).done()

    def done(self) -> FrozenModel:
        """Return the model."""
        plan = SharingPlan(tasks=tuple(task.name for task in self.tasks), stages=tuple(self.stages))
        return FrozenModel(inputs=each(self.inputs), tasks=self.tasks, plan=plan, banks=tuple(self.banks))


def task(name: str, kind: str = "classification", width: int = 2) -> TaskSpec:
    """Return a task with made-up labels."""
    return TaskSpec(name=name, kind=kind, labels=tuple(f"label {index}" for index in range(width)))


def all_of(tasks: Sequence[TaskSpec], block: int = 0) -> Uses:
    """Every task uses one block."""
    return [{block: 1.0} for _ in tasks]
