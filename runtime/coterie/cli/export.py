"""``coterie export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie.cli._extras import extra
from coterie.runtime.manifest import MANIFEST


def export(
    source: Annotated[Path, typer.Argument(help="A run folder; for --standalone also a bundle.")],
    bundle: Annotated[
        Path | None, typer.Argument(help="Where the bundle goes; [dim]bundles/NAME[/] when not given.")
    ] = None,
    standalone: Annotated[
        str | None, typer.Option(metavar="TASK", help="Write one self-contained .onnx for this task instead.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for --standalone; [dim]TASK.onnx[/] when not given.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of a score from torch's; more fails the export.")
    ] = 1e-4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Freeze a run into a bundle: a graph for each task, the router graph, one weight file, a report.

    Every graph is checked against the torch model on real inputs before the bundle appears.
    """
    with extra("export", "coterie export"):
        from coterie.exporter import export_run, export_standalone
        from coterie.training import load_run

    is_bundle = (source / MANIFEST).is_file()
    if standalone is not None:
        file = output or Path(f"{standalone}.onnx")
        if is_bundle:
            export_standalone(source, standalone, file)
        else:
            from tempfile import TemporaryDirectory

            with TemporaryDirectory() as folder:
                export_run(load_run(source), Path(folder) / "bundle", tolerance=tolerance, on_progress=_say)
                export_standalone(Path(folder) / "bundle", standalone, file)
        typer.echo(f"{file}: {file.stat().st_size / 1024:.1f} KiB, needs no other file")
        return
    if is_bundle:
        raise typer.BadParameter(f"{source} is a bundle already; give a run folder, or --standalone TASK")
    run = load_run(source)
    destination = bundle or Path("bundles") / run.config.name
    manifest = export_run(run, destination, tolerance=tolerance, overwrite=overwrite, on_progress=_say)
    total = sum(entry.length for entry in manifest.files.values())
    typer.echo(
        f"{destination}: {len(manifest.tasks)} tasks, {total / 1024:.0f} KiB, largest difference from torch "
        f"{manifest.parity.max_abs_error:.1e}"
    )
    typer.echo(f"next: coterie inspect {destination}; coterie serve {destination}")


def _say(line: str) -> None:
    typer.echo(line, err=True)
