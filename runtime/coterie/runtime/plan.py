"""The sharing plan: which task uses which blocks, with which weights.

Every layer of a multi-task network is a bank of blocks, and a task uses a sparse, weighted subset of each
bank. A stage's plan is therefore its blocks and a sparse N x B mixing matrix, whatever algorithm learned it.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

StageKind = Literal[
    "hard", "specific", "soft", "cluster", "gated", "shared_private", "input_gated", "stitched", "head"
]

Combine = Literal["sum", "concat"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BlockPlan(_Frozen):
    """One block of a bank."""

    name: str
    """Unique within the plan, for example ``experts/3``."""
    source: int = Field(ge=0)
    """Its index in the trained bank; unused blocks are left out of a plan, so this may jump."""
    parameters: int = Field(ge=0)
    """Number of weights."""


class StitchLayer(_Frozen):
    """One layer of stitched columns, without the blocks and columns that no task needs."""

    blocks: tuple[int, ...] = Field(min_length=1)
    """Its blocks, indices into the stage's, ascending."""
    takes: tuple[int, ...]
    """For each block the column that it takes, a place among those that the layer before keeps; 0 in the
    first layer, where every block takes the stage's own input."""
    columns: tuple[int, ...] = Field(min_length=1)
    """The columns that are kept, by their index in the trained stage."""
    alpha: tuple[tuple[float, ...], ...]
    """For each subspace of each kept column its share of each block, ``[columns * subspaces, blocks]``."""


class Stitches(_Frozen):
    """How the blocks of stitched columns feed each other, layer by layer (cross-stitch units, sluices).

    After a layer every subspace of a column is a mixture of the layer's blocks, ``h'_i = sum_j alpha_ij
    h_j``, and a column's state is its subspaces in a row. Task t's state is ``sum beta * state`` over what it
    reads.
    """

    subspaces: int = Field(ge=1)
    axis: int = Field(lt=0)
    """Axis of the states along which a column's subspaces lie, from the end."""
    layers: tuple[StitchLayer, ...] = Field(min_length=1)
    reads: tuple[tuple[tuple[int, int, float], ...], ...]
    """For each task the states that it reads: layer, place among that layer's columns, and beta."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = 1
        for layer in self.layers:
            if list(layer.blocks) != sorted(set(layer.blocks)) or layer.blocks[0] < 0:
                raise ValueError("a layer's blocks are ascending and distinct")
            if len(layer.takes) != len(layer.blocks) or not all(0 <= at < given for at in layer.takes):
                raise ValueError("every block takes one column of the layer before")
            if len(layer.alpha) != self.subspaces * len(layer.columns):
                raise ValueError("alpha has a row for each subspace of each column")
            if any(len(row) != len(layer.blocks) or not any(row) for row in layer.alpha):
                raise ValueError("every subspace is a mixture of at least one of its layer's blocks")
            given = len(layer.columns)
        for read in self.reads:
            if not read or not all(
                0 <= layer < len(self.layers) and 0 <= column < len(self.layers[layer].columns)
                for layer, column, _ in read
            ):
                raise ValueError("every task reads at least one column of a layer")
        return self

    def rows(self, column: int) -> range:
        """Return the rows of alpha that make up a layer's column, by its place."""
        return range(column * self.subspaces, (column + 1) * self.subspaces)

    def needs(self) -> tuple[tuple[int, ...], ...]:
        """Return for each task the blocks that its state depends on, ascending."""
        # Sets of blocks as the bits of one number: there may be as many columns as tasks.
        given, found = [0], []
        for layer in self.layers:
            own = [1 << block | given[at] for block, at in zip(layer.blocks, layer.takes, strict=True)]
            columns = []
            for column in range(len(layer.columns)):
                bits = 0
                for row in self.rows(column):
                    for share, block in zip(layer.alpha[row], own, strict=True):
                        bits |= block if share else 0
                columns.append(bits)
            found.append(columns)
            given = columns
        tasks = []
        for read in self.reads:
            bits = 0
            for number, column, _ in read:
                bits |= found[number][column]
            tasks.append(tuple(at for at, bit in enumerate(reversed(f"{bits:b}")) if bit == "1"))
        return tuple(tasks)


