"""A frozen model made ready for graphs: pruned to what its tasks use, traced, bound to the weight store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from coterie.exporter._bind import Binder, BoundBlock
from coterie.exporter._builder import GraphBuilder
from coterie.exporter._heads import HeadGroup, stack_heads
from coterie.exporter._precision._heads import keep_heads
from coterie.exporter._states import StageInput, StateShape, stage_inputs
from coterie.exporter._trace import Tracer
from coterie.exporter._weights import WeightStore
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import Precision, TensorSpec, TensorUse
from coterie.runtime.plan import SharingPlan, StagePlan
from coterie.runtime.tasks import TaskSpec
from coterie.training.blocks import LinearHead
from coterie.training.frozen import FrozenBank, FrozenModel
from coterie.training.several import Arrays, each

_RESERVED_INPUTS = {"row", "task", "scores", "probabilities"}


@dataclass(frozen=True)
class Entry:
    """Where states begin.

    Attributes:
        states: ``[R, ...]``, one for each input.
        shape: Shape of one.
        stage: The first stage that takes them.
    """

    states: ir.Value
    shape: StateShape
    stage: int


@dataclass(frozen=True)
class BoundModel:
    """Everything that the graphs are made of.

    Attributes:
        inputs: The model's inputs.
        tasks: What each task answers.
        plan: The sharing plan, without blocks that no task uses.
        blocks: For each stage but the last its blocks.
        heads: The last stage's blocks, in groups.
        results: For each stage but the last the shape of its blocks' results; of stitched columns that of
            what they hand on.
    """

    inputs: tuple[TensorSpec, ...]
    tasks: tuple[TaskSpec, ...]
    plan: SharingPlan
    blocks: tuple[tuple[BoundBlock, ...], ...]
    heads: tuple[HeadGroup, ...]
    results: tuple[StateShape, ...]

    @property
    def width(self) -> int:
        """Largest number of outputs of a task, C."""
        return max(task.width for task in self.tasks)

    def input_dims(self, spec: TensorSpec) -> list[int | str]:
        """Return an input's shape, ``[R, ...]``, with names for dimensions of any size."""
        of = "" if len(self.inputs) == 1 else f"{spec.name}."
        dims = enumerate(spec.shape[1:], start=1)
        return ["R", *(f"{of}L{axis}" if size is None else size for axis, size in dims)]

    def add_inputs(self, builder: GraphBuilder) -> list[ir.Value]:
        """Add the inputs to a graph."""
        return [builder.input(spec.name, spec.dtype, self.input_dims(spec)) for spec in self.inputs]

    def enter(self, builder: GraphBuilder, inputs: Sequence[ir.Value]) -> Entry:
        """Return what of the inputs the stages take: the only one, or what the first stage joins them to."""
        if len(inputs) == 1:
            return Entry(inputs[0], StateShape(self.inputs[0].shape[1:]), 0)
        with builder.scope(self.plan.stages[0].name):
            return Entry(self.blocks[0][0].run(builder, *inputs), self.results[0], 1)

    def answer_dims(self, batch: str, width: int) -> list[int | str]:
        """Return the shape of answers: ``[batch, width]``, or of each word ``[batch, L, width]``."""
        words = self.input_dims(self.inputs[0])[1:2] if self.tasks[0].kind == "tagging" else []
        return [batch, *words, width]

    def head_of(self, block: int) -> HeadGroup:
        """Return the group of a block of the last stage."""
        return next(group for group in self.heads if block in group.slots)

    def tensor_uses(self) -> dict[str, tuple[TensorUse, ...]]:
        """Return each block's tensors in the weight file, by block name."""
        uses = {block.name: block.uses() for bank in self.blocks for block in bank}
        for index, block in enumerate(self.plan.stages[-1].blocks):
            uses[block.name] = self.head_of(index).uses(index)
        return uses


def prune(frozen: FrozenModel) -> FrozenModel:
    """Return the model without the blocks that no task uses.

    Raises:
        ExportError: If the plan, the banks and the tasks do not belong together.
    """
    _check(frozen)
    stages, banks = [], []
    for stage, bank in zip(frozen.plan.stages, frozen.banks, strict=True):
        used = sorted(stage.users())
        place = {block: index for index, block in enumerate(used)}
        if stage.stitches is not None:
            # Its plan names the blocks that tasks depend on, and no other.
            stages.append(stage)
            banks.append(bank)
            continue
        kept = {
            "blocks": tuple(stage.blocks[block] for block in used),
            "uses": tuple(tuple(place[block] for block in blocks) for blocks in stage.uses),
        }
        stages.append(stage.model_copy(update=kept))
        banks.append(FrozenBank(template=bank.template, tensors=tuple(bank.tensors[block] for block in used)))
    plan = SharingPlan(tasks=frozen.plan.tasks, stages=tuple(stages))
    return replace(frozen, plan=plan, banks=tuple(banks))


