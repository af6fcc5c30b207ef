"""What every benchmark does: name the machine, measure side by side, write JSON."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coterie.cli._machine import machine

RESULTS = Path(__file__).parent / "results"
RESULTS_VARIABLE = "COTERIE_RESULTS"
"""Environment variable that names another folder to write results to."""


def side_by_side(
    runs: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2, stretch: int = 1
) -> dict[str, float]:
    """Time several things in turn, round by round, so that the machine's drift hits all alike.

    Args:
        runs: What is timed, by name.
        rounds: Turns of each.
        warmup: Untimed calls of each, before the first round.
        stretch: Calls in one turn. With one, each finds the caches as another has left them; with many, as it
            would in a process of its own.

    Returns:
        The median seconds of each.
    """
    for run in runs.values():
        for _ in range(warmup):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(stretch):
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def result_folder() -> Path:
    """Return where results are written."""
    return Path(os.environ.get(RESULTS_VARIABLE) or RESULTS)


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write a benchmark's result, with the machine it was measured on."""
    folder = result_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps({"benchmark": name, "machine": machine(), **result}, indent=1) + "\n", encoding="utf-8"
    )
    return path
