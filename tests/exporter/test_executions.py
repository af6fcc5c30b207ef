"""R inputs, B questions: every block runs once, on each distinct state that a question needs and no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from tests.exporter.conftest import Exported
from tests.exporter.models import MODELS

from coterie.runtime.plan import StagePlan

Get = Callable[[str], Exported]
State = tuple[object, ...]


def rows_of_blocks(bundle: Exported, folder: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Return for each block the rows of each of its runs, as ONNX Runtime's profiler saw them.

    A block's run is that of the node which makes its result, the last in its scope.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    path = bundle.folder / "router.onnx"
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    session.run(None, dict(feeds))
    events = json.loads(Path(session.end_profiling()).read_text())
    names = {block.name for stage in bundle.manifest.plan.stages[:-1] for block in stage.blocks}
    last = {node.name.rpartition("/")[0]: node.name for node in _nodes(ir.load(path).graph)}
    assert names <= last.keys()
    runs: dict[str, list[int]] = {name: [] for name in names}
    for event in events:
        scope = event["name"].removesuffix("_kernel_time").rpartition("/")[0]
        if scope in names and event["name"] == f"{last[scope]}_kernel_time":
            (shape,) = event["args"]["output_type_shape"][0].values()
            runs[scope].append(shape[0])
    return runs


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the graph's nodes and, before an ``If``, those of its first branch."""
    for node in graph:
        if node.op_type == "If":
            yield from _nodes(node.attributes["then_branch"].as_graph())
        else:
            yield node


def needed(bundle: Exported, row: np.ndarray, task: np.ndarray, inputs: int) -> dict[str, int]:
    """Return for each block the number of states that it is to run on, found by naming every state."""
    states: set[State] = {("input", index) for index in range(inputs)}
    flow: list[State] = [("input", int(index)) for index in row]
    counts = {}
    for stage in bundle.manifest.plan.stages[:-1]:
        reads = _reads(stage)
        computes_all = stage.columns is not None or stage.stitches is not None
        everybodys = all(len(used) == len(stage.blocks) for used in stage.uses)
        pairs = {
            (block, state) for number, state in zip(task, flow, strict=True) for block in stage.uses[number]
        }
        for index, block in enumerate(stage.blocks):
            asked = sum(index == own for own, _ in pairs)
            counts[block.name] = len(states) if computes_all or everybodys else asked
        flow = [(reads[number], state) for number, state in zip(task, flow, strict=True)]
        if computes_all or (everybodys and not stage.mixes):
            states = {(read, state) for read in set(reads) for state in states}
        elif stage.mixes and len(set(reads)) == len(reads):
            # Each question has a mixture of its own: nothing is looked for that two of them could share.
            flow = [(question, state) for question, state in enumerate(flow)]
            states = set(flow)
        else:
            states = set(flow)
    return counts


def _reads(stage: StagePlan) -> Sequence[object]:
    """Return for each task what it makes of a state; equal for tasks that make the same."""
    if stage.stitches is not None:
        return stage.stitches.reads
    if stage.columns is not None:
        return stage.columns
    return list(zip(stage.uses, stage.weights, strict=True))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("inputs", "questions"), [(1, 1), (1, 12), (5, 40), (4, 3)])
def test_a_block_runs_once_on_each_distinct_state_that_is_needed(
    exported: Get, tmp_path: Path, name: str, inputs: int, questions: int
) -> None:
    bundle = exported(name)
    generator = np.random.default_rng(questions)
    row = generator.integers(0, inputs, questions)
    task = generator.integers(0, len(bundle.model.tasks), questions)
    feeds = {**bundle.feeds(slice(inputs)), "row": row, "task": task}
    runs = rows_of_blocks(bundle, tmp_path, feeds)
    wanted = needed(bundle, row, task, inputs)
    # A guarded block without rows does not run at all.
    assert runs == {block: [count] if count or runs[block] else [] for block, count in wanted.items()}
