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

    @property
    def mixes(self) -> bool:
        """Whether any task weights or adds up blocks, rather than using one of them as it is."""
        return any(weight != (1.0,) for weight in self.weights)

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

    def stage(self, name: str) -> StagePlan:
        """Return the stage of that name, or raise ``KeyError``."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
