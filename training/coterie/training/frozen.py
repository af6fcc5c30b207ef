"""A trained model after its freeze: the sharing plan and its blocks, nothing of how they were learned.

This is all that an exporter needs to know of a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.plan import SharingPlan, Stitches
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import Block
from coterie.training.several import Tensors, each, take


@dataclass(frozen=True, kw_only=True)
class FrozenBank:
    """The blocks of one stage: an architecture, as a rule one for all, and a set of tensors for each block.

    Attributes:
        template: The architecture (of the first block), in evaluation mode; its own weights mean nothing.
        tensors: For each block its parameters and buffers by name, detached. In a head bank their shapes
            differ with the tasks' numbers of classes.
        templates: Each block's own architecture, where they differ; empty where all are ``template``'s.
    """

    template: Block
    tensors: tuple[dict[str, Tensor], ...]
    templates: tuple[Block, ...] = ()

    def architecture(self, block: int) -> Block:
        """Return one block's architecture."""
        return self.templates[block] if self.templates else self.template

    def run(self, block: int, states: Tensors) -> Tensor:
        """Run one block on ``[R, ...]``."""
        result: Tensor = functional_call(self.architecture(block), self.tensors[block], (states,))
        return result


@dataclass(frozen=True, kw_only=True)
class FrozenModel:
    """The plan and one bank for each of its stages, in the order in which states flow.

    Attributes:
        inputs: The tensors the first stage takes; the first dimension of each is the batch.
        tasks: What each task answers; the last stage (kind ``head``) has one block a task, in this order.
        plan: Which task uses which blocks.
        banks: One for each stage of the plan.
    """

    inputs: tuple[TensorSpec, ...]
    tasks: tuple[TaskSpec, ...]
    plan: SharingPlan
    banks: tuple[FrozenBank, ...]

    @property
    def width(self) -> int:
        """Largest number of outputs of a task, C."""
        return max(task.width for task in self.tasks)

    @torch.no_grad()
    def __call__(self, inputs: Tensors, row: Tensor, task: Tensor) -> Tensor:
        """Answer B questions about R inputs, one at a time: the slow and obvious way.

        Args:
            inputs: ``[R, ...]``; of a model with several inputs one of each, in their order.
            row: ``[B]`` int64, the input each question is about.
            task: ``[B]`` int64, the task each question is of.

        Returns:
            Scores ``[B, C]``, of taggings ``[B, L, C]``; columns past a task's own width are 0.
        """
        words = each(inputs)[0].shape[1:2] if self.tasks[0].kind == "tagging" else ()
        scores = torch.zeros((len(row), *words, self.width))
        for question, (index, number) in enumerate(zip(row.tolist(), task.tolist(), strict=True)):
            answer = self.scores(number, take(inputs, slice(index, index + 1)))
            scores[question, ..., : answer.shape[-1]] = answer[0]
        return scores

    @torch.no_grad()
    def scores(self, task: int, inputs: Tensors) -> Tensor:
        """Return one task's scores for every input, ``[R, ...] -> [R, C_task]``."""
        states = self.handed_on(0, task, inputs)
        for number in range(1, len(self.banks)):
            states = self.handed_on(number, task, states)
        return states

    @torch.no_grad()
    def handed_on(self, number: int, task: int, states: Tensors) -> Tensor:
        """Return what one stage makes of a task's states, ``[R, ...] -> [R, ...]``."""
        stage, bank = self.plan.stages[number], self.banks[number]
        if stage.stitches is not None:
            columns = run_columns(stage.stitches, bank, states, stage.uses[task])
            read = [columns[layer][column] * beta for layer, column, beta in stage.stitches.reads[task]]
            return torch.stack(read).sum(0)
        parts = [bank.run(block, states) for block in stage.uses[task]]
        if stage.weights[task] != (1.0,):
            parts = [part * weight for part, weight in zip(parts, stage.weights[task], strict=True)]
        if stage.combine == "concat":
            return torch.cat(parts, dim=-1)
        result = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        return result if stage.columns is None else result[:, stage.columns[task]]

    @torch.no_grad()
    def taken(self, number: int, states: Tensors) -> list[Tensors]:
        """Return what each block of a stage takes of the stage's input ``[R, ...]``."""
        stage, bank = self.plan.stages[number], self.banks[number]
        if stage.stitches is None:
            return [states] * len(stage.blocks)
        columns = run_columns(stage.stitches, bank, states, range(len(stage.blocks)))
        taken: dict[int, Tensors] = {}
        reaching: list[Mapping[int, Tensors]] = [{0: states}, *columns]
        for layer, given in zip(stage.stitches.layers, reaching, strict=False):
            taken.update({block: given[at] for block, at in zip(layer.blocks, layer.takes, strict=True)})
        return [taken[block] for block in range(len(stage.blocks))]


def run_columns(
    stitches: Stitches, bank: FrozenBank, states: Tensors, blocks: Iterable[int]
) -> list[dict[int, Tensor]]:
    """Run stitched columns on ``[R, ...]``.

    Args:
        stitches: How the blocks feed each other.
        bank: The blocks.
        states: The stage's input.
        blocks: Those to run; columns that need others are left out.

    Returns:
        For each layer its columns' states ``[R, ...]``, by their place.
    """
    wanted, found = set(blocks), list[dict[int, Tensor]]()
    given: Mapping[int, Tensors] = {0: states}
    for layer in stitches.layers:
        results = {
            index: bank.run(block, given[at])
            for index, (block, at) in enumerate(zip(layer.blocks, layer.takes, strict=True))
            if block in wanted
        }
        columns = {}
        for column in range(len(layer.columns)):
            shares = [
                {index: share for index, share in enumerate(layer.alpha[row]) if share}
                for row in stitches.rows(column)
            ]
            if all(results.keys() >= row.keys() for row in shares):
                parts = [
                    torch.stack([results[index] * share for index, share in row.items()]).sum(0)
                    for row in shares
                ]
                columns[column] = torch.cat(parts, dim=stitches.axis)
        found.append(columns)
        given = columns
    return found
