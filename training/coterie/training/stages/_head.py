"""Specific heads: each task's last layer, with as many outputs as the task has classes, labels or numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from coterie.runtime.plan import BlockPlan, StagePlan
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import LinearHead
from coterie.training.dispatch import State
from coterie.training.draws import Draw
from coterie.training.frozen import FrozenBank
from coterie.training.ragged import Weights, run_ragged
from coterie.training.stages._base import Stage
from coterie.training.stages._config import NotNegative, Positive


class HeadConfig(BaseModel):
    """The tasks' last layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: Positive | None = None
    weight_decay: NotNegative | None = None
    alike: bool = True
    """Whether equally wide heads start from the same weights."""
    init_scale: Positive = 1.0
    """Multiplies the initial weights."""


class HeadStage(Stage):
    """One affine map a task, ``[S, D] -> [B, C]``; heads of one width are one stacked parameter.

    Of sequences ``[S, L, D]`` each position is answered, ``[B, L, C]``; what padding answers means nothing.
    A regression's numbers are learned standardised; its targets' mean and deviation are part of the head.

    Attributes:
        width: Largest number of outputs, C.
    """

    kind = "head"
    group: Tensor
    member: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(
        self, name: str, size: int, tasks: Sequence[TaskSpec], *, alike: bool = False, init_scale: float = 1.0
    ) -> None:
        super().__init__(name, len(tasks))
        self.size = size
        widths = [task.width for task in tasks]
        self.width = max(widths)
        self.group_widths = sorted(set(widths))
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        group, member = torch.zeros(len(tasks), dtype=torch.int64), torch.zeros(len(tasks), dtype=torch.int64)
        for number, width in enumerate(self.group_widths):
            members = [task for task, each in enumerate(widths) if each == width]
            heads = [LinearHead(size, width) for _ in members[: 1 if alike else None]] * (
                len(members) if alike else 1
            )
            self.weights.append(
                nn.Parameter(torch.stack([head.weight.detach() * init_scale for head in heads]))
            )
            self.biases.append(nn.Parameter(torch.stack([head.bias.detach() * init_scale for head in heads])))
            group[members] = number
            member[members] = torch.arange(len(members))
        # In a list, so that its weights are not among this module's.
        self._template = [LinearHead(size, self.width).eval()]
        self.register_buffer("group", group, persistent=False)
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("shift", torch.zeros(len(tasks), self.width))
        self.register_buffer("scale", torch.ones(len(tasks), self.width))

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:  # noqa: ARG002
        """Return scores ``[B, (L,) C]``, one state a question; columns past a task's own width are 0."""
        sequences = state.values if state.values.dim() == 3 else state.values.unsqueeze(1)
        scores = sequences.new_zeros((len(task), sequences.shape[1], self.width))
        for number, width in enumerate(self.group_widths):
            question = (self.group[task] == number).nonzero().flatten()
            if len(question) == 0:
                continue
            weights = {"weight": self.weights[number], "bias": self.biases[number]}
            member, position = self.member[task[question]], state.position[question]
            if len(sequences) * len(weights["weight"]) <= len(question):
                place = position * len(weights["weight"]) + member
                answer = _every_head(weights, sequences).index_select(0, place)
            else:
                member, order = member.sort(stable=True)
                question, position = question[order], position[order]
                needed, sizes = torch.unique_consecutive(member, return_counts=True)
                if len(needed) < len(weights["weight"]):
                    weights = {name: weight.index_select(0, needed) for name, weight in weights.items()}
                answer = run_ragged(_heads, weights, sequences.index_select(0, position), sizes)
            scores = scores.index_copy(0, question, nn.functional.pad(answer, (0, self.width - width)))
        scores = scores * self.scale[task].unsqueeze(1) + self.shift[task].unsqueeze(1)
        scores = scores if state.values.dim() == 3 else scores.squeeze(1)
        return State(scores, torch.arange(len(task), device=task.device))

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Return all heads' weights ``[N, D, C]`` and biases ``[N, C]``, 0 past a head's own width."""
        if len(self.group_widths) == 1:
            return self.weights[0], self.biases[0]
        order = torch.cat([(self.group == number).nonzero().flatten() for number in range(len(self.weights))])
        weights, biases = (
            torch.cat([nn.functional.pad(each, (0, self.width - each.shape[-1])) for each in kind])
            for kind in (self.weights, self.biases)
        )
        place = order.argsort()
        return weights[place], biases[place]

    def plan(self) -> StagePlan:
        """Return the plan: head t for task t."""
        widths = [self.group_widths[int(number)] for number in self.group]
        return StagePlan(
            name=self.name,
            kind=self.kind,
            trained_blocks=self.tasks,
            blocks=tuple(
                BlockPlan(name=f"{self.name}/{task}", source=task, parameters=(self.size + 1) * width)
                for task, width in enumerate(widths)
            ),
            uses=tuple((task,) for task in range(self.tasks)),
            weights=tuple((1.0,) for _ in range(self.tasks)),
        )

    def frozen_bank(self) -> FrozenBank:
        """Return each task's weight ``[D, C]`` and bias ``[C]``, the targets' scale folded in."""
        tensors = []
        for task in range(self.tasks):
            number, member = int(self.group[task]), int(self.member[task])
            width = self.group_widths[number]
            scale, shift = self.scale[task, :width], self.shift[task, :width]
            tensors.append(
                {
                    "weight": (self.weights[number][member].detach() * scale).clone(),
                    "bias": (self.biases[number][member].detach() * scale + shift).clone(),
                }
            )
        return FrozenBank(template=copy.deepcopy(self._template[0]), tensors=tuple(tensors))


def _heads(weights: Weights, states: Tensor) -> Tensor:
    """Answer ``[b, rows, L, D]`` by the heads ``[b, D, C]``, ``-> [b, rows, L, C]``."""
    answers = torch.baddbmm(weights["bias"].unsqueeze(1), states.flatten(1, 2), weights["weight"])
    return answers.reshape(*states.shape[:3], -1)


def _every_head(weights: Weights, sequences: Tensor) -> Tensor:
    """Answer states ``[S, L, D]`` by all heads ``[n, D, C]``, ``-> [S * n, L, C]``, state by state.

    In one product: no state is copied for each question about it.
    """
    heads, size, width = weights["weight"].shape
    side_by_side = weights["weight"].transpose(0, 1).reshape(size, heads * width)
    answers = torch.matmul(sequences, side_by_side) + weights["bias"].flatten()
    return answers.reshape(*sequences.shape[:2], heads, width).transpose(1, 2).flatten(0, 1)
