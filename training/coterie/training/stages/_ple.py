"""Progressive layered extraction: shared experts and each task's own, level after level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.bank import Bank
from coterie.training.blocks import AnyBlockConfig, InputShape, build_block
from coterie.training.stages._base import Stage
from coterie.training.stages._columns import Columns, ColumnsStage
from coterie.training.stages._config import Count, Positive, Site, StageConfig
from coterie.training.stages._input_gated import mix
from coterie.training.stages._input_gates import GateInput, SoftmaxInputGate


class PleConfig(StageConfig):
    """Progressive layered extraction (Tang et al. 2020); with one level, customised gate control."""

    kind: Literal["ple"] = "ple"
    levels: Annotated[tuple[AnyBlockConfig, ...], Field(min_length=1)]
    """The architecture of an expert of each extraction level."""
    shared: Count = 2
    """Experts of each level that all tasks use."""
    own: Count = 1
    """Experts of each level and task that no other task uses."""
    gate_rate: Positive = 1.0
    """Learning rate of the gates, in multiples of the stage's."""

    def build(self, site: Site) -> tuple[Stage, InputShape]:
        """Make the stage; return it with the shape of the last level's experts' results."""
        tasks, shape = len(site.tasks), site.shape
        levels: list[Level] = []
        for number, config in enumerate(self.levels):
            try:
                _, following = build_block(config, shape)
                given = GateInput(shape)
            except ConfigError as error:
                raise ConfigError(f"levels.{number}: {error}") from error
            make = partial(config.build, shape)
            shared, own = Bank(make, self.shared), Bank(make, self.own * tasks)
            levels.append(Level(shared, own, given, tasks, last=number == len(self.levels) - 1))
            shape = following
        block = Extraction(levels, gate_rate=self.gate_rate)
        return ColumnsStage(site.name, tasks, "input_gated", block, range(tasks)), shape


class Level(nn.Module):
    """One extraction level: what each task, and all of them together, make of the level before.

    Task t's gate divides its state among the shared experts and its own (equations 4 to 6). Before the last
    level a shared gate divides the shared state among all experts (section 4.2).

    Attributes:
        shared: Experts that read the shared state.
        own: Each task's experts, task by task, which read that task's state.
    """

    def __init__(self, shared: Bank, own: Bank, given: GateInput, tasks: int, *, last: bool) -> None:
        super().__init__()
        self.shared, self.own, self.given, self.tasks = shared, own, given, tasks
        each = own.blocks // tasks
        self.gate = SoftmaxInputGate(given.size, tasks, shared.blocks + each)
        self.shared_gate = None if last else SoftmaxInputGate(given.size, 1, shared.blocks + own.blocks)

    def forward(self, common: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Take the shared state ``[S, ...]`` and the tasks' ``[N, S, ...]``; return both of the next level.

        Before the first level all read the input: ``own`` is ``[1, S, ...]``.
        """
        each = self.own.blocks // self.tasks
        shared_features = self.shared.run_each(common.unsqueeze(0))
        own_features = self.own.run_each(own if len(own) == 1 else own.repeat_interleave(each, dim=0))
        shares = self.gate(self._read(own))
        of_own = shares[..., self.shared.blocks :].permute(1, 2, 0).flatten(0, 1)
        weighted = own_features * of_own.reshape(*of_own.shape, *[1] * (own_features.dim() - 2))
        of_shared = mix(shares[..., : self.shared.blocks], shared_features)
        mixed = of_shared.transpose(0, 1) + weighted.unflatten(0, (self.tasks, each)).sum(dim=1)
        if self.shared_gate is None:
            return common, mixed
        everything = torch.cat([shared_features, own_features])
        return mix(self.shared_gate(self.given(common)), everything)[:, 0], mixed

    def _read(self, own: Tensor) -> Tensor:
        """Return what the tasks' gates read, ``[S, D]`` or ``[S, N, D]``."""
        read: Tensor = self.given(own.flatten(0, 1))
        return read if len(own) == 1 else read.reshape(*own.shape[:2], self.given.size).transpose(0, 1)


class Extraction(Columns):
    """Levels in a row, ``[S, ...] -> [S, N, ...]``.

    Tang et al. 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
    Personalized Recommendations", section 4.
    """

    def __init__(self, levels: Sequence[Level], *, gate_rate: float = 1.0) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.rates = {name: gate_rate for name, _ in self.named_parameters() if "gate." in name}

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[S, ...]`` to each task's state, ``[S, N, ...]``."""
        common, own = states, states.unsqueeze(0)
        for level in self.levels:
            common, own = level(common, own)
        return own.transpose(0, 1)
