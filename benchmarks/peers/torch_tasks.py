"""What one would do with torch alone: a module for each task, over shared parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from coterie.training.frozen import FrozenBank, FrozenModel

Params = dict[str, Tensor]
Floats = npt.NDArray[np.float32]
Tasks = npt.NDArray[np.int64]


class OneTask(nn.Module):
    """The blocks of one task, one stage after the other; those of a stage are added up by their weights."""

    def __init__(self, stages: Sequence[Sequence[nn.Module]], weights: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self._stages = nn.ModuleList(nn.ModuleList(blocks) for blocks in stages)
        self._weights = weights

    def forward(self, states: Tensor) -> Tensor:
        """Return scores, ``[R, D] -> [R, C]``."""
        for blocks, weights in zip(self._stages, self._weights, strict=True):
            states = _mixed([block(states) for block in blocks], weights)  # type: ignore[union-attr]
        return states


class EagerTasks:
    """A module a task; blocks that tasks share are the same objects."""

    def __init__(self, model: FrozenModel) -> None:
        built = [[_module(bank, at) for at in range(len(bank.tensors))] for bank in model.banks]
        stages = model.plan.stages
        self._tasks = [
            OneTask(
                [[own[at] for at in stage.uses[task]] for stage, own in zip(stages, built, strict=True)],
                [stage.weights[task] for stage in stages],
            ).eval()
            for task in range(len(model.tasks))
        ]

    @torch.inference_mode()
    def grouped(self, inputs: Floats, task: Tasks) -> None:
        """Answer questions, each task's in one call."""
        _grouped(lambda own, states: self._tasks[own](states), inputs, task)


class CompiledTasks:
    """One function compiled for all tasks, with a task's weights as arguments, and any number of rows."""

    def __init__(self, model: FrozenModel) -> None:
        stages, banks = model.plan.stages, model.banks
        templates = [deepcopy(bank.template).eval() for bank in banks]
        self._params: list[list[list[Params]]] = [
            [[bank.tensors[at] for at in stage.uses[task]] for stage, bank in zip(stages, banks, strict=True)]
            for task in range(len(model.tasks))
        ]
        self._weights = [
            [torch.tensor(stage.weights[task]) for stage in stages] for task in range(len(model.tasks))
        ]

        def run(states: Tensor, params: list[list[Params]], weights: list[Tensor]) -> Tensor:
            for template, own, mixture in zip(templates, params, weights, strict=True):
                parts = [functional_call(template, each, (states,)) for each in own]
                states = _mixed(parts, list(mixture.unbind()))
            return states

        self._run: Any = torch.compile(run, dynamic=True)

    @torch.inference_mode()
    def grouped(self, inputs: Floats, task: Tasks) -> None:
        """Answer questions, each task's in one call."""
        _grouped(lambda own, states: self._run(states, self._params[own], self._weights[own]), inputs, task)


def _mixed(parts: list[Tensor], weights: Sequence[Any]) -> Tensor:
    """Return the parts added up by their weights; one alone is not weighed."""
    mixed = parts[0]
    if len(parts) > 1:
        mixed = mixed * weights[0]
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            mixed = mixed + part * weight
    return mixed


def _grouped(answer: Callable[[int, Tensor], Tensor], inputs: Floats, task: Tasks) -> None:
    states = torch.from_numpy(inputs)
    for own in np.unique(task).tolist():
        answer(own, states[torch.from_numpy(task == own)]).numpy()


def _module(bank: FrozenBank, block: int) -> nn.Module:
    module = deepcopy(bank.architecture(block)).eval()
    module.load_state_dict(bank.tensors[block])
    return module
