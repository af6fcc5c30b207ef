"""The engine alone, one thread: mixed questions over 20 tasks, side by side with a session for each task.

python -m benchmarks.serving.engine

Each way is timed twice: alone, asked 20 times before the next has its turn, so that it finds the caches as it
would in a process of its own; and in turn with the others, so that each finds them as another has left them.
A last case asks one of 1,000 tasks with 175 blocks, of which it uses six: what blocks that nobody uses cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from benchmarks.common import side_by_side, write_result
from benchmarks.export.planted import planted_inputs, planted_model, task_by_task
from coterie.exporter import About, export
from coterie.runtime import Engine, load
from coterie.runtime.manifest import Provenance
from coterie.training.blocks import MlpConfig
from coterie.training.frozen import FrozenModel

TASKS, EXPERTS, USED, CLUSTERS, WIDTH = 20, 20, 5, 5, 512
MANY = 1000
SEED = 0
STRETCH = 20

Runs = dict[str, Callable[[], object]]


def untrained_model(tasks: int, width: int) -> FrozenModel:
    """Return two-layer blocks of that width: 20 experts of which a task uses 5, 5 clusters."""
    return planted_model(
        tasks,
        clusters=(CLUSTERS,),
        experts=EXPERTS,
        experts_per_task=USED,
        width=width,
        block=MlpConfig(widths=(width, width), activation="relu"),
    )


def make_bundle(folder: Path) -> Path:
    """Export such a model of 20 tasks, 512 wide."""
    return export_untrained(untrained_model(TASKS, WIDTH), folder)


def export_untrained(model: FrozenModel, folder: Path) -> Path:
    """Export a model that has no data of its own."""
    export(
        model,
        folder,
        reference=task_by_task(model),
        samples=planted_inputs(),
        about=About(Provenance(coterie="0")),
    )
    return folder


class SessionATask:
    """What somebody would do instead: an ordinary session for each task, with weights of its own.

    Args:
        engine: Of the bundle.
        tasks: So many of its tasks, the first ones.
        mapped: Rather leave the weights in the one file, that all sessions map; they are not prepacked then.
    """

    def __init__(self, engine: Engine, tasks: int, *, mapped: bool = False) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        if mapped:
            options.add_session_config_entry("session.disable_prepacking", "1")
        self._sessions = [
            ort.InferenceSession(str(engine.bundle.graph(entry.graph)), options, ["CPUExecutionProvider"])
            for entry in engine.bundle.manifest.tasks[:tasks]
        ]

    def one_by_one(self, inputs: Any, task: Any) -> None:
        """A call for each question."""
        for row, number in enumerate(task):
            self._sessions[number].run(None, {"inputs": inputs[row : row + 1]})

    def grouped(self, inputs: Any, task: Any) -> None:
        """A call for each task, with all questions to it: the best that a session a task can do."""
        for number in np.unique(task):
            self._sessions[number].run(None, {"inputs": inputs[task == number]})


def ready(folder: Path) -> Engine:
    """Return an engine as a server has it: loaded and warm, in mode auto."""
    engine = load(folder, threads=1)
    engine.warm()
    return engine


def single(engine: Engine, others: SessionATask) -> Runs:
    """Return one question to one task, in each way; the first is coterie."""
    inputs, task = planted_inputs(1), np.zeros(1, np.int64)
    name = engine.tasks[0].name
    return {
        "coterie": lambda: engine.predict(name, inputs),
        "a session a task, one by one": lambda: others.one_by_one(inputs, task),
    }


def cases(engine: Engine, others: SessionATask) -> dict[str, Runs]:
    """Return what is timed, by case; the first of each case is coterie."""
    generator = np.random.default_rng(SEED)
    found = {"a single question": single(engine, others)}
    for rows in (16, 64, 256):
        inputs = planted_inputs(rows)
        task = generator.permutation(np.arange(rows) % TASKS)
        found[f"{rows} mixed single-row questions"] = {
            "coterie": partial(engine.predict_many, inputs, None, task),
            "a session a task, one by one": partial(others.one_by_one, inputs, task),
            "a session a task, grouped": partial(others.grouped, inputs, task),
        }
    one, everybody = planted_inputs(1), np.arange(TASKS)
    copies = np.repeat(one, TASKS, axis=0)
    found["one input asked of all 20 tasks"] = {
        "coterie": lambda: engine.predict_many(one, np.zeros(TASKS, np.int64), everybody),
        "a session a task, one by one": lambda: others.one_by_one(copies, everybody),
    }
    return found


def timed(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """Return coterie's milliseconds, and the others' with how many times coterie's they are."""
    alone = side_by_side(runs, rounds=max(1, rounds // 4), stretch=STRETCH)
    in_turn = side_by_side(runs, rounds=rounds)
    result: dict[str, Any] = {}
    for name in runs:
        result[name] = {"ms": round(1000 * alone[name], 3), "ms_in_turn": round(1000 * in_turn[name], 3)}
        if name != "coterie":
            result[name]["ratio"] = round(alone[name] / alone["coterie"], 2)
            result[name]["ratio_in_turn"] = round(in_turn[name] / in_turn["coterie"], 2)
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    results: dict[str, Any] = {}
    with TemporaryDirectory() as scratch:
        engine = ready(make_bundle(Path(scratch) / "twenty"))
        for name, runs in cases(engine, SessionATask(engine, TASKS)).items():
            results[name] = timed(runs, chosen.rounds)
        engine = ready(export_untrained(planted_model(MANY, width=WIDTH), Path(scratch) / "many"))
        router = load(engine.bundle.path, mode="router", threads=1)
        runs = single(engine, SessionATask(engine, 1))
        runs["the router"] = single(router, SessionATask(engine, 1))["coterie"]
        results["a single question, 1,000 tasks"] = timed(runs, chosen.rounds)
    table = Table("case", "way", "alone, ms", "ratio", "in turn, ms", "ratio")
    for case, ways in results.items():
        for number, (way, found) in enumerate(ways.items()):
            table.add_row(
                case if number == 0 else "",
                way,
                f"{found['ms']:.3f}",
                str(found.get("ratio", "")),
                f"{found['ms_in_turn']:.3f}",
                str(found.get("ratio_in_turn", "")),
            )
    Console().print(table)
    about = {"tasks": TASKS, "experts": EXPERTS, "used": USED, "clusters": CLUSTERS}
    write_result("serving_engine", {**about, "cases": results})


if __name__ == "__main__":
    main()
