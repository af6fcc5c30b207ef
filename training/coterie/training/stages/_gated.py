"""Gated experts: Task Multi-Clustering (Yan et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.plan import StagePlan
from coterie.training.bank import Bank
from coterie.training.blocks import Block
from coterie.training.dispatch import State, distinct_pairs
from coterie.training.moments import Moments
from coterie.training.stages._base import BankStage, Draw, Stage, plan_of
from coterie.training.stages._config import BlockStageConfig, Count, Epochs, NotNegative, Site

MixtureInit = Literal["gaussian", "ones", "mean"]


class GatedConfig(BlockStageConfig):
    """Gated experts (Task Multi-Clustering): each task learns which of M experts it mixes."""

    kind: Literal["gated"] = "gated"
    experts: Count
    """Number of experts, M."""
    density_penalty: NotNegative = 0.01
    """lambda: the price of one more expert for a task, in units of loss."""
    density_warmup: Epochs = 0
    """Epochs over which the price rises from nothing to lambda: experts specialise before gates close."""
    probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """p_i(t) at the start; 0.5 is a logit of 0, as in the paper."""
    mixture: MixtureInit = "gaussian"
    """w(t) at the start: standard Gaussian, as in the paper; 1 for all; or the mean of the experts drawn."""
    gates: Literal["learned", "all"] = "learned"
    """``all`` takes every expert always: the ungated mixture of section 4.1."""

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        return GatedStage(
            site.name,
            len(site.tasks),
            Bank(make, self.experts),
            density_penalty=self.density_penalty,
            density_warmup=self.density_warmup,
            probability=self.probability,
            mixture=self.mixture,
            gated=self.gates == "learned",
        )


class GatedStage(BankStage):
    """A mixture of experts of which each task uses a learned subset.

    z(t, x) = sum_i b_i(t) w_i(t) f_i(x) (equation 1) with b_i(t) ~ Bernoulli(p_i(t)), drawn for each question
    while training. Otherwise b(t) is the k(t) = round(sum_i p_i(t)) most likely experts (equation 4), at
    least one. Logits start at 0, w at a standard Gaussian (section 4). Only the experts chosen for a state
    are run.

    Attributes:
        density_penalty: lambda, multiplies the mean over tasks of k(t) in the loss.
        density_warmup: Epochs over which that price rises from 0.
        gated: False takes all experts always: the ungated mixture of section 4.1.
    """

    kind = "gated"

    def __init__(
        self,
        name: str,
        tasks: int,
        bank: Bank,
        *,
        density_penalty: float = 0.0,
        density_warmup: int = 0,
        probability: float = 0.5,
        mixture: MixtureInit = "gaussian",
        gated: bool = True,
    ) -> None:
        super().__init__(name, tasks, bank)
        self.density_penalty = density_penalty
        self.density_warmup = density_warmup
        self.gated = gated
        shape = (tasks, bank.blocks)
        logit = math.log(probability / (1 - probability))
        self.logits = nn.Parameter(torch.full(shape, logit), requires_grad=gated)
        drawn = bank.blocks * (probability if gated else 1.0)
        uniform = 1.0 if mixture == "ones" else 1.0 / drawn
        self.mixture = nn.Parameter(
            torch.randn(shape) if mixture == "gaussian" else torch.full(shape, uniform)
        )
        self._price = 0.0 if density_warmup else density_penalty

    def begin_epoch(self, epoch: int, moments: Moments) -> None:  # noqa: ARG002
        """Raise the price of an expert, up to lambda after ``density_warmup`` epochs."""
        share = min(1.0, epoch / self.density_warmup) if self.density_warmup else 1.0
        self._price = share * self.density_penalty

    def probabilities(self) -> Tensor:
        """Return p, ``[N, M]``."""
        return torch.sigmoid(self.logits) if self.gated else torch.ones_like(self.logits)

    def density(self) -> Tensor:
        """Return k(t) = sum_i p_i(t), ``[N]``."""
        return self.probabilities().sum(dim=1)

    def selection(self) -> Tensor:
        """Return the experts chosen by equation 4, ``[N, M]`` bool."""
        probabilities = self.probabilities().detach()
        density = self.density().detach().round().clamp(min=1).to(torch.int64)
        # A stable sort, so that equally likely experts are taken in the same order everywhere.
        order = torch.sort(probabilities, dim=1, descending=True, stable=True).indices
        rank = torch.empty_like(order)
        rank.scatter_(1, order, torch.arange(self.bank.blocks).expand_as(order))
        return rank < density.unsqueeze(1)

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:
        """Mix each question's experts, ``[S, ...] -> [B, ...]``."""
        if draw is None or not self.gated:
            chosen = self.selection()[task]
        else:
            probabilities = self.probabilities()[task]
            chosen = torch.bernoulli(probabilities.detach(), generator=draw.generator).bool()
            likelihood = torch.where(chosen, probabilities, 1 - probabilities)
            draw.log_probability = draw.log_probability + likelihood.clamp(min=1e-12).log().sum(dim=1)
        question, expert = chosen.nonzero(as_tuple=True)
        pairs = distinct_pairs(expert, state.position[question], len(state.values))
        features = self.bank.run(state.values[pairs.state], pairs.block)
        weight = self.mixture[task[question], expert].reshape(-1, *[1] * (features.dim() - 1))
        mixed = features.new_zeros((len(task), *features.shape[1:]))
        mixed = mixed.index_add(0, question, features[pairs.index] * weight)
        return State(mixed, torch.arange(len(task)))

    def penalty(self) -> Tensor:
        """Return lambda times the mean over tasks of k(t)."""
        if not self.gated or self._price == 0:
            return torch.zeros(())
        return self._price * self.density().mean()

    def gate_parameters(self) -> list[nn.Parameter]:
        """Return the gate logits."""
        return [self.logits] if self.gated else []

    def plan(self) -> StagePlan:
        """Return the plan of equation 4, with p(t)."""
        chosen = self.selection()
        uses = [row.nonzero().flatten().tolist() for row in chosen]
        weights = [self.mixture[task, used].tolist() for task, used in enumerate(uses)]
        return plan_of(self, uses, weights, probabilities=self.probabilities().detach())

    def report(self) -> dict[str, float]:
        """Return the mean density, and the mean number of experts kept by equation 4."""
        return {
            "density": float(self.density().detach().mean()),
            "experts": float(self.selection().sum(dim=1).float().mean()),
        }
