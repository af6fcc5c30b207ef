"""A budget: at most so many bytes, or operations, for the blocks that a task uses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from coterie.training.frozen import FrozenModel
from coterie.training.several import Tensors
from coterie.training.stages import GatedStage
from coterie.training.stages.gates import most_likely

_RATE = 0.05
"""By how much the price of what is over the budget rises in a step that is over it by all of the budget."""
_BYTES = 4


class BudgetConfig(BaseModel):
    """What a task may use at most: learned gates pay for it while training, and are cut to it in the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: PositiveInt | None = None
    """Weights of all blocks that a task uses, 4 bytes each."""
    operations: PositiveInt | None = None
    """Multiplications and additions of all blocks that a task uses, for one input."""

    def limits(self) -> dict[str, int]:
        """Return the limits that were given, by name."""
        given = {"bytes": self.bytes, "operations": self.operations}
        return {name: limit for name, limit in given.items() if limit is not None}


def _lstm_operations(
    states: torch.Size, inputs: torch.Size, recurrent: torch.Size, *_: Any, **__: Any
) -> int:
    """Return the operations of a direction of an LSTM from shapes ``[R, L, D]``, ``[4H, D]``, ``[4H, H]``."""
    return 2 * states[:-1].numel() * (inputs.numel() + recurrent.numel())


_COUNTED = {torch.ops.aten.mkldnn_rnn_layer: _lstm_operations}
"""Operators that torch's own counter takes for nothing."""


@torch.no_grad()
def block_costs(frozen: FrozenModel, example: Tensors) -> list[list[dict[str, int]]]:
    """Return the bytes and the operations of every block: for each stage, for each block.

    Args:
        frozen: The model.
        example: One input, ``[1, ...]``, or one of each; a text's length decides what it costs.
    """
    costs: list[list[dict[str, int]]] = []
    states: Tensors = example
    for number, (stage, bank) in enumerate(zip(frozen.plan.stages, frozen.banks, strict=True)):
        seen: dict[int, int] = {}
        taken = frozen.taken(number, states)
        for index, block in enumerate(stage.blocks):
            # Blocks of a bank are of one architecture; heads of one width have as many weights.
            if block.parameters not in seen:
                with FlopCounterMode(display=False, custom_mapping=_COUNTED) as counter:
                    bank.run(index, taken[index])
                seen[block.parameters] = counter.get_total_flops()
        costs.append(
            [
                {"bytes": _BYTES * block.parameters, "operations": seen[block.parameters]}
                for block in stage.blocks
            ]
        )
        states = frozen.handed_on(number, 0, states)
    return costs


def task_costs(frozen: FrozenModel, example: Tensors) -> list[dict[str, int]]:
    """Return the bytes and operations of all blocks that each task uses."""
    costs = block_costs(frozen, example)
    return [
        {
            name: sum(
                blocks[index][name]
                for stage, blocks in zip(frozen.plan.stages, costs, strict=True)
                for index in stage.uses[task]
            )
            for name in ("bytes", "operations")
        }
        for task in range(len(frozen.tasks))
    ]