def bind_model(
    frozen: FrozenModel,
    samples: Arrays,
    store: WeightStore,
    on_progress: Callable[[str], None],
    *,
    tracer: Tracer | None = None,
    precision: Precision = "fp32",
) -> BoundModel:
    """Trace each architecture once and bind every block's tensors.

    Args:
        frozen: A pruned model.
        samples: Real inputs ``[n, ...]``.
        store: Receives the tensors.
        on_progress: Called with a line for each stage.
        tracer: What traces, with what it has traced already.
        precision: What weights are stored in, where that is worth it.

    Raises:
        ExportError: If a block cannot be traced.
    """
    tracer, binder = tracer or Tracer(), Binder(store, precision)
    inputs = stage_inputs(frozen, samples)
    banks: list[tuple[BoundBlock, ...]] = []
    for stage, bank, given in zip(frozen.plan.stages, frozen.banks, inputs, strict=True):
        on_progress(f"tracing stage {stage.name!r}: {len(stage.blocks)} blocks")
        if stage is frozen.plan.stages[-1] and type(bank.template) is LinearHead:
            continue
        banks.append(_bind_bank(tracer, binder, stage, bank, given))
    shapes = tuple(
        bank[0].trace.shape if stage.stitches is None else _only_shape(following)
        for stage, bank, following in zip(frozen.plan.stages, banks, inputs[1:], strict=False)
    )
    if len(banks) == len(frozen.plan.stages):
        heads = _block_heads(frozen, banks.pop())
    else:
        tagging = frozen.tasks[0].kind == "tagging"
        keep = partial(keep_heads, store, sequences=tagging, precision=precision)
        heads = stack_heads(dict(enumerate(frozen.banks[-1].tensors)), keep)
    return BoundModel(frozen.inputs, frozen.tasks, frozen.plan, tuple(banks), tuple(heads), shapes)


def _bind_bank(
    tracer: Tracer, binder: Binder, stage: StagePlan, bank: FrozenBank, given: StageInput
) -> tuple[BoundBlock, ...]:
    blocks = []
    for index, (block, tensors) in enumerate(zip(stage.blocks, bank.tensors, strict=True)):
        taken = given.blocks[index]
        try:
            trace = tracer.trace(bank.architecture(index), tensors, taken)
        except ExportError as error:
            raise ExportError(f"stage {stage.name!r}, block {block.name!r}: {error}") from error
        blocks.append(binder.bind(block.name, trace, tensors))
    dims = blocks[0].trace.shape.dims
    alike = stage.kind != "head" and stage.stitches is None
    if alike and any(block.trace.shape.dims != dims for block in blocks):
        raise ExportError(f"the blocks of stage {stage.name!r} have results of different shapes")
    if stage.columns is not None and (len(dims) < 2 or dims[0] is None or max(stage.columns) >= dims[0]):
        raise ExportError(
            f"stage {stage.name!r} has {max(stage.columns) + 1} columns, its block's results are {dims}: a "
            "block that computes columns gives [R, columns, ...]"
        )
    if stage.combine == "concat" and (not dims or dims[-1] is None):
        raise ExportError(f"the results of stage {stage.name!r}, {dims}, have no fixed last axis to join")
    return tuple(blocks)


def _only_shape(given: StageInput) -> StateShape:
    (shape,) = each(given.shape)
    return shape


def _block_heads(frozen: FrozenModel, bank: Sequence[BoundBlock]) -> list[HeadGroup]:
    """Group heads that are no linear maps: equal ones become one."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, block in enumerate(bank):
        groups.setdefault(block.signature(), []).append(index)
    result = []
    for members in groups.values():
        shape = bank[members[0]].trace.shape
        width = shape.size
        if len(shape.dims) != 1 or width is None:
            raise ExportError(f"head {bank[members[0]].name!r} answers {shape.dims}: scores are [R, C]")
        result.append(HeadGroup(bank[members[0]], dict.fromkeys(members, 0), width))
    for task, used in zip(frozen.tasks, frozen.plan.stages[-1].uses, strict=True):
        width = bank[used[0]].trace.shape.size
        if width != task.width:
            raise ExportError(f"task {task.name!r} has {task.width} outputs, its head {width}")
    return result


def _check(frozen: FrozenModel) -> None:
    plan, head = frozen.plan, frozen.plan.stages[-1]
    if tuple(task.name for task in frozen.tasks) != plan.tasks:
        raise ExportError("the model's tasks are not the plan's: freeze the model again")
    if [len(bank.tensors) for bank in frozen.banks] != [len(stage.blocks) for stage in plan.stages]:
        raise ExportError("the model's banks are not the plan's: freeze the model again")
    if head.kind != "head" or head.mixes or head.dense:
        raise ExportError(f"the last stage, {head.name!r}, must be of kind 'head' and mix nothing")
    names = [block.name for stage in plan.stages for block in stage.blocks]
    if len(set(names)) != len(names):
        raise ExportError("two blocks of the plan have the same name")
    for stage, bank in zip(plan.stages, frozen.banks, strict=True):
        templates = {id(template): template for template in (bank.template, *bank.templates)}
        if any(module.training for template in templates.values() for module in template.modules()):
            raise ExportError(
                f"the blocks of stage {stage.name!r} are in training mode: freeze the model again"
            )
    _check_inputs(frozen)
    if type(frozen.banks[-1].template) is LinearHead:
        for task, used in zip(frozen.tasks, head.uses, strict=True):
            width = int(frozen.banks[-1].tensors[used[0]]["bias"].shape[0])
            if width != task.width:
                raise ExportError(f"task {task.name!r} has {task.width} outputs, its head {width}")


def _check_inputs(frozen: FrozenModel) -> None:
    first = frozen.plan.stages[0]
    inputs = [spec.name for spec in frozen.inputs]
    for name in inputs:
        if name in _RESERVED_INPUTS or inputs.count(name) > 1:
            raise ExportError(f"an input is called {name!r}, as another tensor of the router: rename it")
    if len(inputs) > 1 and (first.kind != "hard" or len(first.blocks) != 1):
        raise ExportError("a model of several inputs begins with one block that joins them: freeze it again")
    if len(inputs) > 1 and any(task.kind == "tagging" for task in frozen.tasks):
        raise ExportError("a tagging answers each word of one text: a model of taggings has one input")
