"""Coterie beside plain libraries in one process, one thread: ONNX Runtime and torch, a model for each task.

python -m benchmarks.peers.libraries                 # 20, 100 and 1,000 tasks: about six minutes, 8 GiB
python -m benchmarks.peers.libraries --tasks 20

Each way is asked 10 times before the next has its turn, so that it finds the caches as it would in a process
of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from benchmarks.export.planted import planted_inputs
from benchmarks.peers.torch_tasks import CompiledTasks, EagerTasks
from benchmarks.serving.engine import (
    EXPERTS,
    USED,
    WIDTH,
    SessionATask,
    export_untrained,
    untrained_model,
)
from coterie.runtime import load
from coterie.training.frozen import FrozenModel

TASKS = (20, 100, 1000)
NARROW = 256
"""Width of the blocks where there are 1,000 tasks: as many sessions of 512-wide ones would take 28 GiB."""
STRETCH = 10

Ways = Mapping[str, Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], object]]


def model_of(tasks: int) -> tuple[FrozenModel, int]:
    """Return an untrained model of so many tasks, and its width."""
    width = WIDTH if tasks < 1000 else NARROW
    return untrained_model(tasks, width), width


def ways_of(model: FrozenModel, folder: Path) -> Ways:
    """Return all ways to answer questions, each given inputs ``[B, D]`` and tasks ``[B]``."""
    engine = load(export_untrained(model, folder), threads=1)
    engine.warm()
    sessions = SessionATask(engine, len(engine.tasks))
    mapped = SessionATask(engine, len(engine.tasks), mapped=True)
    eager, compiled = EagerTasks(model), CompiledTasks(model)
    return {
        "coterie": lambda inputs, task: engine.predict_many(inputs, None, task),
        "ONNX Runtime, a session a task, one by one": sessions.one_by_one,
        "ONNX Runtime, a session a task, grouped": sessions.grouped,
        "ONNX Runtime, sessions over one mapped file, grouped": mapped.grouped,
        "torch, a module a task, grouped": eager.grouped,
        "torch.compile, once for all tasks, grouped": compiled.grouped,
    }


def measure(tasks: int, rounds: int) -> dict[str, Any]:
    """Time every way for each batch, and return milliseconds and how many times coterie's they are."""
    model, width = model_of(tasks)
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {}
    with TemporaryDirectory() as scratch:
        ways = ways_of(model, Path(scratch) / "bundle")
        for rows in (1, 16, 64, 256):
            inputs = planted_inputs(rows)
            task = generator.permutation(np.arange(rows) % tasks)
            runs = {name: partial(way, inputs, task) for name, way in ways.items()}
            times = side_by_side(runs, rounds=rounds, stretch=STRETCH)
            found[str(rows)] = {
                name: {"ms": round(1000 * time, 4), "ratio": round(time / times["coterie"], 2)}
                for name, time in times.items()
            }
    return {"tasks": tasks, "width": width, "mixed_questions": found}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description="Coterie beside plain libraries, in one process.")
    parser.add_argument("--tasks", type=int, nargs="+", default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    results = [measure(tasks, chosen.rounds) for tasks in chosen.tasks]
    for result in results:
        batches = result["mixed_questions"]
        table = Table(*["way", *[f"{rows} mixed, ms (times coterie's)" for rows in batches]])
        for way in next(iter(batches.values())):
            cells = [f"{batch[way]['ms']:.3f} ({batch[way]['ratio']:.2f})" for batch in batches.values()]
            table.add_row(way, *cells)
        Console().print(f"{result['tasks']} tasks, blocks {result['width']} wide")
        Console().print(table)
    write_result("peers_libraries", {"experts": EXPERTS, "used": USED, "results": results})


if __name__ == "__main__":
    main()
