"""The one model class: a list of stages, from inputs to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.plan import SharingPlan
from coterie.runtime.tasks import TaskSpec
from coterie.training.bank import Bank
from coterie.training.blocks import Block, InputShape, build_block
from coterie.training.config import (
    AnyStageConfig,
    ClusterConfig,
    GatedConfig,
    ModelConfig,
    SpecificConfig,
)
from coterie.training.dispatch import State
from coterie.training.frozen import FrozenModel
from coterie.training.stages import ClusterStage, Draw, GatedStage, HardStage, HeadStage, SpecificStage, Stage

_TITLE = "the model cannot be built from its configuration:"


class MultiTaskModel(nn.Module):
    """Stages in a row; the last one is the heads.

    Attributes:
        input: The tensor the first stage takes.
        tasks: What each task answers, N of them.
        stages: The stages, in the order in which states flow.
    """

    def __init__(self, input: TensorSpec, tasks: Sequence[TaskSpec], stages: Sequence[Stage]) -> None:  # noqa: A002
        super().__init__()
        self.input = input
        self.tasks = tuple(tasks)
        self.stages = nn.ModuleList(stages)

    def forward(self, inputs: Tensor, row: Tensor, task: Tensor, draw: Draw | None = None) -> Tensor:
        """Answer B questions about R inputs.

        Args:
            inputs: ``[R, ...]``.
            row: ``[B]`` int64, the input each question is about.
            task: ``[B]`` int64, the task each question is of.
            draw: Where to draw gates from, while training; without it they are decided by equation 4.

        Returns:
            Scores ``[B, C]``; columns past a task's own width are 0.
        """
        state = State(inputs, row)
        for stage in self.each_stage():
            state = stage(state, task, draw)
        return state.values

    def each_stage(self) -> list[Stage]:
        """Return the stages, typed."""
        return [stage for stage in self.stages if isinstance(stage, Stage)]

    def cluster_stages(self) -> list[ClusterStage]:
        """Return the cluster layers."""
        return [stage for stage in self.stages if isinstance(stage, ClusterStage)]

    def gated_stages(self) -> list[GatedStage]:
        """Return the gated layers."""
        return [stage for stage in self.stages if isinstance(stage, GatedStage)]

    @property
    def head(self) -> HeadStage:
        """The heads."""
        stage = self.stages[-1]
        if not isinstance(stage, HeadStage):
            raise TypeError("the last stage of a model is its heads")
        return stage

    def penalty(self) -> Tensor:
        """Return what the stages add to the loss: alpha L_c and lambda times the mean density."""
        return torch.stack([stage.penalty() for stage in self.each_stage()]).sum()

    def plan(self) -> SharingPlan:
        """Return the sharing plan as it would be frozen now."""
        return SharingPlan(
            tasks=tuple(task.name for task in self.tasks),
            stages=tuple(stage.plan() for stage in self.each_stage()),
        )

    def freeze(self) -> FrozenModel:
        """Return the sharing plan with the blocks it names; this model is left as it is."""
        return FrozenModel(
            input=self.input,
            tasks=self.tasks,
            plan=self.plan(),
            banks=tuple(stage.frozen_bank() for stage in self.each_stage()),
        )


def build_model(
    config: ModelConfig,
    *,
    input: TensorSpec,  # noqa: A002
    shape: InputShape,
    tasks: Sequence[TaskSpec],
    first: Block | None = None,
    seed: int = 0,
) -> MultiTaskModel:
    """Make a model with fresh weights.

    Args:
        config: The stages.
        input: The tensor the model takes.
        shape: Its shape, without the batch dimension.
        tasks: What to answer.
        first: A block that learns nothing and comes before the stages, such as a standardisation.
        seed: Of the weights and of the clusterings.

    Raises:
        ConfigError: If the stages do not fit together; lists every mistake that can be seen.
    """
    names, starts = _names(config.stages), _starts(config.stages)
    mistakes = _mistakes(config.stages, names, starts, len(tasks))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages: list[Stage] = []
        if first is not None:
            stages.append(HardStage("input", len(tasks), Bank(lambda: first, 1)))
            shape = InputShape(dims=tuple(first(_raw_example(input)).shape[1:]))
        for index, (stage, name, start) in enumerate(zip(config.stages, names, starts, strict=True)):
            try:
                block, following = build_block(stage.block, shape)
            except ConfigError as error:
                # The shapes after this stage are not known: what follows cannot be judged.
                raise ConfigError(_TITLE, [*mistakes, f"model.stages.{index}.block: {error}"]) from error
            if not mistakes:
                make = _again(block, stage, shape)
                stages.append(_build_stage(stage, name, len(tasks), make, start=start, seed=seed))
            shape = following
        if shape.tokens or len(shape.dims) != 1 or shape.dims[0] is None:
            mistakes.append(
                f"model.head: the heads take vectors (D,), but the last stage's output is {shape}: end "
                "with a block that gives vectors"
            )
        if mistakes:
            raise ConfigError(_TITLE, mistakes)
        head, size = config.head, shape.vector("head")
        stages.append(HeadStage("head", size, tasks, alike=head.alike, init_scale=head.init_scale))
    return MultiTaskModel(input, tasks, stages)


def _again(block: Block, config: AnyStageConfig, shape: InputShape) -> Callable[[], Block]:
    """Return a maker of blocks that gives the one already made first."""
    made = [block]
    return lambda: made.pop() if made else config.block.build(shape)


def _build_stage(
    config: AnyStageConfig, name: str, tasks: int, make: Callable[[], Block], *, start: int, seed: int
) -> Stage:
    if isinstance(config, ClusterConfig):
        return ClusterStage(
            name,
            tasks,
            Bank(make, tasks, alike=True),
            clusters=config.clusters,
            mode=config.mode,
            start=start,
            warmup=config.warmup,
            freeze_after=config.freeze_after,
            pull=config.pull,
            every=config.every,
            seed=seed,
        )
    if isinstance(config, GatedConfig):
        return GatedStage(
            name,
            tasks,
            Bank(make, config.experts),
            density_penalty=config.density_penalty,
            density_warmup=config.density_warmup,
            probability=config.probability,
            mixture=config.mixture,
            gated=config.gates == "learned",
        )
    if isinstance(config, SpecificConfig):
        return SpecificStage(name, tasks, Bank(make, tasks, alike=config.alike))
    return HardStage(name, tasks, Bank(make, 1))


def _names(stages: Sequence[AnyStageConfig]) -> list[str]:
    """Return each stage's name: as configured, or its kind with a number where there are several."""
    kinds = [stage.kind for stage in stages]
    names = []
    for index, stage in enumerate(stages):
        number = kinds[: index + 1].count(stage.kind)
        names.append(stage.name or (f"{stage.kind}{number}" if kinds.count(stage.kind) > 1 else stage.kind))
    return names


