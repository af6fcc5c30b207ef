"""The engine alone, one thread: mixed questions over 20 tasks, side by side with a session for each task.

python -m benchmarks.serving.engine
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from benchmarks.export.planted import planted_inputs, planted_model, task_by_task
from coterie.exporter import export
from coterie.runtime import Engine, load
from coterie.runtime.manifest import Provenance
from coterie.training.blocks import MlpConfig

TASKS, EXPERTS, USED, CLUSTERS, WIDTH = 20, 20, 5, 5, 512
SEED = 0


def make_bundle(folder: Path) -> Path:
    """Export untrained two-layer blocks, 512 wide: 20 experts of which a task uses 5, 5 clusters."""
    model = planted_model(
        TASKS,
        clusters=(CLUSTERS,),
        experts=EXPERTS,
        experts_per_task=USED,
        width=WIDTH,
        block=MlpConfig(widths=(WIDTH, WIDTH), activation="relu"),
    )
    export(
        model,
        folder,
        reference=task_by_task(model),
        samples=planted_inputs(),
        provenance=Provenance(coterie="0"),
    )
    return folder


class SessionATask:
    """What somebody would do instead: an ordinary session for each task, with weights of its own."""

    def __init__(self, engine: Engine) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = [
            ort.InferenceSession(str(engine.bundle.graph(entry.graph)), options, ["CPUExecutionProvider"])
            for entry in engine.bundle.manifest.tasks
        ]

    def one_by_one(self, inputs: Any, task: Any) -> None:
        """A call for each question."""
        for row, number in enumerate(task):
            self._sessions[number].run(None, {"inputs": inputs[row : row + 1]})

    def grouped(self, inputs: Any, task: Any) -> None:
        """A call for each task, with all questions to it: the best that a session a task can do."""
        for number in np.unique(task):
            self._sessions[number].run(None, {"inputs": inputs[task == number]})


def cases(engine: Engine, others: SessionATask) -> dict[str, dict[str, Callable[[], object]]]:
    """Return what is timed, by case; the first of each case is the router."""
    generator = np.random.default_rng(SEED)
    found: dict[str, dict[str, Callable[[], object]]] = {}
    for rows in (1, 16, 64, 256):
        inputs = planted_inputs(rows)
        task = generator.permutation(np.arange(rows) % TASKS)
        found[f"{rows} mixed single-row questions"] = {
            "router": lambda inputs=inputs, task=task: engine.predict_many(inputs, None, task),
            "a session a task, one by one": lambda inputs=inputs, task=task: others.one_by_one(inputs, task),
            "a session a task, grouped": lambda inputs=inputs, task=task: others.grouped(inputs, task),
        }
    one, everybody = planted_inputs(1), np.arange(TASKS)
    copies = np.repeat(one, TASKS, axis=0)
    found["one input asked of all 20 tasks"] = {
        "router": lambda: engine.predict_many(one, np.zeros(TASKS, np.int64), everybody),
        "a session a task, one by one": lambda: others.one_by_one(copies, everybody),
    }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    table = Table("case", "router, ms", "one by one", "ratio", "grouped", "ratio")
    results: dict[str, Any] = {}
    with TemporaryDirectory() as scratch:
        engine = load(make_bundle(Path(scratch) / "bundle"), threads=1)
        for name, runs in cases(engine, SessionATask(engine)).items():
            seconds = side_by_side(runs, rounds=chosen.rounds)
            router = seconds.pop("router")
            results[name] = {"router_ms": round(1000 * router, 3)}
            cells = [name, f"{1000 * router:.2f}"]
            for other, time in seconds.items():
                results[name][other] = {"ms": round(1000 * time, 3), "ratio": round(time / router, 2)}
                cells += [f"{1000 * time:.2f}", f"{time / router:.2f}"]
            table.add_row(*cells)
    Console().print(table)
    write_result("serving_engine", {"tasks": TASKS, "experts": EXPERTS, "used": USED, "cases": results})


if __name__ == "__main__":
    main()
