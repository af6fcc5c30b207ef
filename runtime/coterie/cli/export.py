"""``coterie export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from coterie.cli._deploy import (
    KserveRuntime,
    bundle_of,
    check_standalone,
    write_kserve,
    write_standalone,
    write_triton,
)
from coterie.cli._destination import make_parent
from coterie.cli._extras import extra

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie export runs/digits\n\n"
    "$ coterie export runs/digits bundles/release-3\n\n"
    "$ coterie export runs/digits --overwrite\n\n"
    "$ coterie export runs/digits --precision int8 --max-metric-drop 0.5\n\n"
    "$ coterie export bundles/digits --standalone is_seven -o seven.onnx\n\n"
    "$ coterie export bundles/digits --triton model-repository\n\n"
    "$ coterie export bundles/digits --kserve service --storage-uri s3://models/digits --image coterie:1"
)


Precision = Literal["fp32", "int8", "fp16", "bf16"]


class _Quality(NamedTuple):
    """What a bundle may lose against the torch model, and how much of it is checked."""

    tolerance: float
    precision: Precision
    max_metric_drop: float | None
    verify_share: float | None
    column_drop: float | None


def export(  # noqa: PLR0917 - typer passes them by name
    source: Annotated[
        Path,
        typer.Argument(help="A run folder; for --standalone, --triton and --kserve a bundle will do too."),
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
    kserve: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write what KServe needs to serve it instead; with --storage-uri."),
    ] = None,
    storage_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="For --kserve: where the model will lie in storage.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="For --kserve: a container image with coterie[serve] in it.")
    ] = None,
    kserve_runtime: Annotated[
        KserveRuntime, typer.Option(help="For --kserve: serve with coterie, or with KServe's own Triton.")
    ] = "coterie",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="For --standalone; TASK.onnx when not given."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0,
            help="Largest difference of a score from torch's, relative where the score is above 1; more "
            "fails the export.",
        ),
    ] = 1e-4,
    precision: Annotated[
        Precision,
        typer.Option(help="What weights are stored in; int8 is for CPUs, fp16 for GPUs."),
    ] = "fp32",
    max_metric_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="For less than fp32: what a task may lose on dev, in points (0.01 of its metric). Blocks "
            "that cost more stay fp32. Nothing is measured when not given.",
        ),
    ] = None,
    verify_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the task graphs that are asked; when not given, all of up to 100 and 5 % of more.",
        ),
    ] = None,
    cut_columns: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="For stitched columns: cut the small shares that they take of each other, as many as cost "
            "no task more points on dev than this. Nothing is cut when not given.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Freeze a run into a bundle: a graph for each task, the router graph, one weight file, a report.

    Only blocks that some task uses are in it. The graphs are checked against the torch model on real inputs
    before the bundle appears; a difference above the tolerance fails the export, and nothing is written. With
    --overwrite, what is the same as in the bundle that is there keeps its bytes, and is not checked again.

    With --precision int8 the weights are a quarter as large, and large matrices are faster on a CPU; with
    --max-metric-drop 0.5 no task loses more than half a point on dev, and blocks that cost more stay fp32.

    With --standalone one task becomes a single file that any ONNX Runtime loads, in any language. With
    --triton the router and every task become models of Triton's ONNX backend, with their configuration. With
    --kserve the bundle, or that repository, comes with the resources that let KServe serve it.
    """
    from coterie.cli._folders import kind_of
    from coterie.runtime.errors import ExportError

    is_run = kind_of(source) == "run"
    quality = _Quality(tolerance, precision, max_metric_drop, verify_share, cut_columns)
    if not is_run and (precision, max_metric_drop, cut_columns) != ("fp32", None, None):
        raise typer.BadParameter("what weights a bundle holds is decided when it is made: give the run")
    if sum(each is not None for each in (standalone, triton, kserve)) > 1:
        raise typer.BadParameter("give one of --standalone, --triton and --kserve")
    if kserve is not None and storage_uri is None:
        raise typer.BadParameter("--kserve needs --storage-uri, where the model will lie: s3://models/digits")
    if output is not None and standalone is None:
        raise typer.BadParameter("--output is for --standalone; a bundle's folder is the second argument")
    if bundle is not None and standalone is not None:
        raise typer.BadParameter(
            "--standalone writes a file: give it with --output, not as the second argument"
        )
    if bundle is not None and (triton is not None or kserve is not None):
        raise typer.BadParameter("--triton and --kserve name a folder: leave the second argument out")
    if standalone is not None or triton is not None or kserve is not None:
        check_standalone(standalone, output)  # rather now than after an export
        with bundle_of(source, quality._asdict(), _say, is_run=is_run) as made:
            if standalone is not None:
                write_standalone(made, standalone, output)
            elif triton is not None:
                write_triton(made, triton)
            elif kserve is not None:
                write_kserve(made, kserve, storage_uri or "", image, kserve_runtime)
    elif is_run:
        _export_bundle(source, bundle, quality, overwrite)
    else:
        raise ExportError(
            f"{source} is a bundle already: give a run folder, or one of --standalone, --triton and --kserve"
        )


def _export_bundle(source: Path, bundle: Path | None, quality: _Quality, overwrite: bool) -> None:
    if bundle is not None:
        _check_free(bundle, overwrite)
    from coterie.cli._render import allowed

    with extra("export", "coterie export"):
        from coterie.exporter import export_run
        from coterie.training import load_run

    run = load_run(source)
    destination = bundle or Path("bundles") / run.config.name
    _check_free(destination, overwrite)
    make_parent(destination)
    manifest = export_run(run, destination, overwrite=overwrite, on_progress=_say, **quality._asdict())
    total = sum(entry.length for entry in manifest.files.values())
    narrow = manifest.precision
    difference = (
        f"{manifest.parity.max_abs_error:.1e} ({allowed(manifest.parity.tolerance)})"
        if narrow is None
        else f"{narrow.score_difference:.1e}"
    )
    typer.echo(
        f"{destination}: {len(manifest.tasks)} tasks, {total / 1024:.0f} KiB, largest difference from torch "
        f"{difference}"
    )
    typer.echo(f"next: coterie inspect {destination}; coterie serve {destination}")


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
