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
from coterie.training.blocks import Block, InputShape, output_shape
from coterie.training.budget import Budget
from coterie.training.config import ModelConfig
from coterie.training.dispatch import State
from coterie.training.encoders import join_inputs
from coterie.training.first import First
from coterie.training.frozen import FrozenModel
from coterie.training.several import Tensors, each, only
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
from coterie.training.stages._scoring import scored

_TITLE = "the model cannot be built from its configuration:"


class MultiTaskModel(nn.Module):
    """Stages in a row; the last one is the heads.

    Attributes:
        inputs: The tensors the first stage takes.
        tasks: What each task answers, N of them.
        stages: The stages, in the order in which states flow.
        budget: What a task may use at most, if anything.
    """

    def __init__(
        self, inputs: tuple[TensorSpec, ...], tasks: Sequence[TaskSpec], stages: Sequence[Stage]
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.tasks = tuple(tasks)
        self.stages = nn.ModuleList(stages)
        self.budget: Budget | None = None
        self._vectors = all(task.kind != "tagging" for task in tasks)

    def forward(self, inputs: Tensors, row: Tensor, task: Tensor, draw: Draw | None = None) -> Tensor:
        """Answer B questions about R inputs.

        Args:
            inputs: ``[R, ...]``; of a model with several inputs one of each, in their order.
            row: ``[B]`` int64, the input each question is about.
            task: ``[B]`` int64, the task each question is of.
            draw: Where to draw gates from, while training; without it they are decided by equation 4.

        Returns:
            Scores ``[B, C]``, of taggings ``[B, L, C]``; columns past a task's own width are 0.
        """
        stages, head = self.each_stage(), self.head
        if isinstance(inputs, tuple):
            first, *stages = stages
            if not isinstance(first, HardStage):
                raise TypeError("a model of several inputs begins with the stage that joins them")
            inputs = first.bank.run_only(inputs)
        state = State(inputs, row)
        for number, stage in enumerate(stages):
            if (
                draw is not None
                and isinstance(stage, GatedStage)
                and stages[number + 1] is head
                and self._vectors
            ):
                scores = scored(stage, head, state, task, draw)
                if scores is not None:
                    return scores
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
    def copies(self) -> int:
        """How many times a question is asked while training."""
        return max(stage.copies for stage in self.each_stage())

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
            inputs=self.inputs,
            tasks=self.tasks,
            plan=self.plan(),
            banks=tuple(stage.frozen_bank() for stage in self.each_stage()),
        )


def build_model(
    config: ModelConfig,
    *,
    input: TensorSpec | tuple[TensorSpec, ...],  # noqa: A002
    shape: InputShape | tuple[InputShape, ...],
    tasks: Sequence[TaskSpec],
    first: First = None,
    seed: int = 0,
) -> MultiTaskModel:
    """Make a model with fresh weights.

    Args:
        config: The stages.
        input: The tensor the model takes, or several.
        shape: Its shape, without the batch dimension, or that of each.
        tasks: What to answer.
        first: A block that learns nothing and comes before the stages, such as a standardisation; or one for
            each input.
        seed: Of the weights and of the clusterings.

    Raises:
        ConfigError: If the stages do not fit together; lists every mistake that can be seen.
    """
    specs, names = tuple(tasks), _names(config.stages)
    inputs, shapes = each(input), each(shape)
    sites, mistakes = [], []
    start = 0
    for index, (stage, name) in enumerate(zip(config.stages, names, strict=True)):
        sites.append(Site(name=name, tasks=specs, shape=shapes[0], start=start, seed=seed))
        if name in {"input", "head", *names[:index]}:
            mistakes.append(f"model.stages.{index}.name: {name!r} is taken: choose another")
        mistakes += [f"model.stages.{index}.{mistake}" for mistake in stage.mistakes(sites[-1])]
        start = stage.standing(start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stages: list[Stage] = []
        block, state = _first_block(config, inputs, shapes, first)
        if block is not None:
            stages.append(HardStage("input", len(specs), Bank(lambda: block, 1)))
        for index, (stage, site) in enumerate(zip(config.stages, sites, strict=True)):
            try:
                made, state = stage.build(replace(site, shape=state))
            except ConfigError as error:
                # The shapes after this stage are not known: what follows cannot be judged.
                raise ConfigError(_TITLE, [*mistakes, f"model.stages.{index}.{error}"]) from error
            stages.append(made)
        if sum(stage.copies > 1 for stage in stages) > 1:
            mistakes.append("model.stages: one stage may train its views alone: set alone: false of others")
        tagging = any(spec.kind == "tagging" for spec in specs)
        if tagging and len(inputs) > 1:
            mistakes.append("model.inputs: a tagging answers each word of one text: give its data one input")
        head, size = config.head, state.dims[-1]
        if state.tokens or len(state.dims) != (2 if tagging else 1) or size is None:
            wanted = "sequences (length, D)" if tagging else "vectors (D,)"
            mistakes.append(
                f"model.head: the heads take {wanted}, but the last stage's output is {state}: end "
                f"with a block that gives {wanted.partition(' ')[0]}"
            )
        if mistakes or size is None:
            raise ConfigError(_TITLE, mistakes)
        stages.append(HeadStage("head", size, specs, alike=head.alike, init_scale=head.init_scale))
    model = MultiTaskModel(inputs, specs, stages)
    if config.budget is not None and config.budget.limits():
        example = only(tuple(map(_example, inputs, shapes)))
        model.budget = Budget(config.budget, model.gated_stages(), model.freeze(), example)
        mistakes = model.budget.mistakes([spec.name for spec in specs])
        if mistakes:
            raise ConfigError(_TITLE, mistakes)
    return model


def _first_block(
    config: ModelConfig, inputs: tuple[TensorSpec, ...], shapes: tuple[InputShape, ...], first: First
) -> tuple[Block | None, InputShape]:
    """Return the block before the stages, if there is any, and the shape of what they take."""
    if len(inputs) > 1:
        own = first if isinstance(first, tuple) else (None,) * len(inputs)
        try:
            return join_inputs(config.inputs, inputs, shapes, own)
        except ConfigError as error:
            raise ConfigError(_TITLE, [f"model.{mistake}" for mistake in error.problems]) from error
    if config.inputs:
        raise ConfigError(
            _TITLE, ["model.inputs: the data has one input: leave it out, and begin with a stage for it"]
        )
    (block,) = each(first)
    if block is None:
        return None, shapes[0]
    return block, output_shape(block, InputShape(dims=inputs[0].shape[1:]))


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


def _example(spec: TensorSpec, shape: InputShape) -> Tensor:
    return shape.example(1).to(torch.uint8) if spec.dtype == "uint8" else shape.example(1)
