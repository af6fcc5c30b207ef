"""Shared and private networks (ASP-MTL; Liu, Qiu and Huang 2017, "Adversarial Multi-task Learning")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.runtime.plan import StagePlan
from coterie.training.bank import Bank
from coterie.training.blocks import Block, InputShape, output_shape
from coterie.training.dispatch import State, distinct_pairs
from coterie.training.draws import Draw
from coterie.training.stages._base import BankStage, Stage, plan_of
from coterie.training.stages._config import BlockStageConfig, NotNegative, Site
from coterie.training.stages._recognition import Recogniser, Recognition


class SharedPrivateConfig(BlockStageConfig):
    """One block for all tasks beside one for each; a task reads both, one after the other."""

    kind: Literal["shared_private"] = "shared_private"
    adversarial: NotNegative = 0.05
    """lambda: how strongly the shared block is kept from telling the tasks apart."""
    recognition: Recognition = 0.0
    """The opposite: price of not telling from the shared state which task an input is of."""
    orthogonality: NotNegative = 0.01
    """gamma: the price of saying the same in the shared and in the private state."""

    def mistakes(self, site: Site) -> list[str]:
        """Return what is wrong whatever the states' shape."""
        found = super().mistakes(site)
        if self.recognition and self.adversarial:
            found.append("recognition: is what adversarial keeps the shared block from: set one of them to 0")
        return found

    def build(self, site: Site) -> tuple[Stage, InputShape]:
        """Make the stage; its states are twice as wide as its block's results."""
        stage, following = super().build(site)
        return stage, InputShape(dims=(2 * following.vector("shared_private"),))

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        tasks = len(site.tasks)
        bank, recogniser = Bank(make, tasks + 1), None
        following = output_shape(bank.template, site.shape)
        if len(following.dims) != 1:
            raise ConfigError(
                f"block: shared and private states are vectors (D,), but this block gives {following}: set "
                "its pool"
            )
        if self.recognition:
            recogniser = Recogniser(following, tasks, price=self.recognition)
        return SharedPrivateStage(
            site.name,
            tasks,
            bank,
            following.vector("shared_private"),
            adversarial=self.adversarial,
            orthogonality=self.orthogonality,
            recogniser=recogniser,
        )


class SharedPrivateStage(BankStage):
    """Block 0 for everybody, block 1 + t for task t; a state is both results, ``[S, ...] -> [P, 2 D]``.

    A discriminator learns to tell from a shared state which task it is of, and the shared block, whose
    gradient is reversed, learns to give it no clue (section 4). Shared and private states pay for what they
    have in common: |S^T P|^2 of each task in the batch, divided by its squared number of rows (section 4.3).
    """

    kind = "shared_private"

    def __init__(
        self,
        name: str,
        tasks: int,
        bank: Bank,
        size: int,
        *,
        adversarial: float = 0.05,
        orthogonality: float = 0.01,
        recogniser: Recogniser | None = None,
    ) -> None:
        super().__init__(name, tasks, bank)
        self.adversarial = adversarial
        self.orthogonality = orthogonality
        self.discriminator = nn.Linear(size, tasks)
        self.recogniser = recogniser
        self._penalty = torch.zeros(())

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:  # noqa: ARG002
        """Run both blocks; the shared one once for each state."""
        everybody = torch.zeros(len(state.values), dtype=torch.int64, device=task.device)
        pairs = distinct_pairs(task + 1, state.position, len(state.values))
        shared = self.bank.run(state.values, everybody).index_select(0, pairs.state)
        private = self.bank.run(state.values.index_select(0, pairs.state), pairs.block)
        if self.training:
            self._penalty = self._price(shared, private, pairs.block - 1)
            if self.recogniser is not None:
                self.recogniser.notice(shared, pairs.block - 1)
        return State(torch.cat([shared, private], dim=-1), pairs.index)

    def _price(self, shared: Tensor, private: Tensor, task: Tensor) -> Tensor:
        guess: Tensor = self.discriminator(_Reversed.apply(shared))  # type: ignore[no-untyped-call]
        told = nn.functional.cross_entropy(guess, task)
        if self.orthogonality == 0:
            return self.adversarial * told
        common = shared.new_zeros((self.tasks, shared.shape[1], private.shape[1]))
        common = common.index_add(0, task, shared.unsqueeze(2) * private.unsqueeze(1))
        rows = torch.bincount(task, minlength=self.tasks).clamp(min=1)
        overlap = (common.square().sum((1, 2)) / rows.square()).sum()
        return self.adversarial * told + self.orthogonality * overlap

    def penalty(self) -> Tensor:
        """Return the price of the last batch's states; it is asked for once a batch."""
        price, self._penalty = self._penalty, torch.zeros(())
        return price if self.recogniser is None else price + self.recogniser.penalty()

    def report(self) -> dict[str, float]:
        """Return how many tasks were recognised."""
        return {} if self.recogniser is None else self.recogniser.report()

    def plan(self) -> StagePlan:
        """Return the plan: block 0 and block 1 + t for task t, one after the other."""
        uses = [[0, 1 + task] for task in range(self.tasks)]
        plan = plan_of(self, uses, [[1.0, 1.0] for _ in uses])
        return plan.model_copy(update={"combine": "concat"})


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is reversed (Ganin and Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:  # noqa: ARG004
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:  # noqa: ARG004
        return -gradient[0]