class StagePlan(_Frozen):
    """One stage: its used blocks and the sparse mixing matrix, row by row."""

    name: str
    kind: StageKind
    trained_blocks: int = Field(ge=1)
    """Number of blocks in the bank as it was trained, used or not."""
    blocks: tuple[BlockPlan, ...] = Field(min_length=1)
    uses: tuple[tuple[int, ...], ...]
    """For each task, the indices (into ``blocks``) of the blocks it uses, ascending; never empty."""
    weights: tuple[tuple[float, ...], ...]
    """For each task, the mixture weight of each of those blocks; 1.0 where nothing is mixed."""
    gate_probabilities: tuple[tuple[float, ...], ...] | None = None
    """Gated layers: p(t), [N, trained_blocks]."""
    combine: Combine = "sum"
    """How a task's blocks become one state: added up by their weights, or put one after the other along the
    last axis (shared and private networks), each times its weight."""
    columns: tuple[int, ...] | None = None
    """Stages that compute every task's state at once, such as stitched columns and gates that depend on the
    input: the one block's result is [R, columns, ...], and task t reads the column ``columns[t]``. Nothing of
    such a stage can be cut. None: a task reads the whole result."""
    stitches: Stitches | None = None
    """Stitched columns: how the stage's blocks feed each other. A task uses the blocks that its state depends
    on, each with weight 1; in what mixture is said here. None: every block takes the stage's own input."""
    trained_parameters: int | None = Field(default=None, ge=1)
    """Weights of all blocks as they were trained, used or not, where these are of several architectures."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.uses) != len(self.weights):
            raise ValueError("uses and weights have different numbers of tasks")
        for used, weight in zip(self.uses, self.weights, strict=True):
            if not used or len(used) != len(weight):
                raise ValueError("every task uses at least one block, with one weight for each")
            if list(used) != sorted(set(used)) or used[0] < 0 or used[-1] >= len(self.blocks):
                raise ValueError("a task's blocks are ascending, distinct and among the stage's blocks")
        if self.combine == "concat" and len({len(used) for used in self.uses}) > 1:
            raise ValueError("a stage that joins its blocks' results joins equally many for every task")
        if self.columns is not None:
            if len(self.columns) != len(self.uses) or min(self.columns) < 0:
                raise ValueError("every task reads one column")
            if any(
                used != (0,) or weight != (1.0,) for used, weight in zip(self.uses, self.weights, strict=True)
            ):
                raise ValueError("a stage with columns has one block, which every task uses as it is")
        return self

    @model_validator(mode="after")
    def _stitched(self) -> Self:
        if self.stitches is None:
            return self
        if any(block >= len(self.blocks) for layer in self.stitches.layers for block in layer.blocks):
            raise ValueError("a layer's blocks are among the stage's blocks")
        if self.columns is not None or self.combine != "sum" or self.stitches.needs() != self.uses:
            raise ValueError("a task of a stitched stage uses the blocks that its state depends on")
        if any(set(weight) != {1.0} for weight in self.weights):
            raise ValueError("the mixtures of a stitched stage are its stitches'")
        return self

    @property
    def mixes(self) -> bool:
        """Whether any task weights or adds up blocks, rather than using one of them as it is."""
        return self.stitches is not None or any(weight != (1.0,) for weight in self.weights)

    @property
    def dense(self) -> bool:
        """Whether every task's state is computed for every input, so that no task can leave a part out."""
        return self.columns is not None

    def mixing_matrix(self) -> npt.NDArray[np.float32]:
        """Return the mixing matrix A, [N, B]."""
        matrix = np.zeros((len(self.uses), len(self.blocks)), dtype=np.float32)
        for task, (used, weight) in enumerate(zip(self.uses, self.weights, strict=True)):
            matrix[task, list(used)] = weight
        return matrix

    def density(self) -> npt.NDArray[np.int64]:
        """Return k(t), the number of blocks each task uses, [N]."""
        return np.array([len(used) for used in self.uses], dtype=np.int64)

    def assignment(self) -> npt.NDArray[np.int64]:
        """Return the one block of each task, [N].

        Raises:
            ValueError: If a task uses several blocks.
        """
        if any(len(used) != 1 for used in self.uses):
            raise ValueError(f"stage {self.name!r} mixes several blocks for a task: it has no assignment")
        return np.array([used[0] for used in self.uses], dtype=np.int64)

    def users(self) -> dict[int, int]:
        """Return for each block index the number of tasks that use it."""
        return dict(Counter(block for used in self.uses for block in used))


class SharingPlan(_Frozen):
    """The whole plan: every stage, for the same tasks in the same order."""

    tasks: tuple[str, ...] = Field(min_length=1)
    stages: tuple[StagePlan, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError("task names are not unique")
        for stage in self.stages:
            if len(stage.uses) != len(self.tasks):
                raise ValueError(f"stage {stage.name!r} covers {len(stage.uses)} of {len(self.tasks)} tasks")
        if len({stage.name for stage in self.stages}) != len(self.stages):
            raise ValueError("stage names are not unique")
        return self

    def groupings(self) -> list[StagePlan]:
        """Return the stages that divide the tasks into groups of one block each, from the input on."""
        return [
            stage
            for stage in self.stages
            if all(len(used) == 1 for used in stage.uses) and 1 < len(stage.blocks) < len(stage.uses)
        ]

    def parameters_of(self, task: int) -> int:
        """Return the number of weights in the blocks that a task uses."""
        return sum(stage.blocks[block].parameters for stage in self.stages for block in stage.uses[task])

    def stage(self, name: str) -> StagePlan:
        """Return the stage of that name, or raise ``KeyError``."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
