"""``coterie export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from coterie.cli._extras import extra

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie export runs/digits\n\n"
    "$ coterie export runs/digits bundles/release-3\n\n"
    "$ coterie export runs/digits --overwrite\n\n"
    "$ coterie export bundles/digits --standalone is_seven -o seven.onnx\n\n"
    "$ coterie export bundles/digits --triton model-repository"
)


def export(  # noqa: PLR0917 - typer passes them by name
    source: Annotated[
        Path, typer.Argument(help="A run folder; with --standalone or --triton a bundle will do too.")
    ],
    bundle: Annotated[
        Path | None, typer.Argument(help="Where the bundle goes; bundles/NAME when not given.")
    ] = None,
    standalone: Annotated[
        str | None, typer.Option(metavar="TASK", help="Write one self-contained .onnx for this task instead.")
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a model repository for the Triton Inference Server instead."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="For --standalone; TASK.onnx when not given."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of a score from torch's; more fails the export.")
    ] = 1e-4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Freeze a run into a bundle: a graph for each task, the router graph, one weight file, a report.

    Only blocks that some task uses are in it. Every graph is checked against the torch model on real inputs
    before the bundle appears; a difference above the tolerance fails the export, and nothing is written.

    With --standalone one task becomes a single file that any ONNX Runtime loads, in any language. With
    --triton the router and every task become models of Triton's ONNX backend, with their configuration.
    """
    from coterie.cli._folders import kind_of
    from coterie.runtime.errors import ExportError

    is_run = kind_of(source) == "run"
    if standalone is not None and triton is not None:
        raise typer.BadParameter("give either --standalone or --triton")
    if output is not None and standalone is None:
        raise typer.BadParameter("--output is for --standalone; a bundle's folder is the second argument")
    if bundle is not None and standalone is not None:
        raise typer.BadParameter(
            "--standalone writes a file: give it with --output, not as the second argument"
        )
    if bundle is not None and triton is not None:
        raise typer.BadParameter("--triton names its own folder: leave the second argument out")
    if standalone is not None:
        file = output or Path(f"{standalone.replace('/', '_')}.onnx")
        file.parent.mkdir(parents=True, exist_ok=True)
        _export_standalone(source, standalone, file, tolerance, is_run=is_run)
        typer.echo(f"{file}: {file.stat().st_size / 1024:.1f} KiB, needs no other file")
    elif triton is not None:
        names = _export_triton(source, triton, tolerance, is_run=is_run)
        typer.echo(f"{triton}: {len(names)} models; next: tritonserver --model-repository={triton}")
    elif is_run:
        _export_bundle(source, bundle, tolerance, overwrite)
    else:
        raise ExportError(
            f"{source} is a bundle already: give a run folder, --standalone TASK or --triton DIR"
        )


def _export_bundle(source: Path, bundle: Path | None, tolerance: float, overwrite: bool) -> None:
    if bundle is not None:
        _check_free(bundle, overwrite)
    with extra("export", "coterie export"):
        from coterie.exporter import export_run
        from coterie.training import load_run

    run = load_run(source)
    destination = bundle or Path("bundles") / run.config.name
    _check_free(destination, overwrite)
    destination.absolute().parent.mkdir(parents=True, exist_ok=True)
    manifest = export_run(run, destination, tolerance=tolerance, overwrite=overwrite, on_progress=_say)
    total = sum(entry.length for entry in manifest.files.values())
    typer.echo(
        f"{destination}: {len(manifest.tasks)} tasks, {total / 1024:.0f} KiB, largest difference from torch "
        f"{manifest.parity.max_abs_error:.1e}"
    )
    typer.echo(f"next: coterie inspect {destination}; coterie serve {destination}")


def _export_standalone(source: Path, task: str, file: Path, tolerance: float, *, is_run: bool) -> None:
    with _bundle_of(source, tolerance, is_run=is_run) as bundle:
        from coterie.exporter import export_standalone

        export_standalone(bundle, task, file)


def _export_triton(source: Path, folder: Path, tolerance: float, *, is_run: bool) -> list[str]:
    with _bundle_of(source, tolerance, is_run=is_run) as bundle:
        from coterie.exporter import export_triton

        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        return export_triton(bundle, folder)


@contextmanager
def _bundle_of(source: Path, tolerance: float, *, is_run: bool) -> Iterator[Path]:
    """Yield a bundle: the source itself, or one made of a run for as long as it is needed."""
    with extra("export", "coterie export"):
        from coterie.exporter import export_run
        from coterie.training import load_run

    if not is_run:
        yield source
        return
    with TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export_run(load_run(source), bundle, tolerance=tolerance, on_progress=_say)
        yield bundle


def _check_free(destination: Path, overwrite: bool) -> None:
    """Say what to do about a bundle that is there, before minutes are spent on a new one."""
    from coterie.runtime.errors import ExportError
    from coterie.runtime.manifest import MANIFEST

    if not overwrite and (destination / MANIFEST).is_file():
        raise ExportError(
            f"{destination} holds a bundle already: give --overwrite to replace it, or another folder"
        )


def _say(line: str) -> None:
    typer.echo(line, err=True)
