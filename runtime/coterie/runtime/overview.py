"""What a person is shown of a bundle, in its report and on a terminal alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coterie.runtime.manifest import KindSizes, Manifest
from coterie.runtime.plan import SharingPlan, StageKind, StagePlan

BLOCKS_OF: Mapping[StageKind, str] = {
    "hard": "trunk",
    "specific": "tasks' own blocks",
    "soft": "softly shared blocks",
    "cluster": "centroids",
    "gated": "experts",
    "shared_private": "shared and private blocks",
    "input_gated": "experts gated by the input",
    "stitched": "columns",
    "head": "heads",
}
"""What the blocks of each kind of stage are called."""

MOST_OPEN = 60
"""Of more tasks, a tree is at first shown without its last branches."""

_MOST_LAYERS = 24
"""A tree is no deeper, whatever a stranger's plan says."""


@dataclass(frozen=True)
class Branch:
    """The tasks that use one block, among those of the branch that this one grows from.

    Attributes:
        stage: The block's stage.
        block: The block's name.
        tasks: The tasks.
        of: Tasks that use the block at all; more than ``tasks`` where it cuts across an earlier layer.
        branches: How the next layer divides the tasks, the largest part first; empty after the last one.
    """

    stage: str
    block: str
    tasks: tuple[str, ...]
    of: int
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class KindRow:
    """What weights of one kind weigh.

    Attributes:
        blocks: What the blocks are called.
        stages: The stages that they are of.
        sizes: Their bytes before and after.
    """

    blocks: str
    stages: tuple[str, ...]
    sizes: KindSizes


def kind_rows(manifest: Manifest) -> list[KindRow]:
    """Return the sizes by kind of block, from the input on; none of a bundle that does not say them."""
    stages: dict[StageKind, list[str]] = {}
    for stage in manifest.plan.stages:
        stages.setdefault(stage.kind, []).append(stage.name)
    return [
        KindRow(BLOCKS_OF[kind], tuple(names), manifest.kinds[kind])
        for kind, names in stages.items()
        if kind in manifest.kinds
    ]


def kind_total(rows: Sequence[KindRow]) -> KindSizes:
    """Return the sizes of all kinds together."""
    return KindSizes(
        copies=sum(row.sizes.copies for row in rows),
        trained=sum(row.sizes.trained for row in rows),
        kept=sum(row.sizes.kept for row in rows),
    )


def cluster_tree(plan: SharingPlan) -> tuple[Branch, ...]:
    """Return how the stages that divide the tasks into groups do so, from the most general one on.

    Empty where no stage does.
    """
    return _grow(plan, plan.groupings()[:_MOST_LAYERS], range(len(plan.tasks)))


def _grow(plan: SharingPlan, layers: Sequence[StagePlan], tasks: Sequence[int]) -> tuple[Branch, ...]:
    if not layers:
        return ()
    stage, users = layers[0], layers[0].users()
    parts: dict[int, list[int]] = {}
    for task in tasks:
        parts.setdefault(stage.uses[task][0], []).append(task)
    return tuple(
        Branch(
            stage=stage.name,
            block=stage.blocks[block].name,
            tasks=tuple(plan.tasks[task] for task in part),
            of=users[block],
            branches=_grow(plan, layers[1:], part),
        )
        for block, part in sorted(parts.items(), key=lambda item: (-len(item[1]), item[1][0]))
    )
