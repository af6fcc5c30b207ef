"""What the router's time grows with: k, the experts a task uses; and not M, all experts, nor N, all tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import side_by_side
from benchmarks.export.planted import planted_inputs, planted_model
from benchmarks.serving.engine import export_untrained
from coterie.runtime import Engine, load
from coterie.training.blocks import LinearConfig

ROWS, WIDTH, CLUSTERS = 64, 256, 5
TASKS, EXPERTS, USED = 20, 16, 4

GRID: dict[str, tuple[int, ...]] = {"k": (1, 2, 4, 8, 16), "M": (4, 16, 64, 256), "N": (20, 100, 1000)}


def measure(folder: Path, *, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Time 64 mixed questions while one of k, M and N changes; all three, side by side.

    The tasks that are asked use together as many experts as there are, or as their k allow.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, values in GRID.items():
        ways: dict[str, Callable[[], object]] = {}
        for value in values:
            engine, settings = _engine(folder, name, value)
            task = np.random.default_rng(0).permutation(np.arange(ROWS) % settings["N"])
            inputs = planted_inputs(ROWS)
            ways[str(value)] = lambda engine=engine, task=task, inputs=inputs: engine.predict_many(
                inputs, None, task
            )
        times = side_by_side(ways, rounds=rounds)
        found[name] = [{name: value, "ms": round(1000 * times[str(value)], 4)} for value in values]
    return found


def _engine(folder: Path, name: str, value: int) -> tuple[Engine, dict[str, int]]:
    settings = {"k": USED, "M": EXPERTS, "N": TASKS} | {name: value}
    model = planted_model(
        settings["N"],
        clusters=(CLUSTERS,),
        experts=settings["M"],
        experts_per_task=settings["k"],
        width=WIDTH,
        block=LinearConfig(width=WIDTH, activation="relu"),
    )
    return load(export_untrained(model, folder / f"{name}-{value}"), threads=1), settings
