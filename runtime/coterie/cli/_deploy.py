"""What ``coterie export`` writes instead of a bundle: one file, models for Triton, a service for KServe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import typer

from coterie.cli._destination import check_file, make_parent
from coterie.cli._extras import extra

KserveRuntime = Literal["coterie", "triton"]


def check_standalone(task: str | None, output: Path | None) -> None:
    """Refuse a file for one task, if one is wanted, that cannot be written."""
    if task is not None:
        check_file(output or _file_of(task))


def write_standalone(bundle: Path, task: str, output: Path | None) -> None:
    """Write one task as one file."""
    from coterie.exporter import export_standalone

    file = output or _file_of(task)
    export_standalone(bundle, task, file)
    typer.echo(f"{file}: {file.stat().st_size / 1024:.1f} KiB, needs no other file")


def _file_of(task: str) -> Path:
    return Path(f"{task.replace('/', '_')}.onnx")


def write_triton(bundle: Path, folder: Path) -> None:
    """Write a model repository."""
    from coterie.exporter import export_triton

    make_parent(folder)
    names = export_triton(bundle, folder)
    typer.echo(f"{folder}: {len(names)} models; next: tritonserver --model-repository={folder}")


def write_kserve(
    bundle: Path, folder: Path, storage_uri: str, image: str | None, runtime: KserveRuntime
) -> None:
    """Write a service."""
    from coterie.exporter import export_kserve

    make_parent(folder)
    name = export_kserve(bundle, folder, storage_uri=storage_uri, image=image, runtime=runtime)
    typer.echo(
        f"{folder}: the service {name}; next: copy the content of {folder / 'model'} to {storage_uri}, "
        f"then kubectl apply -f {folder}"
    )


@contextmanager
def bundle_of(
    source: Path, options: Mapping[str, Any], on_progress: Callable[[str], None], *, is_run: bool
) -> Iterator[Path]:
    """Yield a bundle: the source itself, or one made of a run, by these options, while it is needed."""
    with extra("export", "coterie export"):
        from coterie.exporter import export_run
        from coterie.training import load_run

    if not is_run:
        yield source
        return
    with TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export_run(load_run(source), bundle, on_progress=on_progress, **options)
        yield bundle
