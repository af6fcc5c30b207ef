"""The compact graph of one task: only the blocks it uses, in the order in which states flow."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from coterie.exporter._builder import GraphBuilder, Output
from coterie.exporter._heads import task_probabilities
from coterie.exporter._model import BoundModel
from coterie.exporter._stitches import read_columns, run_columns
from coterie.exporter._weights import WeightFile
from coterie.runtime.plan import StagePlan


def task_graph(model: BoundModel, weights: WeightFile, task: int) -> ir.Model:
    """Return one task's graph.

    Its inputs are the model's; its outputs are ``scores [R, C]`` and, unless the task is a regression,
    ``probabilities [R, C]``; a tagging's are ``[R, L, C]``, and what padding answers means nothing. R may
    be 0.
    """
    spec = model.tasks[task]
    builder = GraphBuilder("task", weights)
    entry = model.enter(builder, model.add_inputs(builder))
    states = entry.states
    for number in range(entry.stage, len(model.plan.stages) - 1):
        stage = model.plan.stages[number]
        used, mixture = stage.uses[task], stage.weights[task]
        if stage.stitches is not None:
            layers = run_columns(builder, stage.stitches, model.blocks[number], states, used)
            states = read_columns(builder, layers, stage.stitches.reads[task])
            continue
        parts = [model.blocks[number][block].run(builder, states) for block in used]
        with builder.scope(stage.name):
            states = _combine(builder, stage, parts, mixture)
            if stage.columns is not None:
                column = builder.constant(np.array(stage.columns[task], dtype=np.int64), "column")
                states = builder.op("Gather", states, column, axis=1)
    head = model.plan.stages[-1]
    with builder.scope(head.name):
        block = head.uses[task][0]
        scores = model.head_of(block).run_one(builder, block, states)
        probabilities = task_probabilities(builder, spec, scores)
    dims = model.answer_dims("R", spec.width)
    outputs: list[Output] = [("scores", scores, "float32", dims)]
    if probabilities is not None:
        outputs.append(("probabilities", probabilities, "float32", dims))
    return builder.finish(outputs)


def _combine(
    builder: GraphBuilder, stage: StagePlan, parts: list[ir.Value], mixture: tuple[float, ...]
) -> ir.Value:
    """Make one state of the blocks' results, each times its weight: their sum, or all of them in a row."""
    weighted = [
        part
        if weight == 1.0
        else builder.op("Mul", part, builder.constant(np.array(weight, dtype=np.float32)))
        for part, weight in zip(parts, mixture, strict=True)
    ]
    if len(weighted) == 1:
        return weighted[0]
    if stage.combine == "concat":
        return builder.op("Concat", *weighted, axis=-1)
    return builder.op("Sum", *weighted)
