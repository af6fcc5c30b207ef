"""The two ends of sharing: one block for all tasks, and one block for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from coterie.runtime.plan import StagePlan
from coterie.training.bank import Bank
from coterie.training.blocks import Block
from coterie.training.dispatch import State, distinct_pairs
from coterie.training.draws import Draw
from coterie.training.stages._base import BankStage, Stage, plan_of
from coterie.training.stages._config import BlockStageConfig, Site


class HardConfig(BlockStageConfig):
    """One block for all tasks."""

    kind: Literal["hard"] = "hard"

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        return HardStage(site.name, len(site.tasks), Bank(make, 1))


class SpecificConfig(BlockStageConfig):
    """A block for each task."""

    kind: Literal["specific"] = "specific"
    alike: bool = False
    """Whether all tasks start from the same weights."""

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        tasks = len(site.tasks)
        return SpecificStage(site.name, tasks, Bank(make, tasks, alike=self.alike))


class HardStage(BankStage):
    """Hard parameter sharing (Caruana 1993): every task uses the one block, once for each state."""

    kind = "hard"

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:  # noqa: ARG002
        """Run the block on the states ``[S, ...]``; questions go on reading where they did."""
        return State(self.bank.run_only(state.values), state.position)

    def plan(self) -> StagePlan:
        """Return the plan: block 0 for everybody."""
        return plan_of(self, [[0]] * self.tasks)


class SpecificStage(BankStage):
    """A task-specific layer: task t uses block t."""

    kind = "specific"

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:  # noqa: ARG002
        """Run each question's own block, ``[S, ...] -> [P, ...]``."""
        return run_assigned(self, state, task)

    def plan(self) -> StagePlan:
        """Return the plan: block t for task t."""
        return plan_of(self, [[task] for task in range(self.tasks)])


def run_assigned(
    stage: BankStage, state: State, block: Tensor, weights: dict[str, Tensor] | None = None
) -> State:
    """Run each question's one block ``[B]``, once for each distinct state; the questions read the results."""
    pairs = distinct_pairs(block, state.position, len(state.values))
    values = stage.bank.run(state.values.index_select(0, pairs.state), pairs.block, weights)
    return State(values, pairs.index)
