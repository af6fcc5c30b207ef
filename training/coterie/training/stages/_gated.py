"""Gated experts: Task Multi-Clustering (Yan et al. 2019), and the mixtures of experts it stands among."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from coterie.runtime.plan import StagePlan
from coterie.training.bank import Bank
from coterie.training.blocks import Block, output_shape
from coterie.training.dispatch import Pairs, State, distinct_pairs, distinct_questions
from coterie.training.draws import Draw
from coterie.training.moments import Moments
from coterie.training.ragged import mix_ragged
from coterie.training.stages._base import BankStage, Stage, plan_of
from coterie.training.stages._config import BlockStageConfig, Count, Epochs, NotNegative, Site
from coterie.training.stages._grouping import Grouping
from coterie.training.stages._recognition import Recogniser, Recognition
from coterie.training.stages.gates import (
    AtFreeze,
    BernoulliGate,
    DSelectGate,
    Gate,
    MixtureInit,
    RoutingGate,
    SoftmaxGate,
    TopKGate,
    UngatedMixture,
)

GateKind = Literal["learned", "all", "one", "topk", "dselect_k", "softmax"]

_SPARED = 0.25
"""Share of the experts' work that must need no gradient for it to be done apart."""


class GatedConfig(BlockStageConfig):
    """Gated experts (Task Multi-Clustering): each task learns which of M experts it mixes."""

    kind: Literal["gated"] = "gated"
    experts: Count
    """Number of experts that all tasks may use, M."""
    own: NonNegativeInt = 0
    """Further experts of each task's own, beside the shared ones (as in PLE)."""
    gates: GateKind = "learned"
    """How a task chooses: ``learned`` (Bernoulli gates), ``all``, ``one`` (routing network), ``topk`` (noisy
    top-k), ``dselect_k``, ``softmax`` (MMoE with gates of the task alone)."""
    k: Count | None = None
    """Experts of a task, for ``topk`` and ``dselect_k``; 2 when not given."""
    density_penalty: NotNegative = 0.01
    """lambda: the price of one more expert for a task, in units of loss; of entropy for ``dselect_k``."""
    density_warmup: Epochs = 0
    """Epochs over which the price rises from nothing to lambda: experts specialise before gates close."""
    probability: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """p_i(t) at the start; 0.5 is a logit of 0, as in the paper."""
    mixture: MixtureInit = "gaussian"
    """w(t) at the start: standard Gaussian, as in the paper; 1 for all; or the mean of the experts drawn."""
    grouped: Epochs = 0
    """Epochs for which all tasks first share one expert. KMeans then groups them by their gradients there,
    and each gate begins at its group's expert: for many experts, which undecided gates find badly."""
    recognition: Recognition = 0.0
    """Price of not telling from a shared expert's result which task an input is of, once the gates choose."""
    at_freeze: AtFreeze = "own_k"
    """Which experts learned gates keep: the k(t) likeliest (equation 4), as many for every task, those more
    likely than not, some drawn by chance, or all."""

    def mistakes(self, site: Site) -> list[str]:
        """Return what is wrong whatever the states' shape."""
        found = super().mistakes(site)
        if self.k is not None and self.gates not in ("topk", "dselect_k"):
            found.append(f"k: is for the gates topk and dselect_k, not for {self.gates!r}: leave it out")
        if self.k is not None and self.k > self.experts + self.own:
            found.append(f"k: {self.k} of {self.experts + self.own} experts cannot be chosen: use fewer")
        if self.grouped and self.gates == "all":
            found.append("grouped: is for gates that choose, and gates: all takes every expert: leave it out")
        if self.grouped and self.experts > len(site.tasks):
            found.append(
                f"grouped: {len(site.tasks)} tasks cannot be grouped for {self.experts} experts: use at most "
                "as many experts as tasks, or leave it out"
            )
        return found

    def standing(self, start: int) -> int:
        """Return after how many epochs the tasks are grouped here and before."""
        return start + self.grouped

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        tasks = len(site.tasks)
        bank = Bank(make, self.experts + self.own * tasks, alike=self.grouped > 0)
        until, recogniser = site.start + self.grouped, None
        if self.recognition:
            following = output_shape(bank.template, site.shape)
            recogniser = Recogniser(following, tasks, price=self.recognition, blocks=self.experts)
        return GatedStage(
            site.name,
            tasks,
            bank,
            self._gate(tasks, self.experts + self.own, site.seed),
            own=self.own,
            density_penalty=self.density_penalty,
            density_warmup=self.density_warmup,
            grouping=Grouping(tasks, bank, groups=self.experts, until=until, seed=site.seed)
            if self.grouped
            else None,
            recogniser=recogniser,
        )

    def _gate(self, tasks: int, experts: int, seed: int) -> Gate:
        k = min(experts, self.k or 2)
        match self.gates:
            case "all":
                return UngatedMixture(tasks, experts, mixture=self.mixture)
            case "softmax":
                return SoftmaxGate(tasks, experts)
            case "one":
                return RoutingGate(tasks, experts)
            case "topk":
                return TopKGate(tasks, experts, k)
            case "dselect_k":
                return DSelectGate(tasks, experts, k)
            case "learned":
                return BernoulliGate(
                    tasks,
                    experts,
                    probability=self.probability,
                    mixture=self.mixture,
                    at_freeze=self.at_freeze,
                    seed=seed,
                )


