"""Train the three systems that the demo compares."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from coterie.training import Run, Watcher, load_run_config, train

SINGLE, HARD, OURS = "digits-single", "digits-hard", "digits"
WHAT = {
    SINGLE: "20 single-task models, nothing shared",
    HARD: "hard sharing, one trunk for all",
    OURS: "coterie, learned sharing",
}
_QUICK = ("trainer.epochs=16",)


@dataclass(frozen=True)
class Trained:
    """A training and how long it took."""

    run: Run
    seconds: float


def train_systems(folder: Path, console: Console, *, quick: bool) -> dict[str, Trained]:
    """Train each preset in ``folder``/NAME, with a bar on a terminal and a line for each when it is done."""
    trained = {}
    for name, what in WHAT.items():
        # One thread for each: the same result on machines with different numbers of cores.
        options = ("trainer.threads=1", *(_QUICK if quick else ()))
        watcher = _Bar(console, what)
        began = time.perf_counter()
        run = train(load_run_config(name, overrides=options), folder / name, watcher=watcher)
        seconds = time.perf_counter() - began
        trained[name] = Trained(run, seconds)
        console.print(f"  trained {what}: {seconds:.0f} s", highlight=False)
    return trained


def accuracy(run: Run, split: str, tasks: Sequence[str]) -> dict[str, float]:
    """Return each task's accuracy."""
    return {task: run.metrics[split][task]["accuracy"] for task in tasks}


class _Bar(Watcher):
    def __init__(self, console: Console, what: str) -> None:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[at]}"),
        )
        self._bar = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._what = what

    def start(self, *, epochs: int, done: int, **_: Any) -> None:
        self._bar.start()
        self._task = self._bar.add_task(self._what, total=epochs, completed=done, at="")

    def epoch(self, record: dict[str, Any]) -> None:
        self._bar.update(self._task, advance=1, at=f"dev accuracy {record['dev']['metric']:.4f}")

    def end(self) -> None:
        self._bar.stop()
