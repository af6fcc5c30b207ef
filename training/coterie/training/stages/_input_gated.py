"""Mixtures of experts whose gates look at the input: MMoE, noisy top-k gating, DSelect-k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from coterie.training.bank import Bank
from coterie.training.blocks import Block
from coterie.training.stages._base import Stage
from coterie.training.stages._columns import Columns, ColumnsStage
from coterie.training.stages._config import BlockStageConfig, Count, NotNegative, Positive, Site
from coterie.training.stages._input_gates import (
    DSelectInputGate,
    GateInput,
    InputGate,
    NoisyTopKGate,
    SoftmaxInputGate,
)


class InputGatedConfig(BlockStageConfig):
    """A mixture of M experts, which gates divide anew for every input."""

    kind: Literal["input_gated"] = "input_gated"
    experts: Count
    """Number of experts, M."""
    gate: Literal["softmax", "noisy_topk", "dselect_k"] = "softmax"
    """``softmax``: all experts (MMoE). ``noisy_topk`` and ``dselect_k``: ``k`` of them."""
    one_gate: bool = False
    """One gate for all tasks, rather than one for each."""
    k: Count = 2
    """Experts that an input uses, for ``noisy_topk`` and ``dselect_k``."""
    importance: NotNegative = 0.01
    """Price of experts with unlike shares of a batch, for ``noisy_topk``."""
    load: NotNegative = 0.01
    """Price of experts chosen unlike often in a batch, for ``noisy_topk``."""
    entropy: NotNegative = 0.01
    """Price of selectors that are not of one mind, for ``dselect_k``."""
    gate_rate: Positive = 1.0
    """Learning rate of the gates, in multiples of the stage's."""

    def mistakes(self, site: Site) -> list[str]:
        """Return what is wrong whatever the states' shape."""
        found = super().mistakes(site)
        if self.gate != "softmax" and self.k > self.experts:
            found.append(f"k: {self.k} of {self.experts} experts cannot be chosen: use fewer")
        if self.gate == "dselect_k" and self.experts == 1:
            found.append("experts: dselect_k chooses among two or more; use gate: softmax for one")
        return found

    def stage(self, site: Site, make: Callable[[], Block]) -> Stage:
        """Make the stage."""
        tasks = len(site.tasks)
        gates = 1 if self.one_gate else tasks
        given = GateInput(site.shape)
        gate = self._gate(given.size, gates)
        block = Mixture(Bank(make, self.experts), given, gate, gate_rate=self.gate_rate)
        column = [0] * tasks if self.one_gate else list(range(tasks))
        return ColumnsStage(site.name, tasks, "input_gated", block, column)

    def _gate(self, size: int, gates: int) -> InputGate:
        match self.gate:
            case "softmax":
                return SoftmaxInputGate(size, gates, self.experts)
            case "noisy_topk":
                return NoisyTopKGate(
                    size, gates, self.experts, self.k, importance=self.importance, load=self.load
                )
            case "dselect_k":
                return DSelectInputGate(size, gates, self.experts, self.k, entropy=self.entropy)


class Mixture(Columns):
    """y_g(x) = sum_i g_i(x) f_i(x), ``[S, ...] -> [S, G, ...]``: a state for each of G gates.

    Every expert runs on every state: which gate takes what is known only when the input is.

    Attributes:
        experts: f, M blocks.
        given: What gates read of a state.
        gate: Divides each state among the experts.
    """

    def __init__(self, experts: Bank, given: GateInput, gate: InputGate, *, gate_rate: float = 1.0) -> None:
        super().__init__()
        self.experts, self.given, self.gate = experts, given, gate
        self.rates = {f"gate.{name}": gate_rate for name, _ in gate.named_parameters()}
        self._shares = torch.zeros(0)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[S, ...]`` to ``[S, G, ...]``."""
        shares = self.gate(self.given(states))
        if self.training:
            self._shares = shares.detach()
        return mix(shares, self.experts.run_each(states.unsqueeze(0)))

    def auxiliary(self, asked: Tensor) -> Tensor:
        """Return the gate's losses."""
        return self.gate.auxiliary(asked)

    def report(self) -> dict[str, float]:
        """Return the least and the most that an expert was used in the last batch, as mean shares."""
        if not self._shares.numel():
            return {}
        mean = self._shares.mean(dim=(0, 1))
        return {"least_used": float(mean.min()), "most_used": float(mean.max())}


def mix(shares: Tensor, features: Tensor) -> Tensor:
    """Mix experts' features ``[M, S, ...]`` by shares ``[S, G, M]``, ``-> [S, G, ...]``."""
    flat = torch.matmul(shares, features.flatten(2).transpose(0, 1))
    return flat.reshape(*flat.shape[:2], *features.shape[2:])