class GatedStage(BankStage):
    """A mixture of experts of which each task uses a subset that its gate chooses.

    z(t, x) = sum_i b_i(t) w_i(t) f_i(x) (equation 1). Only the experts chosen for a state are run, and each
    once, however many questions need it.

    Attributes:
        gate: What chooses, and weighs, among a task's M experts: the shared ones, then its own.
        density_penalty: lambda, multiplies the gate's penalty: for learned gates the mean over tasks of k(t).
        density_warmup: Epochs over which that price rises from 0.
        grouping: How the gates start, where they do not start undecided.
        recogniser: What has the shared experts tell the tasks apart, if anything.
        cut: Takes away what a budget cannot afford from the experts chosen, bool ``[N, M]``.
    """

    kind = "gated"
    block: Tensor

    def __init__(
        self,
        name: str,
        tasks: int,
        bank: Bank,
        gate: Gate,
        *,
        own: int = 0,
        density_penalty: float = 0.0,
        density_warmup: int = 0,
        grouping: Grouping | None = None,
        recogniser: Recogniser | None = None,
    ) -> None:
        super().__init__(name, tasks, bank)
        self.grouping = grouping
        if grouping is not None:
            self.one_process = "compares tasks by their gradients, of which each process sees a part"
        self.gate = gate
        self.recogniser = recogniser
        self.density_penalty = density_penalty
        self.density_warmup = density_warmup
        self.cut: Callable[[], Tensor] | None = None
        shared = bank.blocks - own * tasks
        mine = shared + torch.arange(own * tasks).reshape(tasks, own)
        block = torch.cat([torch.arange(shared).expand(tasks, -1), mine], dim=1)
        self.register_buffer("block", block, persistent=False)
        self._price = 0.0 if density_warmup or grouping is not None else density_penalty

    @property
    def ready(self) -> bool:
        """Whether the gates choose."""
        return not self._grouping

    @property
    def least_epochs(self) -> int:
        """How many epochs it takes until the gates choose."""
        return 1 if self.grouping is None else self.grouping.until + 1

    @property
    def _grouping(self) -> bool:
        return self.grouping is not None and bool(self.grouping.open)

    @property
    def draws(self) -> int:
        """Number of gates that are drawn for a question while training."""
        return self.block.shape[1] if self.gate.drawn and not self._grouping else 0

    def begin_epoch(self, epoch: int, moments: Moments) -> None:
        """Group the tasks when it is time; then raise the price of an expert, up to lambda."""
        first = 0
        if self.grouping is not None:
            first = self.grouping.until
            if epoch < first:
                return
            if self.grouping.open:
                self.gate.prefer(self.grouping.close(self.bank))
                for parameter in self.bank.weights.values():
                    moments.forget(parameter)
        share = min(1.0, (epoch - first) / self.density_warmup) if self.density_warmup else 1.0
        self._price = share * self.density_penalty

    def probabilities(self) -> Tensor:
        """Return how likely each task uses each of its experts, ``[N, M]``."""
        return self.gate.probabilities()

    def density(self) -> Tensor:
        """Return the expected number of experts of each task while training, ``[N]``."""
        return self.gate.density()

    def selection(self) -> Tensor:
        """Return the experts that each task keeps, ``[N, M]`` bool."""
        return self.gate.selection() if self.cut is None else self.cut()

    def forward(self, state: State, task: Tensor, draw: Draw | None = None) -> State:
        """Mix each question's experts, ``[S, ...] -> [B', ...]``, once for equal questions."""
        if self.grouping is not None and self.grouping.open:
            return self.grouping.run(self, state, task)
        if draw is None:
            selection = self.selection()
            chosen, weight = selection[task], self.gate.weights(selection)[task]
        else:
            chosen, weight = self.gate(task, draw)
        position, learning, answer = state.position, len(task), None
        if draw is not None and draw.samples > 1:
            learning = draw.questions
            if self.gate.drawn:
                # Sets of gates that agree here are one question; a gate that draws nothing may add noise.
                first, answer = distinct_questions(position * self.tasks + task, chosen)
                chosen, weight, position, task = chosen[first], weight[first], position[first], task[first]
                learning = int((first < learning).sum())
        question, slot = chosen.nonzero(as_tuple=True)
        pairs = distinct_pairs(self.block[task[question], slot], position[question], len(state.values))
        # Questions that learn come first, and so do their needs.
        taught = int((question < learning).sum())
        features, index = self._features(state.values, pairs, taught)
        if self.recogniser is not None and self.training:
            self._recognise(features, index[:taught], pairs, task[question[:taught]])
        share, count = weight[question, slot], chosen.sum(dim=1)
        mixed = mix_ragged(features, index[:taught], share[:taught], count[:learning])
        if learning < len(task):
            with torch.no_grad():
                rest = mix_ragged(features, index[taught:], share[taught:], count[learning:])
            mixed = torch.cat([mixed, rest])
        return State(mixed, torch.arange(len(task), device=task.device) if answer is None else answer)

    def _features(self, values: Tensor, pairs: Pairs, learning: int) -> tuple[Tensor, Tensor]:
        """Run experts ``[P]``, with gradients for the pairs of the first ``learning`` needs.

        Returns:
            The features, and for each need its own.
        """
        wanted = torch.zeros_like(pairs.block, dtype=torch.bool)
        wanted[pairs.index[:learning]] = True
        spared = len(wanted) - int(wanted.sum())
        if not torch.is_grad_enabled() or spared <= _SPARED * len(wanted):
            return self.bank.run(values.index_select(0, pairs.state), pairs.block), pairs.index
        rest = (~wanted).nonzero().flatten()
        wanted = wanted.nonzero().flatten()
        taught = self.bank.run(values.index_select(0, pairs.state[wanted]), pairs.block[wanted])
        with torch.no_grad():
            asked = self.bank.run(values.index_select(0, pairs.state[rest]), pairs.block[rest])
        place = torch.cat([wanted, rest]).argsort()
        return torch.cat([taught, asked]), place[pairs.index]

    def _recognise(self, features: Tensor, index: Tensor, pairs: Pairs, task: Tensor) -> None:
        """Guess each need's task ``[E]`` from its feature, where that is a shared expert's."""
        if self.recogniser is not None:
            block = pairs.block[index]
            shared = (block < len(self.recogniser.weight)).nonzero().flatten()
            states = features.index_select(0, index[shared])
            self.recogniser.notice(states, task[shared], block[shared])

    def penalty(self) -> Tensor:
        """Return lambda times the gate's penalty, and the price of the tasks that were not recognised."""
        penalty = (
            torch.zeros((), device=self.block.device)
            if self.recogniser is None
            else self.recogniser.penalty()
        )
        return penalty if self._price == 0 else penalty + self._price * self.gate.penalty()

    def gate_parameters(self) -> list[nn.Parameter]:
        """Return what learns at the gates' rate."""
        return self.gate.gate_parameters()

    def plan(self) -> StagePlan:
        """Return the plan: each task's experts, with p(t)."""
        if self._grouping:
            return plan_of(self, [[0]] * self.tasks)
        selection = self.selection()
        slots = [row.nonzero().flatten().tolist() for row in selection]
        mixing = self.gate.weights(selection).detach()
        probabilities = mixing.new_zeros((self.tasks, self.bank.blocks))
        probabilities.scatter_(1, self.block, self.probabilities().detach())
        return plan_of(
            self,
            [self.block[task, used].tolist() for task, used in enumerate(slots)],
            [mixing[task, used].tolist() for task, used in enumerate(slots)],
            probabilities=probabilities,
        )

    def report(self) -> dict[str, float]:
        """Return the mean density, and the mean number of experts kept."""
        return {
            "density": float(self.density().detach().mean()),
            "experts": float(self.selection().sum(dim=1).float().mean()),
            **({} if self.recogniser is None else self.recogniser.report()),
        }
