"""The router: the whole plan as one graph that answers B questions about R inputs.

    inputs [R, ...], row [B], task [B]  ->  scores [B, C], probabilities [B, C]

Every weight is in it once, and every block runs once for each distinct state that any question needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coterie.exporter._bind import BoundBlock
from coterie.exporter._builder import GraphBuilder, Output
from coterie.exporter._dispatch import (
    Flow,
    concat_rows,
    count_of,
    find_pairs,
    positions,
    run_blocks,
    state_keys,
)
from coterie.exporter._heads import HeadGroup, mixed_probabilities
from coterie.exporter._mixture import Mixture
from coterie.exporter._model import BoundModel
from coterie.exporter._states import state_after
from coterie.exporter._stitches import read_columns, run_columns
from coterie.exporter._weights import WeightFile
from coterie.runtime.plan import StagePlan, Stitches


def router_graph(model: BoundModel, weights: WeightFile) -> ir.Model:
    """Return the router's graph.

    Its inputs are the model's, ``row`` and ``task`` (int64 ``[B]``); its outputs are ``scores [B, C]`` and,
    unless all tasks are regressions, ``probabilities [B, C]``; taggings' are ``[B, L, C]``. Columns past a
    task's own width are 0. R and B may be 0. A row or task out of range is an error of the session.
    """
    builder = GraphBuilder("router", weights)
    inputs = model.add_inputs(builder)
    row = builder.input("row", "int64", ["B"])
    task = builder.input("task", "int64", ["B"])
    entry = model.enter(builder, inputs)
    every = Flow(entry.states, entry.shape, None, count_of(builder, inputs[0]))
    # Through a table of all rows: a row out of range fails here, instead of reading another block's results.
    flow = replace(every, position=builder.op("Gather", positions(builder, every), row, axis=0))
    for number in range(entry.stage, len(model.plan.stages) - 1):
        stage = model.plan.stages[number]
        with builder.scope(stage.name):
            flow = _stage(builder, model, number, flow, task)
    with builder.scope(model.plan.stages[-1].name):
        scores = _heads(builder, model, flow, task)
        probabilities = mixed_probabilities(builder, model.tasks, scores, task)
    dims = model.answer_dims("B", model.width)
    outputs: list[Output] = [("scores", scores, "float32", dims)]
    if probabilities is not None:
        outputs.append(("probabilities", probabilities, "float32", dims))
    return builder.finish(outputs)


def _stage(builder: GraphBuilder, model: BoundModel, number: int, flow: Flow, task: ir.Value) -> Flow:
    """Add one stage; a stage that mixes leaves one state for each question."""
    stage, shape = model.plan.stages[number], model.results[number]
    after = state_after(stage, shape)
    if stage.stitches is not None:
        return _stitched(builder, stage.stitches, model.blocks[number], replace(flow, shape=after), task)
    if stage.columns is not None:
        results = model.blocks[number][0].run(builder, flow.states)
        # That an export checks: the columns of a block's results are of a fixed number.
        width = int(shape.dims[0] or 0)
        return _read_columns(builder, replace(flow, states=results, shape=after), stage.columns, width, task)
    table, weights = stage_tables(stage)

    def run(block: int, states: ir.Value) -> ir.Value:
        return model.blocks[number][block].run(builder, states)

    if not stage.mixes:
        results, index, count = run_blocks(builder, flow, task, table[:, 0], run)
        return Flow(results, after, index, count)
    with builder.scope(f"{stage.name}/mixtures"):
        flow, task, table, weights, index = _distinct_mixtures(builder, flow, task, table, weights)
    blocks = table[:, 0] if table.shape[1] == 1 else table
    results, chosen, _ = run_blocks(builder, flow, task, blocks, run)
    if chosen is not None:
        results = builder.op("Gather", results, chosen, axis=0)
    mixture = Mixture(builder, weights, shape, task)
    joined = stage.combine == "concat" and weights.shape[1] > 1
    mixed = mixture.join(results) if joined else mixture.add(results)
    return Flow(mixed, after, index, count_of(builder, task))


def _distinct_mixtures(
    builder: GraphBuilder,
    flow: Flow,
    task: ir.Value,
    table: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
) -> tuple[Flow, ir.Value, npt.NDArray[np.int64], npt.NDArray[np.float32], ir.Value | None]:
    """Ask once what several tasks ask with the same mixture of the same blocks.

    Returns:
        The flow, tasks and tables of the distinct questions, and which one each question is; the same as were
        given, and None, where every task has a mixture of its own.
    """
    both = np.concatenate([table, weights], axis=1)
    first, own = np.unique(both, axis=0, return_index=True, return_inverse=True)[1:]
    if len(first) == len(table):
        return flow, task, table, weights, None
    pairs = find_pairs(builder, flow, task, own.reshape(-1).astype(np.int64))
    return replace(flow, position=pairs.rows), pairs.blocks, table[first], weights[first], pairs.index


def _stitched(
    builder: GraphBuilder, stitches: Stitches, blocks: Sequence[BoundBlock], flow: Flow, task: ir.Value
) -> Flow:
    """Run all columns on every state; question b reads its task's."""
    layers = run_columns(builder, stitches, blocks, flow.states, range(len(blocks)))
    place = {read: index for index, read in enumerate(dict.fromkeys(stitches.reads))}
    states = concat_rows(builder, [read_columns(builder, layers, read) for read in place])
    if len(place) == 1:
        return replace(flow, states=states)
    table = np.array([place[read] for read in stitches.reads], dtype=np.int64)
    position = state_keys(builder, flow, task, table)
    return Flow(states, flow.shape, position, builder.op("Mul", flow.count, builder.integers(len(place))))


