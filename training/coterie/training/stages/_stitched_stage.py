"""Stitched columns as a stage: what is left of them at the freeze, block by block."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from coterie.runtime.plan import BlockPlan, StagePlan, Stitches, StitchLayer
from coterie.training.frozen import FrozenBank
from coterie.training.stages._columns import ColumnsStage
from coterie.training.stages._stitched_columns import Stitched

Matrix = npt.NDArray[np.float32]

Read = tuple[int, int, float]
"""What a task reads of the columns: layer, column and beta."""


class StitchedStage(ColumnsStage):
    """Columns whose mixtures are known once they are trained, so that each is a block of its own.

    Who takes nothing of whom is known then, too: a task uses the blocks that its state depends on, and what
    no task's state depends on is left out.
    """

    block: Stitched

    def __init__(self, name: str, tasks: int, block: Stitched, column: Sequence[int]) -> None:
        super().__init__(name, tasks, "stitched", block, column)

    def alphas(self) -> list[nn.Parameter]:
        """Return each layer's mixtures, ``[C * K, C * K]``; none where there is one block."""
        return list(self.block.alpha)

    def plan(self) -> StagePlan:
        """Return the plan: the blocks that some task's state depends on, and how they feed each other."""
        block = self.block
        alphas = [alpha.detach().cpu().numpy() for alpha in block.alpha] or [
            np.ones((1, 1), dtype=np.float32) for _ in block.layers
        ]
        kept = _kept_layers(alphas, block.subspaces, self._reads())
        layers: list[StitchLayer] = []
        blocks: list[BlockPlan] = []
        for number, (layer, bank) in enumerate(zip(kept, block.banks(), strict=False)):
            layers.append(layer.plan(first=len(blocks), given=kept[number - 1] if number else None))
            blocks += [
                BlockPlan(
                    name=f"{self.name}/{number}/{index}",
                    source=number * bank.blocks + index,
                    parameters=bank.block_parameters,
                )
                for index in layer.blocks
            ]
        stitches = Stitches(
            subspaces=block.subspaces,
            axis=block.axis,
            layers=tuple(layers),
            reads=tuple(
                tuple((layer, kept[layer].columns.index(column), beta) for layer, column, beta in read)
                for read in self._reads()
            ),
        )
        uses = stitches.needs()
        return StagePlan(
            name=self.name,
            kind="stitched",
            trained_blocks=sum(bank.blocks for bank in block.banks()),
            blocks=tuple(blocks),
            uses=uses,
            weights=tuple((1.0,) * len(used) for used in uses),
            stitches=stitches,
            trained_parameters=sum(bank.blocks * bank.block_parameters for bank in block.banks()) or None,
        )

    def frozen_bank(self) -> FrozenBank:
        """Return the blocks that the plan names; those of a layer are of one architecture."""
        banks = self.block.banks()
        made = [copy.deepcopy(bank.template).eval() for bank in banks]
        places = [divmod(block.source, banks[0].blocks) for block in self.plan().blocks]
        return FrozenBank(
            template=made[0],
            tensors=tuple(banks[layer].tensors(index) for layer, index in places),
            templates=tuple(made[layer] for layer, _ in places),
        )

    def _reads(self) -> list[list[Read]]:
        """Return what each task reads."""
        column = self.column.tolist()
        if self.block.beta is None:
            reads = [self.block.reads[at] for at in column]
            return [[(layer, number, 1.0)] for number, layer in reads]
        own = self.block.columns > 1
        betas = self.block.beta.detach().cpu().tolist()
        return [
            [
                (layer, task if own else 0, share)
                for layer, share in enumerate(betas[at])
                if share or layer == len(betas[at]) - 1
            ]
            for task, at in enumerate(column)
        ]


@dataclass(frozen=True)
class _Layer:
    """What is kept of a layer: columns and blocks by their index in it, and alpha from these to those."""

    columns: tuple[int, ...]
    blocks: tuple[int, ...]
    subspaces: int
    alpha: Matrix

    def plan(self, first: int, given: _Layer | None) -> StitchLayer:
        """Return the plan; its first block is the stage's ``first``, ``given`` is the layer before."""
        columns = [block // self.subspaces for block in self.blocks]
        return StitchLayer(
            blocks=tuple(range(first, first + len(self.blocks))),
            takes=tuple(0 if given is None else given.columns.index(column) for column in columns),
            columns=self.columns,
            alpha=tuple(map(tuple, self.alpha.tolist())),
        )


def _kept_layers(alphas: Sequence[Matrix], subspaces: int, reads: Sequence[Sequence[Read]]) -> list[_Layer]:
    """Return what some task's state depends on, from the last layer that is read to the first."""
    read = {(layer, column) for task in reads for layer, column, _ in task}
    wanted: set[int] = set()
    layers: list[_Layer] = []
    for number in range(max(layer for layer, _ in read), -1, -1):
        wanted |= {column for layer, column in read if layer == number}
        columns = sorted(wanted)
        rows = [column * subspaces + part for column in columns for part in range(subspaces)]
        alpha = alphas[number][rows]
        for place in np.flatnonzero(~alpha.any(axis=1)):
            # A subspace that takes nothing of anybody is zeros: of its own block's result, as good as none.
            alpha[place, rows[place]] = torch.finfo(torch.float32).tiny
        blocks = np.flatnonzero(alpha.any(axis=0)).tolist()
        layers.append(_Layer(tuple(columns), tuple(blocks), subspaces, alpha[:, blocks]))
        wanted = {block // subspaces for block in blocks}
    return layers[::-1]
