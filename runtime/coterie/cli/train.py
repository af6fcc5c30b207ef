"""``coterie train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._extras import extra

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie train digits\n\n"
    "$ coterie train digits --trainer.epochs 5 --seed 3 --run runs/short\n\n"
    "$ coterie train text --data reviews.yaml\n\n"
    "$ coterie train text --data reviews.yaml --data.path other.parquet model.stages.1.experts=8\n\n"
    "$ coterie train digits --baseline runs/digits-single\n\n"
    "$ coterie train my-model.yaml"
)


def train(  # noqa: PLR0917 - typer passes them by name
    ctx: typer.Context,
    config: Annotated[
        str, typer.Argument(help="A preset's name (coterie presets lists them) or a YAML file.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML file that says which column of your table is what."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The run folder; runs/NAME when not given. A training in it is resumed."
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Another finished run, such as one of single-task models, that the report compares with.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the result.")] = False,
) -> None:
    """Train a model, or go on with an interrupted training in the same run folder.

    Every setting of the YAML file can be given here under the same name, as --trainer.epochs 5 or
    trainer.epochs=5; an element of a list by its number from 0, as --model.stages.2.clusters 4. Relative
    paths given here start from the current folder, those in a YAML file from the file's own.

    The run folder then holds the configuration, the best weights, the history (JSON lines and TensorBoard
    events), the sharing plan, the metrics on dev and test, and a report of who shares with whom.
    """
    with extra("train", "coterie train"):
        from coterie.training import ConsoleWatcher, Watcher, load_run_config
        from coterie.training import train as start
        from coterie.training.loop.ranks import is_first

    settings = load_run_config(config, data=data, overrides=ctx.args)
    folder = run or Path("runs") / settings.name
    finished = start(settings, folder, watcher=Watcher() if quiet else ConsoleWatcher(), baseline=baseline)
    if not is_first():
        return
    for split in finished.metrics:
        mean = finished.mean_metric(split)
        typer.echo(f"{split}: mean metric over {len(finished.data.tasks)} tasks {mean:.4f}")
    typer.echo(f"run folder: {folder}; its report.html says who shares with whom")
    typer.echo(f"next: coterie inspect {folder}; coterie export {folder}")
