"""From a frozen model to a published bundle."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir

from coterie.exporter._builder import constant_nodes, length_without_weights, serialize
from coterie.exporter._check import check
from coterie.exporter._divide import divide
from coterie.exporter._files import (
    DEVICE_FILE,
    HOST_FILE,
    REPORT_FILE,
    ROUTER_FILE,
    describe,
    graph_files,
)
from coterie.exporter._metrics import Measuring, compare_metrics, with_measured
from coterie.exporter._model import BoundModel, prune
from coterie.exporter._precision._agree import reference_of, rounding_of
from coterie.exporter._precision._narrow import FP32, Narrowing, bind_in, precision_report
from coterie.exporter._previous import Contents, Previous
from coterie.exporter._publish import staged_folder
from coterie.exporter._report import render_report
from coterie.exporter._router import router_graph
from coterie.exporter._sizes import cut_bytes, dense_bytes, kind_sizes, standalone_bytes
from coterie.exporter._states import check_samples
from coterie.exporter._task_graph import task_graph
from coterie.exporter._verify import Checked, Reference
from coterie.exporter._weights import WeightFile
from coterie.runtime.bundle._graph_check import check_graph
from coterie.runtime.bundle._safetensors import TensorIndex, read_index
from coterie.runtime.errors import ExportError, IntegrityError
from coterie.runtime.manifest import (
    MANIFEST,
    WEIGHTS,
    ColumnCut,
    Manifest,
    Provenance,
    RouterParts,
    TaskEntry,
    TextSpec,
)
from coterie.training.frozen import FrozenModel
from coterie.training.several import Arrays

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Task name to split to metric name to value."""