class Budget(nn.Module):
    """Keeps a model's gated layers, all together, to what a task may use.

    All other layers cost a task the same whatever is learned: one centroid of a cluster layer is as large as
    another. What they leave of the budget is for experts. While training, each task pays for what its experts
    are expected to cost above that; the price rises as long as they do, and falls when they do not (dual
    ascent). At the freeze a task's experts of all layers are kept in order of their likelihood, as many as
    can be afforded; the likeliest of each layer always.

    Attributes:
        price: ``[limits, N]``, the price of one whole budget too much, in units of loss.
        limit: ``[limits]``.
        fixed: ``[limits, N]``, the cost of all other layers.
        cost: ``[limits, gated layers]``, the cost of one expert.
    """

    price: Tensor
    limit: Tensor
    fixed: Tensor
    cost: Tensor

    def __init__(
        self, config: BudgetConfig, stages: Sequence[GatedStage], frozen: FrozenModel, example: Tensors
    ) -> None:
        """Measure a model's blocks, and tell its gated stages to be cut."""
        super().__init__()
        self.names = tuple(config.limits())
        # In a list, so that the stages are not this module's own.
        self._stages = list(stages)
        gated = {stage.name for stage in stages}
        names = [stage.name for stage in frozen.plan.stages]
        per_stage = dict(zip(names, block_costs(frozen, example), strict=True))
        cost, fixed = [], []
        for name in self.names:
            cost.append([per_stage[stage.name][0][name] for stage in stages])
            fixed.append(
                [
                    sum(
                        per_stage[stage.name][index][name]
                        for stage in frozen.plan.stages
                        if stage.name not in gated
                        for index in stage.uses[task]
                    )
                    for task in range(len(frozen.tasks))
                ]
            )
        limits = list(config.limits().values())
        self.register_buffer("price", torch.zeros(len(limits), len(frozen.tasks)))
        self.register_buffer("limit", torch.tensor(limits, dtype=torch.float64), persistent=False)
        self.register_buffer("fixed", torch.tensor(fixed, dtype=torch.float64), persistent=False)
        self.register_buffer("cost", torch.tensor(cost, dtype=torch.float64), persistent=False)
        for index, stage in enumerate(stages):
            stage.cut = partial(self._kept, index)

    def mistakes(self, tasks: Sequence[str]) -> list[str]:
        """Return for each limit that cannot be kept by how much it is too small."""
        fewest = torch.tensor(
            [1.0 if stage.gate.separable else stage.block.shape[1] for stage in self._stages]
        ).double()
        least = self.fixed + (self.cost @ fewest).unsqueeze(1)
        found = []
        for name, limit, needed in zip(self.names, self.limit, least, strict=True):
            most, task = needed.max(dim=0)
            if most > limit:
                found.append(
                    f"model.budget.{name}: task {tasks[int(task)]!r} needs {int(most):,} {name} with the "
                    f"fewest experts, {int(most - limit):,} more than the budget of {int(limit):,}: "
                    "raise it, or use smaller blocks"
                )
        return found

    def penalty(self) -> Tensor:
        """Return what tasks pay for what they are expected to cost above the budget."""
        return (self.price.clone() * self._over()).sum(dim=0).mean()

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the prices follow what tasks are expected to cost now."""
        self.price.copy_((self.price + _RATE * self._over()).clamp(min=0))

    def _over(self) -> Tensor:
        """Return the share of each limit by which a task's expected cost is above it, ``[limits, N]``."""
        expected = self.fixed
        if self._stages:
            density = torch.stack([stage.density() for stage in self._stages]).double()
            expected = expected + self.cost @ density
        return (expected / self.limit.unsqueeze(1) - 1).float()

    def _kept(self, index: int) -> Tensor:
        """Return the experts of one gated layer that each task keeps, bool ``[N, M]``."""
        chosen = [stage.gate.selection() for stage in self._stages]
        likely = [stage.gate.probabilities().detach() for stage in self._stages]
        first = [most_likely(torch.where(c, p, -1.0), 1) for c, p in zip(chosen, likely, strict=True)]
        whole = [stage.gate.separable for stage in self._stages]
        must = torch.cat([f if s else c for f, c, s in zip(first, chosen, whole, strict=True)], dim=1)
        sizes = [each.shape[1] for each in chosen]
        layer = torch.repeat_interleave(torch.tensor(sizes, device=self.cost.device))
        cost = self.cost[:, layer]
        used = self.fixed + cost @ must.double().T
        kept, candidates = must.clone(), torch.cat(chosen, dim=1)
        ranked = torch.sort(torch.cat(likely, dim=1), dim=1, descending=True, stable=True).indices
        tasks = torch.arange(len(must), device=must.device)
        for slot in ranked.T:
            more = used + cost[:, slot]
            fits = candidates[tasks, slot] & ~must[tasks, slot] & (more <= self.limit.unsqueeze(1)).all(dim=0)
            used = torch.where(fits, more, used)
            kept[tasks, slot] |= fits
        return torch.split(kept, sizes, dim=1)[index]
