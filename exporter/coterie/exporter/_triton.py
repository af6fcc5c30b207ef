"""A bundle as a model repository of the Triton Inference Server, which KServe's Triton runtime reads as well.

repository/
  router/                 every task behind one model: (inputs, row, task) -> scores, probabilities
    config.pbtxt
    1/model.onnx/         a folder: Triton's form of a model of several files
      model.onnx
      weights.safetensors
  <task>/                 one task, self-contained
    config.pbtxt
    labels.txt            for Triton's classification extension
    1/model.onnx
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from coterie.exporter._publish import staged_folder
from coterie.exporter._standalone import export_standalone
from coterie.runtime.bundle import Bundle, load_bundle
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import WEIGHTS, TaskEntry

MODEL = "model.onnx"
CONFIG = "config.pbtxt"
LABELS = "labels.txt"
_VERSION = "1"

_TYPES = {
    ir.DataType.FLOAT: "TYPE_FP32",
    ir.DataType.INT64: "TYPE_INT64",
    ir.DataType.UINT8: "TYPE_UINT8",
}


def export_triton(
    bundle: Bundle | Path,
    destination: Path,
    *,
    tasks: Sequence[str] | None = None,
    max_batch_size: int = 64,
) -> list[str]:
    """Write a bundle as a Triton model repository.

    Texts become token ids outside of it: Triton's ONNX backend takes tensors.

    Args:
        bundle: The bundle, or its folder.
        destination: The repository's folder, which must not exist. It appears whole or not at all.
        tasks: The tasks that get a model of their own; all when not given. The router is always there.
        max_batch_size: Largest batch that Triton makes of several requests to one task's model.

    Returns:
        The models' names, the router's first.

    Raises:
        BundleError: If the folder holds no bundle, or one that is damaged or forged.
        UnknownTaskError: If the bundle has no such task.
        ExportError: If the repository cannot be written.
    """
    if max_batch_size < 1:
        raise ExportError(f"a batch of {max_batch_size} inputs holds none: give at least 1")
    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle)
    names = [task.name for task in bundle.tasks] if tasks is None else dict.fromkeys(tasks)
    chosen = [bundle.manifest.tasks[bundle.task_index(name)] for name in names]
    with staged_folder(Path(destination), overwrite=False) as folder:
        router = _write_router(bundle, folder)
        return [router, *(_write_task(bundle, entry, folder, max_batch_size) for entry in chosen)]


def _write_router(bundle: Bundle, folder: Path) -> str:
    router = bundle.graph(bundle.manifest.router)
    name = router.stem
    model = folder / name / _VERSION / MODEL
    model.mkdir(parents=True)
    shutil.copyfile(router, model / MODEL)
    shutil.copyfile(bundle.path / WEIGHTS, model / WEIGHTS)
    # Questions and inputs have different numbers of rows: Triton must not take the first axis for a batch.
    (folder / name / CONFIG).write_text(_config(name, model / MODEL, batch=0), encoding="utf-8")
    return name


def _write_task(bundle: Bundle, entry: TaskEntry, folder: Path, batch: int) -> str:
    name = Path(entry.graph).stem
    version = folder / name / _VERSION
    version.mkdir(parents=True)
    export_standalone(bundle, entry.task.name, version / MODEL)
    labelled = entry.task.kind != "regression"
    text = _config(name, version / MODEL, batch=batch, labels=LABELS if labelled else None)
    (folder / name / CONFIG).write_text(text, encoding="utf-8")
    if labelled:
        # A label is a line.
        lines = [" ".join(label.split()) for label in entry.task.labels]
        (folder / name / LABELS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def _config(name: str, model: Path, *, batch: int, labels: str | None = None) -> str:
    """Return a ModelConfig message in protobuf's text format, with the graph's own inputs and outputs."""
    graph = ir.load(model).graph
    lines = [f"name: {_quoted(name)}", 'backend: "onnxruntime"', f"max_batch_size: {batch}"]
    for field, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            lines += [f"{field} {{", *_tensor(value, batch > 0)]
            if field == "output" and labels is not None:
                lines.append(f"  label_filename: {_quoted(labels)}")
            lines.append("}")
    if batch > 0:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _tensor(value: ir.Value, batched: bool) -> list[str]:
    if value.name is None or value.shape is None or value.dtype not in _TYPES:
        raise ExportError(f"Triton cannot be told of the tensor {value.name!r}: its type or shape is unknown")
    dims = [size if isinstance(size, int) else -1 for size in value.shape]
    shape = ", ".join(map(str, dims[1:] if batched else dims))
    return [f"  name: {_quoted(value.name)}", f"  data_type: {_TYPES[value.dtype]}", f"  dims: [ {shape} ]"]


def _quoted(text: str) -> str:
    return json.dumps(text)
