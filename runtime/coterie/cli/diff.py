"""``coterie diff``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coterie.runtime import TaskChange

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie diff bundles/release-2 bundles/release-3\n\n"
    "$ coterie diff bundles/release-2 bundles/release-3 --input images.npy --json"
)


def diff(
    before: Annotated[Path, typer.Argument(help="A bundle.")],
    after: Annotated[Path, typer.Argument(help="The bundle to compare it with.")],
    source: Annotated[
        str | None,
        typer.Option("--input", "-i", metavar="FILE", help="Inputs to ask both: .json, .npy, .csv, .txt; -."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a program.")] = False,
) -> None:
    """Compare two bundles: which tasks changed, in which stages, and by how much.

    A task changed when its labels, its blocks, their mixture or their weights did; "weights" is the largest
    distance of a stage's weights relative to their norm before. With --input both bundles are asked about the
    same inputs, too: "flipped" is the share with another label, "answers" the largest difference of a
    probability (a score, for a regression).

    The exit code is 1 when anything differs.
    """
    from coterie.cli._folders import check_bundle

    for folder in (before, after):
        check_bundle(folder)
    from coterie.cli._read_inputs import read_inputs
    from coterie.runtime import compare_bundles, load_bundle

    first, second = load_bundle(before), load_bundle(after)
    inputs: Any = None
    if source is not None:
        inputs = read_inputs(source, second.manifest)
    changes = compare_bundles(first, second, inputs)
    if as_json:
        typer.echo(
            json.dumps({"tasks": [asdict(change) for change in changes]}, indent=1, ensure_ascii=False)
        )
    else:
        _print(changes)
    if any(change.change != "same" for change in changes):
        raise typer.Exit(1)


def _print(changes: Sequence[TaskChange]) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    counts = Counter(change.change for change in changes)
    table = Table(box=None, pad_edge=False)
    right = ("weights", "test", "flipped", "answers")
    for column in ("task", "change", "stages", *right):
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for change in changes:
        if change.change == "same":
            continue
        answers = change.answers
        table.add_row(
            escape(change.task),
            change.change,
            escape(", ".join(_stages(change))),
            f"{max((stage.weights for stage in change.stages), default=0.0):.2g}",
            ", ".join(f"{name} {value:+.4f}" for name, value in change.metrics.get("test", {}).items()),
            "" if answers is None else f"{answers.flipped:.1%}",
            "" if answers is None else f"{answers.largest:.2g}",
        )
    console = Console()
    if table.row_count:
        console.print(table, highlight=False)
    console.print(", ".join(f"{counts[kind]} {kind}" for kind in ("same", "changed", "added", "removed")))


def _stages(change: TaskChange) -> list[str]:
    """Return each changed stage with the blocks that came and went."""
    shown = ["labels"] if change.labels else []
    for stage in change.stages:
        moved = [f"+{block}" for block in stage.added] + [f"-{block}" for block in stage.removed]
        shown.append(stage.stage + (f" ({' '.join(moved)})" if moved else ""))
    return shown
