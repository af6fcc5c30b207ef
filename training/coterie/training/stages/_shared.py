"""The two ends of sharing: one block for all tasks, and one block for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from coterie.runtime.plan import StagePlan
from coterie.training.bank import Bank
from coterie.training.blocks import Block, output_shape
from coterie.training.dispatch import State, distinct_pairs
from coterie.training.draws import Draw
from coterie.training.stages._base import BankStage, Stage, plan_of
from coterie.training.stages._config import BlockStageConfig, Site
from coterie.training.stages._recognition import Recogniser, Recognition


class HardConfig(BlockStageConfig):
    """One block for all tasks."""

    kind: Literal["hard"] = "hard"
    recognition: Recognition = 0.0
    """Price of not telling from the block's result which task an input is of."""

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        bank, recogniser = Bank(make, 1), None
        if self.recognition:
            following = output_shape(bank.template, site.shape)
            recogniser = Recogniser(following, len(site.tasks), price=self.recognition)
        return HardStage(site.name, len(site.tasks), bank, recogniser)


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

    def __init__(self, name: str, tasks: int, bank: Bank, recogniser: Recogniser | None = None) -> None:
        super().__init__(name, tasks, bank)
        self.recogniser = recogniser

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:
        """Run the block on the states ``[S, ...]``; questions go on reading where they did."""
        values = self.bank.run_only(state.values)
        if self.recogniser is not None and self.training:
            asked = len(task) if draw is None else draw.questions
            self.recogniser.notice(values.index_select(0, state.position[:asked]), task[:asked])
        return State(values, state.position)

    def penalty(self) -> Tensor:
        """Return the price of the tasks that were not recognised."""
        return super().penalty() if self.recogniser is None else self.recogniser.penalty()

    def report(self) -> dict[str, float]:
        """Return how many tasks were recognised."""
        return {} if self.recogniser is None else self.recogniser.report()

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
