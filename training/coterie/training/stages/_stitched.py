"""Columns that learn what to take from each other: cross-stitch and sluice networks, low supervision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import combinations
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.training.bank import Bank
from coterie.training.blocks import AnyBlockConfig, InputShape, build_block
from coterie.training.stages._base import Stage
from coterie.training.stages._columns import Columns, ColumnsStage
from coterie.training.stages._config import Count, NotNegative, Positive, Site, StageConfig

Start = Literal["balanced", "imbalanced"]

_OWN = 0.9
"""Share with which a column begins to take its own, and a task its last layer (Ruder et al. 2019)."""


class StitchedConfig(StageConfig):
    """Columns of layers: every task's own, mixed after each layer, or one column read at several depths."""

    kind: Literal["stitched"] = "stitched"
    layers: Annotated[tuple[AnyBlockConfig, ...], Field(min_length=1)]
    """The architecture of each layer of a column, or with subspaces, of one subspace of it."""
    columns: Literal["tasks", "one"] = "tasks"
    """A column for each task, or one for all."""
    subspaces: Count = 1
    """Parts of a layer that are mixed apart (sluice networks: 2); a column's state is all in a row."""
    alpha: Start = "imbalanced"
    """The mixture of columns at the start: the same of each, or 0.9 of its own subspace."""
    skip: bool = False
    """Whether a task reads a learned mixture (beta) of all layers; otherwise one layer."""
    beta: Start = "imbalanced"
    """That mixture at the start: the same of each layer, or 0.9 of the last."""
    depth: dict[str, Count] = Field(default_factory=dict)
    """The layer that a task reads, from 1, by its name or a pattern like ``pos*``; others read the last."""
    orthogonality: NotNegative = 0.0
    """Price of subspaces of a layer whose weights point the same way."""
    mix_rate: Positive = 10.0
    """Learning rate of alpha and beta, in multiples of the stage's."""

    def mistakes(self, site: Site) -> list[str]:
        """Return what is wrong whatever the states' shape."""
        found = super().mistakes(site)
        names = [task.name for task in site.tasks]
        for pattern, layer in self.depth.items():
            if layer > len(self.layers):
                found.append(f"depth.{pattern}: there is no layer {layer}, but {len(self.layers)}")
            if not any(fnmatchcase(name, pattern) for name in names):
                found.append(f"depth.{pattern}: no task is called that; there are {', '.join(names[:10])}")
        if self.depth and self.skip:
            found.append("depth: a task reads all layers with skip: true; leave one of the two out")
        if self.orthogonality and self.subspaces == 1:
            found.append("orthogonality: is between subspaces; set subspaces to 2")
        return found

    def build(self, site: Site) -> tuple[Stage, InputShape]:
        """Make the stage; return it with the shape of a column's state."""
        names = [task.name for task in site.tasks]
        own = self.columns == "tasks"
        columns = len(names) if own else 1
        layers, shapes = self._layers(site.shape, columns * self.subspaces)
        depths = [self._depth(name) for name in names]
        if len({shapes[layer] for layer in (range(len(layers)) if self.skip else depths)}) > 1:
            raise ConfigError("layers: what tasks read differs in size: make those layers' results alike")
        reads = [(number if own else 0, depth) for number, depth in enumerate(depths)]
        distinct = sorted(set(reads))
        block = Stitched(
            layers,
            columns=columns,
            subspaces=self.subspaces,
            axis=_feature_axis(shapes[0]),
            reads=distinct,
            alpha=self.alpha,
            readers=len(names) if self.skip else 0,
            beta=self.beta,
            orthogonality=self.orthogonality,
            mix_rate=self.mix_rate,
        )
        column = range(len(names)) if self.skip else [distinct.index(read) for read in reads]
        return ColumnsStage(site.name, len(names), "stitched", block, list(column)), shapes[depths[0]]

    def _layers(self, shape: InputShape, blocks: int) -> tuple[list[Bank], list[InputShape]]:
        """Return the layers, and the shape of a column's state after each."""
        layers, shapes = [], []
        for number, config in enumerate(self.layers):
            try:
                _, following = build_block(config, shape)
                axis = _feature_axis(following)
            except ConfigError as error:
                raise ConfigError(f"layers.{number}: {error}") from error
            layers.append(Bank(partial(config.build, shape), blocks))
            dims = list(following.dims)
            dims[axis] = (dims[axis] or 0) * self.subspaces
            shape = replace(following, dims=tuple(dims))
            shapes.append(shape)
        return layers, shapes

    def _depth(self, task: str) -> int:
        """Return the layer that a task reads, from 0; the last pattern counts that fits."""
        found = [layer for pattern, layer in self.depth.items() if fnmatchcase(task, pattern)]
        return min([len(self.layers), *found[-1:]]) - 1


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
        for number, layer in enumerate(self._banks()):
            given = columns if len(columns) == 1 else columns.repeat_interleave(self.subspaces, dim=0)
            results = layer.run_each(given)
            if len(self.alpha):
                results = torch.tensordot(self.alpha[number], results, dims=1)
            parts = results.reshape(self.columns, self.subspaces, *results.shape[1:]).unbind(1)
            columns = parts[0] if len(parts) == 1 else torch.cat(parts, dim=self.axis)
            found.append(columns)
        if self.beta is None:
            return torch.stack([found[layer][column] for column, layer in self.reads], dim=1)
        every = torch.stack(found)
        weights = self.beta.t().reshape(*self.beta.t().shape, *[1] * (every.dim() - 2))
        return (weights * every).sum(dim=0).transpose(0, 1)

    def auxiliary(self, asked: Tensor) -> Tensor:
        """Return the price of subspaces that are alike: the sum of ||G_(c,1)^T G_(c,2)||^2 (Frobenius).

        A column of a G is what one of its features weighs, over all of its matrices (Ruder et al. 2019,
        section 2).
        """
        if not self.orthogonality:
            return super().auxiliary(asked)
        norms = [
            torch.matmul(first, second.transpose(-2, -1)).square().sum()
            for layer in self._banks()
            for weight in layer.weights.values()
            if weight.dim() > 2
            for first, second in combinations(
                weight.flatten(2).unflatten(0, (self.columns, self.subspaces)).unbind(1), 2
            )
        ]
        return self.orthogonality * torch.stack(norms).sum()

    def _banks(self) -> list[Bank]:
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


def _feature_axis(shape: InputShape) -> int:
    """Return the axis of features: channels of images, the last of anything else."""
    if shape.dims[-1] is None:
        raise ConfigError(f"columns mix features, but the states are {shape}: use a layer that gives vectors")
    return -3 if len(shape.dims) == 3 and None not in shape.dims else -1
