"""A trained model after its freeze: the sharing plan and its blocks, nothing of how they were learned.

This is all that an exporter needs to know of a training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.plan import SharingPlan
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import Block


@dataclass(frozen=True, kw_only=True)
class FrozenBank:
    """The blocks of one stage: one architecture and a set of tensors for each block.

    Attributes:
        template: The architecture, in evaluation mode; its own weights mean nothing.
        tensors: For each block its parameters and buffers by name, detached. In a head bank their shapes
            differ with the tasks' numbers of classes.
    """

    template: Block
    tensors: tuple[dict[str, Tensor], ...]

    def run(self, block: int, states: Tensor) -> Tensor:
        """Run one block on ``[R, ...]``."""
        result: Tensor = functional_call(self.template, self.tensors[block], (states,))
        return result


@dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """The plan and one bank for each of its stages, in the order in which states flow.

    Attributes:
        input: The one tensor the first stage takes; its first dimension is the batch.
        tasks: What each task answers; the last stage (kind ``head``) has one block a task, in this order.
        plan: Which task uses which blocks.
        banks: One for each stage of the plan.
    """

    input: TensorSpec
    tasks: tuple[TaskSpec, ...]
    plan: SharingPlan
    banks: tuple[FrozenBank, ...]

    @property
    def width(self) -> int:
        """Largest number of outputs of a task, C."""
        return max(task.width for task in self.tasks)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, row: Tensor, task: Tensor) -> Tensor:
        """Answer B questions about R inputs, one at a time: the slow and obvious way.

        Args:
            inputs: ``[R, ...]``.
            row: ``[B]`` int64, the input each question is about.
            task: ``[B]`` int64, the task each question is of.

        Returns:
            Scores ``[B, C]``, of taggings ``[B, L, C]``; columns past a task's own width are 0.
        """
        tagging = self.tasks[0].kind == "tagging"
        scores = torch.zeros((len(row), *(inputs.shape[1:2] if tagging else ()), self.width))
        for question, (index, number) in enumerate(zip(row.tolist(), task.tolist(), strict=True)):
            answer = self.scores(number, inputs[index : index + 1])
            scores[question, ..., : answer.shape[-1]] = answer[0]
        return scores

    @torch.no_grad()
    def scores(self, task: int, inputs: Tensor) -> Tensor:
        """Return one task's scores for every input, ``[R, ...] -> [R, C_task]``."""
        states = inputs
        for number in range(len(self.banks)):
            states = self.handed_on(number, task, states)
        return states

    @torch.no_grad()
    def handed_on(self, number: int, task: int, states: Tensor) -> Tensor:
        """Return what one stage makes of a task's states, ``[R, ...] -> [R, ...]``."""
        stage, bank = self.plan.stages[number], self.banks[number]
        parts = [bank.run(block, states) for block in stage.uses[task]]
        if stage.weights[task] != (1.0,):
            parts = [part * weight for part, weight in zip(parts, stage.weights[task], strict=True)]
        if stage.combine == "concat":
            return torch.cat(parts, dim=-1)
        result = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        return result if stage.columns is None else result[:, stage.columns[task]]