def _starts(stages: Sequence[AnyStageConfig]) -> list[int]:
    """Return each cluster layer's ``start``: as configured, or when the layers before it are clustered."""
    starts, standing = [], 0
    for stage in stages:
        start = standing
        if isinstance(stage, ClusterConfig):
            start = standing if stage.start is None else stage.start
            standing = max(standing, start + stage.warmup)
        starts.append(start)
    return starts


def _mistakes(
    stages: Sequence[AnyStageConfig], names: Sequence[str], starts: Sequence[int], tasks: int
) -> list[str]:
    """Return what is wrong with the stages whatever their shapes."""
    mistakes = []
    for index, (stage, name, start) in enumerate(zip(stages, names, starts, strict=True)):
        path = f"model.stages.{index}"
        if name in {"input", "head", *names[:index]}:
            mistakes.append(f"{path}.name: {name!r} is taken: choose another")
        if not isinstance(stage, ClusterConfig):
            continue
        if stage.clusters > tasks:
            mistakes.append(
                f"{path}.clusters: is {stage.clusters}, but the data has {tasks} tasks: use at most that"
            )
        if stage.freeze_after is not None and stage.freeze_after <= start + stage.warmup:
            mistakes.append(
                f"{path}.freeze_after: is {stage.freeze_after}, but the first clustering comes after "
                f"{start} + {stage.warmup} epochs (start + warmup): raise it, or lower warmup"
            )
    return mistakes


def _raw_example(spec: TensorSpec) -> Tensor:
    dims = [1, *(1 if size is None else size for size in spec.shape[1:])]
    return torch.zeros(dims, dtype=torch.uint8 if spec.dtype == "uint8" else torch.float32)
