"""``coterie train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._extras import extra


def train(
    ctx: typer.Context,
    config: Annotated[str, typer.Argument(help="A preset's name (see [bold]coterie presets[/]) or a YAML file.")],
    data: Annotated[
        Path | None,
        typer.Option(help="A YAML file that says which column of your table is what; see docs/data.md."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run folder; [dim]runs/NAME[/] when not given. Resumes if it is there.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but the result.")] = False,
) -> None:
    """Train a model, or go on with an interrupted training in the same run folder.

    Every setting of the YAML file can be given here by the same name:

        coterie train digits --trainer.epochs 5 --seed 3 --model.stages.1.experts 8

    The run folder then holds the configuration, the best weights, the history (JSON lines and TensorBoard
    events), the sharing plan, the metrics on dev and test, and plots of who shares with whom.
    """
    with extra("train", "coterie train"):
        from coterie.training import ConsoleWatcher, Watcher, load_run_config
        from coterie.training import train as start

    settings = load_run_config(config, data=data, overrides=ctx.args)
    folder = run or Path("runs") / settings.name
    finished = start(settings, folder, watcher=Watcher() if quiet else ConsoleWatcher())
    for split in finished.metrics:
        typer.echo(f"{split}: mean metric over {len(finished.data.tasks)} tasks {finished.mean_metric(split):.4f}")
    typer.echo(f"run folder: {folder}")
    typer.echo(f"next: coterie export {folder}")
