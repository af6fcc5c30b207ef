"""The block of stitched columns: every column's layers, and what they take of each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from coterie.training.bank import Bank
from coterie.training.stages._columns import Columns

Start = Literal["balanced", "imbalanced"]

_OWN = 0.9
"""Share with which a column begins to take its own, and a task its last layer (Ruder et al. 2019)."""


class Stitched(Columns):
    """C columns of L layers, ``[S, ...] -> [S, reads, ...]``.

    A layer of a column is K blocks, its subspaces G_(c,1) to G_(c,K), which all read the column's state. Then
    every subspace becomes a mixture of all columns' subspaces (Ruder et al. 2019, "Latent Multi-task
    Architecture Learning", section 2; with K = 1 it is the cross-stitch unit of Misra et al. 2016,
    "Cross-stitch Networks for Multi-task Learning", equation 1):

        h'_i = sum_j alpha_ij h_j        i, j of C * K subspaces, h_j = G_j(h' of its column)

    A column's state is its subspaces in a row. A task reads one layer of one column (reading a lower one is
    low supervision: Soegaard and Goldberg 2016), or with skip connections the mixture sum_l beta_tl h'_l.

    Attributes:
        layers: A bank of C * K blocks for each layer, column by column.
        alpha: For each layer ``[C * K, C * K]``; none where there is one block.
        beta: ``[readers, L]``, or None: then ``reads`` says which (column, layer) are handed on.
    """

    def __init__(
        self,
        layers: Sequence[Bank],
        *,
        columns: int,
        subspaces: int,
        axis: int,
        reads: Sequence[tuple[int, int]],
        alpha: Start = "imbalanced",
        readers: int = 0,
        beta: Start = "imbalanced",
        orthogonality: float = 0.0,
        mix_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.columns, self.subspaces, self.axis = columns, subspaces, axis
        self.reads = tuple(reads)
        self.orthogonality = orthogonality
        self.layers = nn.ModuleList(layers)
        count, depth = columns * subspaces, len(layers)
        start = _shares(count, alpha)
        self.alpha = nn.ParameterList([start.clone() for _ in layers] if count > 1 else [])
        last = _shares(depth, beta)[-1]
        self.beta = nn.Parameter(last.repeat(readers, 1)) if readers else None
        mixtures = (f"alpha.{layer}" for layer in range(len(self.alpha)))
        self.rates = dict.fromkeys((*mixtures, *(["beta"] if readers else [])), mix_rate)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``[S, ...]`` to what is read, ``[S, reads, ...]``."""
        columns, found = states.unsqueeze(0), []
        for number, layer in enumerate(self.banks()):
            results = layer.run_each(columns)
            if len(self.alpha):
                results = torch.tensordot(self.alpha[number], results, dims=1)
            parts = results.reshape(self.columns, self.subspaces, *results.shape[1:]).unbind(1)
            columns = parts[0] if len(parts) == 1 else torch.cat(parts, dim=self.axis)
            found.append(columns)
        if self.beta is None:
            return torch.stack([found[layer][column] for column, layer in self.reads], dim=1)
        shares = self.beta.t().reshape(*self.beta.t().shape, *[1] * states.dim())
        read = shares[0] * found[0]
        for share, state in zip(shares[1:], found[1:], strict=True):
            read = read + share * state
        return read.transpose(0, 1)

    def auxiliary(self, asked: Tensor) -> Tensor:
        """Return the price of subspaces that are alike: the sum of ||G_(c,1)^T G_(c,2)||^2 (Frobenius).

        A column of a G is what one of its features weighs, over all of its matrices (Ruder et al. 2019,
        section 2).
        """
        if not self.orthogonality:
            return super().auxiliary(asked)
        norms = [
            torch.matmul(first, second.transpose(-2, -1)).square().sum()
            for layer in self.banks()
            for weight in layer.weights.values()
            if weight.dim() > 2
            for first, second in combinations(
                weight.flatten(2).unflatten(0, (self.columns, self.subspaces)).unbind(1), 2
            )
        ]
        return self.orthogonality * torch.stack(norms).sum()

    def banks(self) -> list[Bank]:
        """Return the layers, typed."""
        return [layer for layer in self.layers if isinstance(layer, Bank)]

    def report(self) -> dict[str, float]:
        """Return how much subspaces take of themselves, layer by layer, and tasks of each layer."""
        report = {
            f"alpha{number}_own": float(alpha.detach().diagonal().mean())
            for number, alpha in enumerate(self.alpha, start=1)
        }
        if self.beta is not None:
            shares = self.beta.detach().mean(dim=0).tolist()
            report |= {f"beta{number}": share for number, share in enumerate(shares, start=1)}
        return report


def _shares(count: int, start: Start) -> Tensor:
    """Return mixtures that add up to 1, ``[count, count]``, each with 0.9 of its own or the same of all."""
    if count == 1 or start == "balanced":
        return torch.full((count, count), 1 / count)
    return torch.full((count, count), (1 - _OWN) / (count - 1)).fill_diagonal_(_OWN)