Progress = Callable[[str], None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def export(
    frozen: FrozenModel,
    destination: Path,
    *,
    reference: Reference,
    samples: Arrays,
    provenance: Provenance,
    text: tuple[Path, TextSpec] | None = None,
    metrics: Metrics | None = None,
    measuring: Measuring | None = None,
    column_cut: ColumnCut | None = None,
    name: str = "model",
    tolerance: float = 1e-4,
    narrowing: Narrowing = FP32,
    verify_share: float | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Write, check and publish a bundle.

    Args:
        frozen: The model; blocks that no task uses are left out.
        destination: The bundle's folder. It appears whole or not at all.
        reference: The torch model as trained, ``(inputs [R, ...], row [B], task [B]) -> scores [B, C]``.
        samples: Real inputs of a validation split, ``[n, ...]``, of a model with several inputs one array of
            each; the first 64 are asked of every graph.
        provenance: Where the model comes from.
        text: The tokenizer's file and how it is used, when the input is text.
        metrics: What each task scored; values that are not finite are left out.
        measuring: How to score the bundle as well; in fp32 it must score as the reference does.
        column_cut: What was cut of the model before.
        name: The model's name: letters, digits, ``.``, ``_`` and ``-``.
        tolerance: Largest difference of a score from the reference's, relative where the score is above 1.
        narrowing: What weights are stored in, and what that may cost a task.
        verify_share: Share of the task graphs that are asked, the others are only loaded. None: all of up to
            100; of more, 5 %, but not fewer than 100. The router is asked about every task.
        overwrite: Replace a bundle that is already there; a reader sees the old one or the new one. What is
            the same in both stays where it was in the weight file, and is not checked again.
        on_progress: Called with a line of text at each step.

    Raises:
        ParityError: If a graph does not answer as the reference does; nothing is published.
        ExportError: If the bundle cannot be made or published.
    """
    progress = on_progress or (lambda _: None)
    metrics = metrics or {}
    _check_arguments(frozen, name, tolerance, verify_share, metrics)
    narrowing.check()
    check_samples(frozen.inputs, samples)
    destination = Path(destination)
    with staged_folder(destination, overwrite=overwrite) as folder:
        previous = Previous.at(destination)
        made = bind_in(
            narrowing, prune(frozen), samples, reference=reference, tolerance=tolerance, on_progress=progress
        )
        model, store = made.model, made.store
        progress("writing weights")
        weights = store.write(folder / WEIGHTS, None if previous is None else previous.weights)
        graphs, sizes = _write_graphs(folder, model, weights, progress)
        if text is not None:
            _copy_tokenizer(folder, *text)
        checked = Checked(
            folder,
            model.inputs,
            model.tasks,
            graphs,
            ROUTER_FILE,
            rounding_of(narrowing.precision),
            parts=(HOST_FILE, DEVICE_FILE),
        )
        contents = Contents(folder, weights)
        known = {} if previous is None else previous.known(contents, checked, provenance, tolerance)
        manifest = Manifest(
            name=name,
            inputs=model.inputs,
            text=None if text is None else text[1],
            tasks=tuple(
                TaskEntry(task=task, graph=graph, metrics=_finite(metrics.get(task.name, {})))
                for task, graph in zip(model.tasks, graphs, strict=True)
            ),
            router=ROUTER_FILE,
            router_parts=RouterParts(host=HOST_FILE, device=DEVICE_FILE),
            plan=model.plan,
            tensors=model.tensor_uses(),
            files={path.name: describe(path) for path in sorted(folder.iterdir())},
            sizes=sizes if narrowing.precision == "fp32" else {**sizes, "fp32": made.fp32_bytes},
            kinds=kind_sizes(model, weights),
            parity=check(
                checked,
                *reference_of(narrowing.precision, checked, reference, samples),
                tolerance=tolerance,
                share=verify_share,
                known=known,
                on_progress=progress,
            ),
            precision=precision_report(made, narrowing, checked, reference, samples),
            column_cut=column_cut,
            provenance=provenance,
        )
        if measuring is not None:
            progress(f"scoring the router on the {measuring.split} split")
            exact = narrowing.precision == "fp32"
            found = compare_metrics(checked, reference, measuring, tolerance=tolerance, exact=exact)
            manifest = with_measured(manifest, found)
        manifest = _write_manifest(folder, manifest)
        if previous is not None:
            progress(previous.changes(contents, manifest))
            previous.keep_times(folder, manifest)
        progress("publishing")
    return manifest


def _write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the report and then the manifest; return it with the report among its files."""
    (folder / REPORT_FILE).write_text(render_report(manifest), encoding="utf-8")
    files = {**manifest.files, REPORT_FILE: describe(folder / REPORT_FILE)}
    manifest = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
    return manifest


def _check_arguments(
    frozen: FrozenModel, name: str, tolerance: float, verify_share: float | None, metrics: Metrics
) -> None:
    if not _NAME.fullmatch(name):
        raise ExportError(f"a model cannot be called {name!r}: use letters, digits, '.', '_' and '-'")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ExportError(
            f"a tolerance of {tolerance} checks nothing: give a small positive number, like 1e-4"
        )
    if verify_share is not None and not 0 < verify_share <= 1:
        raise ExportError(f"a share of {verify_share} of the graphs cannot be asked: give 0.05, or 1 for all")
    unknown = sorted(set(metrics) - {task.name for task in frozen.tasks})
    if unknown:
        raise ExportError(f"there are metrics of tasks that the model does not have: {unknown}")


def _write_graphs(
    folder: Path, model: BoundModel, weights: WeightFile, progress: Progress
) -> tuple[list[str], dict[str, int]]:
    """Write every task's graph and the router; return the tasks' files, and sizes in bytes."""
    progress(f"writing {len(model.tasks)} task graphs and the router")
    graphs = graph_files([task.name for task in model.tasks])
    index = read_index(folder / weights.name)
    bare = []
    for task, file in enumerate(graphs):
        graph = task_graph(model, weights, task)
        bare.append(length_without_weights(graph))
        _write_graph(folder / file, graph, index)
    router = router_graph(model, weights)
    parts = divide(router)
    for file, graph in ((ROUTER_FILE, router), (HOST_FILE, parts.host), (DEVICE_FILE, parts.device)):
        _write_graph(folder / file, graph, index)
    sizes = {
        "weights": weights.length,
        "graphs": sum((folder / file).stat().st_size for file in graphs),
        "router": (folder / ROUTER_FILE).stat().st_size,
        "standalone": standalone_bytes(model, weights, bare),
        "dense": dense_bytes(model, weights),
        **cut_bytes(model, weights),
    }
    return graphs, sizes


def _write_graph(path: Path, graph: ir.Model, index: TensorIndex) -> None:
    constant = constant_nodes(graph)
    if constant:
        raise ExportError(
            f"{path.name} computes constants ({', '.join(constant[:5])}): this is a bug of the exporter"
        )
    content = serialize(graph)
    try:
        check_graph(path.name, content, index)
    except IntegrityError as error:
        raise ExportError(
            f"the runtime would not load what a block was traced to: {error}; change the block's forward"
        ) from error
    path.write_bytes(content)


def _copy_tokenizer(folder: Path, source: Path, spec: TextSpec) -> None:
    target = folder / spec.tokenizer
    if (
        Path(spec.tokenizer).name != spec.tokenizer
        or target.exists()
        or spec.tokenizer in (MANIFEST, REPORT_FILE)
    ):
        raise ExportError(f"the tokenizer's file cannot be called {spec.tokenizer!r}: use 'tokenizer.json'")
    if not source.is_file():
        raise ExportError(f"the tokenizer's file {source.name} is missing: it belongs to the run")
    shutil.copyfile(source, target)


def _finite(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the metrics that are numbers: a split without positives has no AUC, and JSON has no NaN."""
    return {
        split: {metric: float(value) for metric, value in values.items() if math.isfinite(value)}
        for split, values in metrics.items()
    }