def _read_columns(
    builder: GraphBuilder, flow: Flow, columns: Sequence[int], width: int, task: ir.Value
) -> Flow:
    """Make each column of ``[S, width, ...]`` a state of its own: question b reads its task's."""
    count = builder.op("Mul", flow.count, builder.integers(width))
    shape = builder.op("Concat", count, builder.op("Shape", flow.states, start=2), axis=0)
    # Literally, so that no rows stay no rows.
    states = builder.op("Reshape", flow.states, shape, allowzero=1)
    first = builder.op("Mul", positions(builder, flow), builder.integers(width))
    own = builder.op("Gather", builder.constant(np.array(columns, dtype=np.int64), "columns"), task, axis=0)
    return Flow(states, flow.shape, builder.op("Add", first, own), count)


def stage_tables(stage: StagePlan) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the blocks ``[N, k]`` and mixture weights ``[N, k]`` of every task, k being the largest k(t).

    A task that uses fewer repeats its first block with weight 0: no other block runs for it.
    """
    most = int(stage.density().max())
    table = np.array([[*used, *[used[0]] * (most - len(used))] for used in stage.uses], dtype=np.int64)
    mixture = [[*weight, *[0.0] * (most - len(weight))] for weight in stage.weights]
    return table, np.array(mixture, dtype=np.float32)


def _heads(builder: GraphBuilder, model: BoundModel, flow: Flow, task: ir.Value) -> ir.Value:
    """Return the scores ``[B, C]``."""
    stage = model.plan.stages[-1]
    block_of = [used[0] for used in stage.uses]
    group_of = [next(i for i, group in enumerate(model.heads) if block in group.slots) for block in block_of]
    slot_of = [model.heads[group].slots[block] for group, block in zip(group_of, block_of, strict=True)]
    asked = flow.states
    if flow.position is not None:
        asked = builder.op("Gather", flow.states, flow.position, axis=0)
    slots = _slots(builder, slot_of, task)
    if len(model.heads) == 1:
        return _run_group(builder, model.heads[0], block_of[0], asked, slots)
    questions = Flow(asked, flow.shape, None, count_of(builder, task))
    pairs = find_pairs(builder, questions, task, np.array(group_of, dtype=np.int64))
    states = pairs.split(builder, asked, len(model.heads))
    parts = pairs.split(builder, slots, len(model.heads))
    scores = []
    for group, part, part_slots in zip(model.heads, states, parts, strict=True):
        result = _run_group(builder, group, next(iter(group.slots)), part, part_slots)
        scores.append(_pad(builder, result, len(flow.shape.dims), model.width - group.width))
    return builder.op("Gather", concat_rows(builder, scores), pairs.index, axis=0)


def _slots(builder: GraphBuilder, slot_of: Sequence[int], task: ir.Value) -> ir.Value:
    """Return each question's place in its group of heads, ``[B]``."""
    if list(slot_of) == list(range(len(slot_of))):
        return task
    return builder.op("Gather", builder.constant(np.array(slot_of, dtype=np.int64)), task, axis=0)


def _run_group(
    builder: GraphBuilder, group: HeadGroup, block: int, states: ir.Value, slots: ir.Value
) -> ir.Value:
    if group.gathered and not isinstance(group.heads, BoundBlock):
        return group.heads.run_many(builder, states, slots)
    return group.run_one(builder, block, states)


def _pad(builder: GraphBuilder, scores: ir.Value, axis: int, columns: int) -> ir.Value:
    """Add columns of zeros along the last axis."""
    none = [0] * axis
    return scores if columns == 0 else builder.op("Pad", scores, builder.integers(*none, 0, *none, columns))
