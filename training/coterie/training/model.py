"""The one model class: a list of stages, from inputs to scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.plan import SharingPlan
from coterie.runtime.tasks import TaskSpec
from coterie.training.bank import Bank
from coterie.training.blocks import Block, InputShape
from coterie.training.budget import Budget
from coterie.training.config import ModelConfig
from coterie.training.dispatch import State
from coterie.training.frozen import FrozenModel
from coterie.training.stages import (
    AnyStageConfig,
    ClusterStage,
    Draw,
    GatedStage,
    HardStage,
    HeadStage,
    Site,
    Stage,
)

_TITLE = "the model cannot be built from its configuration:"


class MultiTaskModel(nn.Module):
    """Stages in a row; the last one is the heads.

    Attributes:
        input: The tensor the first stage takes.
        tasks: What each task answers, N of them.
        stages: The stages, in the order in which states flow.
        budget: What a task may use at most, if anything.
    """

    def __init__(self, input: TensorSpec, tasks: Sequence[TaskSpec], stages: Sequence[Stage]) -> None:  # noqa: A002
        super().__init__()
        self.input = input
        self.tasks = tuple(tasks)
        self.stages = nn.ModuleList(stages)
        self.budget: Budget | None = None

    def forward(self, inputs: Tensor, row: Tensor, task: Tensor, draw: Draw | None = None) -> Tensor:
        """Answer B questions about R inputs.

        Args:
            inputs: ``[R, ...]``.
            row: ``[B]`` int64, the input each question is about.
            task: ``[B]`` int64, the task each question is of.
            draw: Where to draw gates from, while training; without it they are decided by equation 4.

        Returns:
            Scores ``[B, C]``, of taggings ``[B, L, C]``; columns past a task's own width are 0.
        """
        state = State(inputs, row)
        for stage in self.each_stage():
            if draw is None or draw.score is None or draw.samples == 1 or isinstance(stage, GatedStage):
                state = stage(state, task, draw)
            else:
                state = _first_learns(stage, state, task, draw)
        return state.values

    def compute_in(self, precision: Literal["fp32", "bf16"], *, compiled: bool = False) -> None:
        """Choose what blocks compute in while training, and whether ``torch.compile`` compiles them."""
        for bank in self.modules():
            if isinstance(bank, Bank):
                bank.compute_in(precision, compiled=compiled)

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
        """Return what is added to the loss: alpha L_c, lambda times the mean density, the budget's prices."""
        # A sum, not a stack: a stage without a penalty returns a number of no device.
        penalty = sum((stage.penalty() for stage in self.each_stage()), start=torch.zeros(()))
        return penalty if self.budget is None else penalty + self.budget.penalty()

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
    specs, names, whole = tuple(tasks), _names(config.stages), shape
    sites, mistakes = [], []
    start = 0
    for index, (stage, name) in enumerate(zip(config.stages, names, strict=True)):
        sites.append(Site(name=name, tasks=specs, shape=shape, start=start, seed=seed))
        if name in {"input", "head", *names[:index]}:
            mistakes.append(f"model.stages.{index}.name: {name!r} is taken: choose another")
        mistakes += [f"model.stages.{index}.{mistake}" for mistake in stage.mistakes(sites[-1])]
        start = stage.standing(start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages: list[Stage] = []
        if first is not None:
            stages.append(HardStage("input", len(specs), Bank(lambda: first, 1)))
            shape = InputShape(dims=tuple(first(_raw_example(input)).shape[1:]))
        for index, (stage, site) in enumerate(zip(config.stages, sites, strict=True)):
            try:
                made, shape = stage.build(replace(site, shape=shape))
            except ConfigError as error:
                # The shapes after this stage are not known: what follows cannot be judged.
                raise ConfigError(_TITLE, [*mistakes, f"model.stages.{index}.{error}"]) from error
            stages.append(made)
        tagging = any(spec.kind == "tagging" for spec in specs)
        head, size = config.head, shape.dims[-1]
        if shape.tokens or len(shape.dims) != (2 if tagging else 1) or size is None:
            wanted = "sequences (length, D)" if tagging else "vectors (D,)"
            mistakes.append(
                f"model.head: the heads take {wanted}, but the last stage's output is {shape}: end "
                f"with a block that gives {wanted.partition(' ')[0]}"
            )
        if mistakes or size is None:
            raise ConfigError(_TITLE, mistakes)
        stages.append(HeadStage("head", size, specs, alike=head.alike, init_scale=head.init_scale))
    model = MultiTaskModel(input, specs, stages)
    if config.budget is not None and config.budget.limits():
        example = whole.example(1) if first is None else _raw_example(input)
        model.budget = Budget(config.budget, model.gated_stages(), model.freeze(), example)
        mistakes = model.budget.mistakes([spec.name for spec in specs])
        if mistakes:
            raise ConfigError(_TITLE, mistakes)
    return model


def _first_learns(stage: Stage, state: State, task: Tensor, draw: Draw) -> State:
    """Run a stage that follows gates: with gradients for the first set of gates, without for the others."""
    learning = draw.questions
    with torch.no_grad():
        rest = stage(State(state.values.detach(), state.position[learning:]), task[learning:], draw)
    # What a stage remembers of its last run is that of the questions that learn.
    rows, position = torch.unique(state.position[:learning], return_inverse=True)
    first = stage(State(state.values[rows], position), task[:learning], draw)
    return State(
        torch.cat([first.values, rest.values]),
        torch.cat([first.position, rest.position + len(first.values)]),
    )


def _names(stages: Sequence[AnyStageConfig]) -> list[str]:
    """Return each stage's name: as configured, or its kind with a number where there are several."""
    kinds = [stage.kind for stage in stages]
    names = []
    for index, stage in enumerate(stages):
        number = kinds[: index + 1].count(stage.kind)
        names.append(stage.name or (f"{stage.kind}{number}" if kinds.count(stage.kind) > 1 else stage.kind))
    return names


def _raw_example(spec: TensorSpec) -> Tensor:
    dims = [1, *(1 if size is None else size for size in spec.shape[1:])]
    return torch.zeros(dims, dtype=torch.uint8 if spec.dtype == "uint8" else torch.float32)
