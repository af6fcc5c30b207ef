"""What the demo found, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from coterie.cli._demo._ask import TOLERANCE, Way, worst
from coterie.cli._demo._files import Exported
from coterie.cli._demo._latency import Timing
from coterie.cli._demo._train import HARD, OURS, SINGLE, WHAT, Trained, accuracy
from coterie.cli._machine import in_words
from coterie.cli._render import size
from coterie.runtime.plan import StagePlan


@dataclass(frozen=True)
class Findings:
    """Everything that was measured."""

    trained: Mapping[str, Trained]
    ours: Exported
    single: Exported
    ways: Sequence[Way]
    timings: Sequence[Timing]

    @property
    def agrees(self) -> bool:
        """Whether every way of asking answered as torch does."""
        return all(way.agrees for way in self.ways)

    def as_json(self) -> dict[str, Any]:
        """Return the findings as plain data: bytes, milliseconds, shares of right answers."""
        tasks = [task.name for task in self.trained[OURS].run.data.tasks]
        return {
            "machine": in_words(),
            "tasks": tasks,
            "systems": {
                name: {
                    "what": WHAT[name],
                    "seconds": round(trained.seconds, 1),
                    **{
                        split: {
                            "mean": trained.run.mean_metric(split),
                            "tasks": accuracy(trained.run, split, tasks),
                        }
                        for split in ("dev", "test")
                    },
                }
                for name, trained in self.trained.items()
            },
            "stages": [
                {
                    "name": stage.name,
                    "kind": stage.kind,
                    "blocks_trained": stage.trained_blocks,
                    "blocks_kept": len(stage.blocks),
                    "blocks_a_task": float(stage.density().mean()),
                }
                for stage in self.ours.manifest.plan.stages
            ],
            "bytes": {
                "single_task_files": self.single.standalone_bytes,
                "standalone_files": self.ours.standalone_bytes,
                "bundle": self.ours.bundle_bytes,
                "bundle_weights": self.ours.manifest.sizes["weights"],
            },
            "parity": {
                "tolerance": TOLERANCE,
                "agrees": self.agrees,
                "ways": [asdict(way) for way in self.ways],
            },
            "milliseconds": [asdict(timing) | {"ratio": timing.ratio} for timing in self.timings],
        }


def show(found: Findings, console: Console) -> None:
    """Print the tables."""
    tables = (_blocks(found), _accuracy(found), _sizes(found), _latency(found), _parity(found))
    for table, note in tables:
        console.print()
        console.print(table, highlight=False)
        console.print(f"[dim]{note}[/]", highlight=False)
    console.print()
    console.print(f"measured on {in_words()}", highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(column, justify="right" if at else "left")
    return table


def _blocks(found: Findings) -> tuple[Table, str]:
    tasks = len(found.ours.manifest.tasks)
    table = _table(
        f"What {tasks} tasks share",
        "stage",
        "kind",
        "blocks trained",
        "blocks kept",
        "a task uses",
        "tasks a block",
    )
    for stage in found.ours.manifest.plan.stages:
        table.add_row(*_block_row(stage))
    return table, (
        "A task runs only the blocks it uses. A cluster layer starts with a block for each task and keeps "
        "one for each cluster; a gated layer keeps the experts that some task still uses."
    )


def _block_row(stage: StagePlan) -> Iterator[str]:
    users = sorted(stage.users().values(), reverse=True)
    yield from (stage.name, stage.kind, str(stage.trained_blocks), str(len(stage.blocks)))
    yield f"{stage.density().mean():.1f}"
    yield "1 task each" if users[0] == 1 and len(users) > 1 else ", ".join(map(str, users[:8]))


def _accuracy(found: Findings) -> tuple[Table, str]:
    runs = {name: found.trained[name].run for name in (SINGLE, HARD, OURS)}
    table = _table("Right answers on the test images", "task", "single-task", "hard sharing", "coterie")
    tasks = [task.name for task in found.trained[OURS].run.data.tasks]
    scores = [accuracy(run, "test", tasks) for run in runs.values()]
    for task in tasks:
        table.add_row(task, *[f"{100 * score[task]:.1f} %" for score in scores])
    for split in ("test", "dev"):
        means = [f"[bold]{100 * run.mean_metric(split):.2f} %[/]" for run in runs.values()]
        table.add_row(f"[bold]mean, {split}[/]", *means)
    return table, (
        "Each task knows the answer for a share of the training images only. Settings were chosen on dev; "
        "test was not looked at for it. This is one seed."
    )


def _sizes(found: Findings) -> tuple[Table, str]:
    bundle = found.ours.bundle_bytes
    count = len(found.ours.files)
    table = _table("Sizes", "what", "bytes", "against the bundle")
    for what, number in (
        (f"{count} single-task models, a file each", found.single.standalone_bytes),
        (f"coterie, {count} standalone files", found.ours.standalone_bytes),
        ("coterie, the bundle: all tasks and the router", bundle),
        ("  of which weights, held once", found.ours.manifest.sizes["weights"]),
    ):
        table.add_row(what, size(number), f"{number / bundle:.2f}")
    return table, (
        "Files on disk. The bundle is all that a server needs for every task; its report is not counted. The "
        "single-task models are the best ones found on dev: larger ones, with so few labels, were worse. "
        "The standalone files answer as the bundle does, but each has its own copy of what is shared."
    )


def _latency(found: Findings) -> tuple[Table, str]:
    table = _table(
        "Time of one answer, median", "asked", "a session for each task", "router", "router is faster by"
    )
    for each in found.timings:
        table.add_row(each.name, f"{each.sessions:.3f} ms", f"{each.router:.3f} ms", f"{each.ratio:.2f} x")
    return table, (
        "In this process, without a network, one thread, taking turns. Left: ONNX Runtime on the standalone "
        "files, one run for each task asked. Right: one run of the router graph, which computes what tasks "
        "share once."
    )


def _parity(found: Findings) -> tuple[Table, str]:
    table = _table("Does it answer as torch does?", "asked by way of", "answers", "largest difference")
    for way in found.ways:
        verdict = way.remark or (f"{way.error:.1e}" if way.agrees else f"[bold red]{way.error:.1e}[/]")
        table.add_row(way.name, str(way.answers), verdict)
    verdict = "All agree" if found.agrees else "[bold red]NOT all agree[/]"
    return (
        table,
        f"{verdict} within {TOLERANCE:.0e}; the largest difference of a score is {worst(found.ways):.1e}.",
    )
