"""An optimiser's memory of a stacked parameter, kept right when clustering replaces its rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def group_mean(rows: Tensor, labels: Tensor, groups: int) -> Tensor:
    """Return the mean row of each group, ``[N, ...] -> [K, ...]``; 0 for an empty one."""
    flat = rows.reshape(len(rows), -1)
    summed = flat.new_zeros((groups, flat.shape[1])).index_add(0, labels, flat)
    count = torch.bincount(labels, minlength=groups).clamp(min=1).to(flat.dtype)
    return (summed / count.unsqueeze(1)).reshape(groups, *rows.shape[1:])


class Moments:
    """The state tensors an optimiser keeps beside its parameters (Adam's two moments, momentum)."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def average(self, parameter: nn.Parameter, labels: Tensor, groups: int, tasks: Tensor) -> None:
        """Give the tasks of a mask ``[N]`` their groups' mean moments: they are one block from now on."""
        state = self._optimizer.state.get(parameter, {})
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value[tasks] = group_mean(value, labels, groups)[labels[tasks]]

    def forget(self, parameter: nn.Parameter) -> None:
        """Start anew: the gradients to come are of another size than those remembered."""
        self._optimizer.state.pop(parameter, None)

    def swap(self, old: nn.Parameter, new: nn.Parameter, labels: Tensor) -> None:
        """Let ``new`` ``[K, ...]`` take the place of ``old`` ``[N, ...]``, with the groups' mean moments."""
        for group in self._optimizer.param_groups:
            group["params"] = [new if each is old else each for each in group["params"]]
        state = self._optimizer.state.pop(old, None)
        if state is not None:
            self._optimizer.state[new] = {
                name: group_mean(value, labels, len(new))
                if isinstance(value, Tensor) and value.shape == old.shape
                else value
                for name, value in state.items()
            }
