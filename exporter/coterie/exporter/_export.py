"""From a frozen model to a published bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from coterie.exporter._about import CHECKS, About, Checks
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
from coterie.exporter._metrics import compare_metrics, with_measured
from coterie.exporter._model import BoundModel, prune
from coterie.exporter._precision._agree import reference_of, rounding_of
from coterie.exporter._precision._narrow import FP32, Bound, Narrowing, bind_in, precision_report
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
    FileEntry,
    Manifest,
    Parity,
    PrecisionReport,
    RouterParts,
    TaskEntry,
    TextSpec,
)
from coterie.training.frozen import FrozenModel
from coterie.training.several import Arrays

Progress = Callable[[str], None]


def export(
    frozen: FrozenModel,
    destination: Path,
    *,
    reference: Reference,
    samples: Arrays,
    about: About,
    checks: Checks = CHECKS,
    narrowing: Narrowing = FP32,
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
        about: What the bundle says of the model.
        checks: What it must show before it is published.
        narrowing: What weights are stored in, and what that may cost a task.
        overwrite: Replace a bundle that is already there; a reader sees the old one or the new one. What is
            the same in both stays where it was in the weight file, and is not checked again.
        on_progress: Called with a line of text at each step.

    Raises:
        ParityError: If a graph does not answer as the reference does; nothing is published.
        ExportError: If the bundle cannot be made or published.
    """
    progress = on_progress or (lambda _: None)
    about.check({task.name for task in frozen.tasks})
    checks.check()
    narrowing.check()
    check_samples(frozen.inputs, samples)
    destination = Path(destination)
    with staged_folder(destination, overwrite=overwrite) as folder:
        previous = Previous.at(destination)
        bound = bind_in(
            narrowing,
            prune(frozen),
            samples,
            reference=reference,
            tolerance=checks.tolerance,
            on_progress=progress,
        )
        written = _write(folder, bound, about, previous, progress)
        checked = Checked(
            folder,
            bound.model.inputs,
            bound.model.tasks,
            written.graphs,
            ROUTER_FILE,
            rounding_of(narrowing.precision),
            parts=(HOST_FILE, DEVICE_FILE),
        )
        contents = Contents(folder, written.weights)
        known: Mapping[str, float | None] = {}
        if previous is not None:
            known = previous.known(contents, checked, about.provenance, checks.tolerance)
        parity = check(
            checked,
            *reference_of(narrowing.precision, checked, reference, samples),
            tolerance=checks.tolerance,
            share=checks.share,
            known=known,
            on_progress=progress,
        )
        precision = precision_report(bound, narrowing, checked, reference, samples)
        manifest = _manifest(bound, written, about, parity=parity, precision=precision)
        measuring = checks.measuring
        if measuring is not None:
            progress(f"scoring the router on the {measuring.split} split")
            exact = narrowing.precision == "fp32"
            found = compare_metrics(checked, reference, measuring, tolerance=checks.tolerance, exact=exact)
            manifest = with_measured(manifest, found)
        manifest = _write_manifest(folder, manifest)
        if previous is not None:
            progress(previous.changes(contents, manifest))
            previous.keep_times(folder, manifest)
        progress("publishing")
    return manifest


@dataclass(frozen=True)
class _Written:
    """What lies in a bundle's folder before its manifest.

    Attributes:
        weights: The weight file.
        graphs: Each task's file.
        sizes: Of what, to bytes.
        files: Every file's length and checksum, by name.
    """

    weights: WeightFile
    graphs: list[str]
    sizes: dict[str, int]
    files: dict[str, FileEntry]


def _write(
    folder: Path, bound: Bound, about: About, previous: Previous | None, progress: Progress
) -> _Written:
    """Write the weights, the graphs and the tokenizer."""
    progress("writing weights")
    weights = bound.store.write(folder / WEIGHTS, None if previous is None else previous.weights)
    graphs, sizes = _write_graphs(folder, bound.model, weights, progress)
    if about.text is not None:
        _copy_tokenizer(folder, *about.text)
    files = {path.name: describe(path) for path in sorted(folder.iterdir())}
    return _Written(weights, graphs, sizes, files)


def _manifest(
    bound: Bound, written: _Written, about: About, *, parity: Parity, precision: PrecisionReport | None
) -> Manifest:
    """Return what the bundle says of itself, but for what it scores and its report."""
    model = bound.model
    return Manifest(
        name=about.name,
        inputs=model.inputs,
        text=None if about.text is None else about.text[1],
        tasks=tuple(
            TaskEntry(task=task, graph=graph, metrics=about.finite(task.name))
            for task, graph in zip(model.tasks, written.graphs, strict=True)
        ),
        router=ROUTER_FILE,
        router_parts=RouterParts(host=HOST_FILE, device=DEVICE_FILE),
        plan=model.plan,
        tensors=model.tensor_uses(),
        files=written.files,
        sizes=written.sizes if precision is None else {**written.sizes, "fp32": bound.fp32_bytes},
        kinds=kind_sizes(model, written.weights),
        parity=parity,
        precision=precision,
        column_cut=about.column_cut,
        provenance=about.provenance,
    )


def _write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the report and then the manifest; return it with the report among its files."""
    (folder / REPORT_FILE).write_text(render_report(manifest), encoding="utf-8")
    files = {**manifest.files, REPORT_FILE: describe(folder / REPORT_FILE)}
    manifest = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(manifest.dumps(), encoding="utf-8")
    return manifest


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
