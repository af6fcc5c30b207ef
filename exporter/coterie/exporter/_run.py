"""From a run folder to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_jsonable_python

from coterie.exporter._about import About, Checks
from coterie.exporter._cut_columns import cut_columns
from coterie.exporter._export import export
from coterie.exporter._held_out import HeldOut, Scores
from coterie.exporter._metrics import Measuring
from coterie.exporter._precision._narrow import Narrowing
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import Manifest, Precision, Provenance
from coterie.training import Dataset, MultiTaskModel, Run

_PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")


def export_run(
    run: Run,
    destination: Path,
    *,
    dataset: Dataset | None = None,
    metric_check: bool = True,
    column_drop: float | None = None,
    precision: Precision = "fp32",
    max_metric_drop: float | None = None,
    tolerance: float = 1e-4,
    verify_share: float | None = None,
    overwrite: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Freeze a finished training into a bundle.

    Where the run's data can be read, the bundle is scored on the test split (dev where there is none), and
    must score as the torch model does. Without it this alone is left out.

    Args:
        run: The training.
        destination: The bundle's folder.
        dataset: The run's data; read from where the run read it, if not given.
        metric_check: Whether to score the bundle.
        column_drop: Points that a task may lose on dev by what stitched columns take no longer from each
            other: as many small shares (alpha) are cut as are worth no more, and what is then not needed is
            left out. None cuts nothing. A point is 0.01 of the task's metric.
        precision: What weights are stored in, where that is worth it: fp32, int8, fp16 or bf16.
        max_metric_drop: Points that a task may lose on dev by that; blocks that cost more stay fp32. None
            measures nothing.
        tolerance: Largest difference of a score from torch's, relative where the score is above 1.
        verify_share: Share of the task graphs that are asked; see ``Checks``.
        overwrite: Replace a bundle that is already there; what is the same in both is not checked again.
        on_progress: Called with a line of text at each step.

    Raises:
        ParityError: If a graph does not answer, or the bundle not score, as the torch model does; nothing is
            published.
        ExportError: If the bundle cannot be made or published, or data is missing that was asked for.
    """
    progress = on_progress or (lambda _: None)
    needed = column_drop is not None or max_metric_drop is not None
    held_out = _held_out(run, dataset, progress, needed=needed) if metric_check or needed else None
    model, column_cut = run.model, None
    if held_out is not None and column_drop is not None:
        progress("measuring on dev what columns need not take from each other")
        model, column_cut = cut_columns(run.model, held_out.measure, column_drop)
    measure = None if held_out is None else held_out.measure
    narrowing = Narrowing(precision=precision, max_metric_drop=max_metric_drop, measure=measure)
    measuring = _measuring(run, held_out, model) if metric_check and held_out is not None else None
    tokenizer = None
    if run.tokenizer is not None and run.data.text is not None:
        tokenizer = (run.tokenizer, run.data.text)
    with torch.no_grad():
        return export(
            model.freeze(),
            destination,
            reference=model,
            samples=run.samples(),
            about=About(
                _provenance(run),
                name=run.config.name,
                text=tokenizer,
                metrics=_by_task(run.metrics),
                column_cut=column_cut,
            ),
            checks=Checks(tolerance, verify_share, measuring),
            narrowing=narrowing,
            overwrite=overwrite,
            on_progress=on_progress,
        )


def _held_out(
    run: Run, dataset: Dataset | None, progress: Callable[[str], None], *, needed: bool
) -> HeldOut | None:
    """Return the run's data; None, and a line that says why, where there is none and it is not needed."""
    progress("reading the run's data")
    try:
        return HeldOut(run, dataset)
    except ExportError as error:
        if needed:
            raise
        progress(f"the bundle is not scored: {error}")
        return None


def _measuring(run: Run, held_out: HeldOut, model: MultiTaskModel) -> Measuring:
    """Return how to score a bundle; another model than the run's is scored first."""
    split = held_out.last
    scored = model is run.model and split in run.metrics
    known = run.metrics[split] if scored else held_out.scores(model, split)
    return Measuring(split, partial(held_out.scores, split=split), known)


def _by_task(metrics: Mapping[str, Scores]) -> dict[str, dict[str, Mapping[str, float]]]:
    """Return metrics by task, then split, rather than by split, then task."""
    found: dict[str, dict[str, Mapping[str, float]]] = {}
    for split, tasks in metrics.items():
        for task, values in tasks.items():
            found.setdefault(task, {})[split] = values
    return found


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
