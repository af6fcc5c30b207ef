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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages: list[Stage] = []
        if first is not None:
            stages.append(HardStage("input", len(tasks), Bank(lambda: first, 1)))
            shape = InputShape(dims=tuple(first(_raw_example(input)).shape[1:]))
        names = _names(config.stages)
        for index, (stage, name) in enumerate(zip(config.stages, names, strict=True)):
            try:
                block, following = build_block(stage.block, shape)
            except ConfigError as error:
                raise ConfigError("the stages do not fit together", [f"model.stages.{index}: {error}"]) from error
            started = max((each.start + each.warmup for each in stages if isinstance(each, ClusterStage)), default=0)
            stages.append(_build_stage(stage, name, len(tasks), _again(block, stage, shape), seed, started))
            shape = following
        if shape.tokens or len(shape.dims) != 1 or shape.dims[0] is None:
            raise ConfigError(
                "the stages do not fit together",
                [f"model.head: the heads take vectors (D,), but the last stage's output is {shape}"],
            )
        stages.append(HeadStage("head", shape.dims[0], tasks, alike=config.head.alike, init_scale=config.head.init_scale))
    return MultiTaskModel(input, tasks, stages)


def _again(block: Block, config: AnyStageConfig, shape: InputShape) -> Callable[[], Block]:
    """Return a maker of blocks that gives the one already made first."""
    made = [block]
    return lambda: made.pop() if made else config.block.build(shape)


def _build_stage(config: AnyStageConfig, name: str, tasks: int, make: Callable[[], Block], seed: int, started: int) -> Stage:
    if isinstance(config, ClusterConfig):
        start = started if config.start is None else config.start
        if config.freeze_after is not None and config.freeze_after <= start + config.warmup:
            raise ConfigError(
                "a cluster layer would be frozen before it is clustered",
                [
                    f"stage {name}: freeze_after is {config.freeze_after}, but the first clustering comes after "
                    f"{start} + {config.warmup} epochs (start + warmup): raise freeze_after or lower warmup"
                ],
            )
        if config.clusters > tasks:
            raise ConfigError(
                "a cluster layer has more clusters than there are tasks",
                [f"stage {name}: clusters is {config.clusters}, the data has {tasks} tasks: use at most {tasks}"],
            )
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
        bank = Bank(make, config.experts)
        gated = config.gates == "learned"
        return GatedStage(
            name,
            tasks,
            bank,
            density_penalty=config.density_penalty,
            density_warmup=config.density_warmup,
            probability=config.probability,
            mixture=config.mixture,
            gated=gated,
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
    twice = sorted({name for name in names if names.count(name) > 1 or name in {"input", "head"}})
    if twice:
        raise ConfigError("stage names are not unique", [f"stage name {name!r} is taken: choose another" for name in twice])
    return names


def _raw_example(spec: TensorSpec) -> Tensor:
    dims = [1, *(1 if size is None else size for size in spec.shape[1:])]
    return torch.zeros(dims, dtype=torch.uint8 if spec.dtype == "uint8" else torch.float32)
