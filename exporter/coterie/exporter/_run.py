"""From a run folder to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_jsonable_python

from coterie.exporter._export import export
from coterie.runtime.manifest import Manifest, Provenance
from coterie.training import Run

_PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")


def export_run(
    run: Run,
    destination: Path,
    *,
    tolerance: float = 1e-4,
    overwrite: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Freeze a finished training into a bundle; its data is not needed.

    Args:
        run: The training.
        destination: The bundle's folder.
        tolerance: Largest difference of a score from torch's, relative where the score is above 1.
        overwrite: Replace a bundle that is already there.
        on_progress: Called with a line of text at each step.

    Raises:
        ParityError: If a graph does not answer as the torch model does; nothing is published.
        ExportError: If the bundle cannot be made or published.
    """
    tokenizer = None
    if run.tokenizer is not None and run.data.text is not None:
        tokenizer = (run.tokenizer, run.data.text)
    by_task: dict[str, dict[str, dict[str, float]]] = {}
    for split, tasks in run.metrics.items():
        for task, metrics in tasks.items():
            by_task.setdefault(task, {})[split] = metrics
    with torch.no_grad():
        return export(
            run.model.freeze(),
            destination,
            reference=run.model,
            samples=run.samples(),
            provenance=_provenance(run),
            text=tokenizer,
            metrics=by_task,
            name=run.config.name,
            tolerance=tolerance,
            overwrite=overwrite,
            on_progress=on_progress,
        )


def _without_folders(value: Any) -> Any:
    """Return a configuration with the name alone of each file and folder."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return value.name if isinstance(value, Path) else value


def _provenance(run: Run) -> Provenance:
    config: dict[str, Any] = run.config.model_dump()
    # Where the data lay on somebody's disk is nobody else's business; its checksum says what it was.
    config["data"].pop("path", None)
    return Provenance(
        coterie=version("coterie"),
        config=to_jsonable_python(_without_folders(config)),
        seed=run.config.seed,
        data_sha256=run.data.sha256,
        versions={name: version(name) for name in _PACKAGES},
    )
