"""What one sees while a training runs: a bar with the loss, the dev metric and the mean density."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from coterie.runtime.tasks import TaskSpec


class Watcher:
    """Is told how a training goes; does nothing. Override what you want to see."""

    def teacher(self, name: str) -> None:
        """What begins next is the training of a teacher."""

    def start(self, *, epochs: int, batches: int, done: int, tasks: Sequence[TaskSpec]) -> None:
        """Begin; ``done`` epochs of ``epochs`` were made before."""

    def batch(self, *, loss: float, density: float | None) -> None:
        """One step was made."""

    def epoch(self, record: dict[str, Any]) -> None:
        """One epoch was made; ``record`` is its line of the history."""

    def end(self) -> None:
        """The training has ended, well or not."""

    def note(self, text: str) -> None:
        """Something about the finished training is worth knowing."""


class ConsoleWatcher(Watcher):
    """A progress bar on a terminal, and a line an epoch anywhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._status = ""
        self._best: dict[str, Any] = {}
        self._metric: dict[str, str] = {}

    def teacher(self, name: str) -> None:
        """Say which."""
        self._console.print(f"first, {name}:", highlight=False, markup=False)

    def start(self, *, epochs: int, batches: int, done: int, tasks: Sequence[TaskSpec]) -> None:
        """Show the bar."""
        self._status, self._best = "", {}
        self._metric = {task.name: task.metric for task in tasks}
        self._bar.start()
        self._task = self._bar.add_task(
            "training", total=epochs * batches, completed=done * batches, status=""
        )

    def batch(self, *, loss: float, density: float | None) -> None:
        """Move the bar."""
        density_text = "" if density is None else f" density {density:.2f}"
        self._bar.update(self._task, advance=1, status=f"loss {loss:.4f}{density_text}{self._status}")

    def epoch(self, record: dict[str, Any]) -> None:
        """Print the epoch's line."""
        parts = [f"epoch {record['epoch']:>3}", f"loss {record['train']['loss']:.4f}"]
        if "dev" in record:
            self._status = f" dev {record['dev']['metric']:.4f}"
            parts.append(f"dev loss {record['dev']['loss']:.4f} metric {record['dev']['metric']:.4f}")
            tasks = self._of_tasks(record)
            if tasks:
                lowest = min(tasks, key=lambda task: tasks[task])
                self._status += f" lowest {lowest} {tasks[lowest]:.4f}"
                parts.append(f"lowest {lowest} {tasks[lowest]:.4f}")
        for name, values in record["stages"].items():
            if "density" in values:
                parts.append(f"{name} density {values['density']:.2f}")
            if "moved" in values:
                parts.append(f"{name} moved {values['moved']}")
        if record.get("best"):
            parts.append("best")
            self._best = record
        self._console.print("  ".join(parts), highlight=False, markup=False)

    def end(self) -> None:
        """Take the bar away; print what each task scored on dev in the best epoch."""
        self._bar.stop()
        tasks = self._of_tasks(self._best)
        if tasks:
            lines = (f"{task} {value:.4f}" for task, value in sorted(tasks.items(), key=lambda item: item[1]))
            self._console.print(f"on dev, best epoch {self._best['epoch']}:", highlight=False)
            self._console.print(Columns(map(Text, lines), padding=(0, 3)))

    def note(self, text: str) -> None:
        """Print it."""
        self._console.print(f"note: {text}", highlight=False, markup=False)

    def _of_tasks(self, record: dict[str, Any]) -> dict[str, float]:
        """Return the metric on dev that each task is compared by, of those that have it."""
        tasks = record.get("dev", {}).get("tasks", {})
        metric = self._metric
        return {task: each[metric[task]] for task, each in tasks.items() if metric[task] in each}
