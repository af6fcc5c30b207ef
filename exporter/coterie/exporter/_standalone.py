"""One task as one file: a graph with its weights inside, for wherever a folder is too much."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from coterie.exporter._builder import serialize
from coterie.exporter._files import check_files
from coterie.exporter._verify import GraphSession
from coterie.exporter._weights import Array
from coterie.runtime._durable import write_file
from coterie.runtime.errors import ExportError, ParityError
from coterie.runtime.manifest import MANIFEST, WEIGHTS, Manifest, TensorSpec, parse_manifest

_LARGEST = (1 << 31) - 1
"""A protobuf message, and so an ONNX file, is at most this long."""

_ROWS = (0, 1, 5)
_LENGTH = 9


def export_standalone(bundle_path: Path, task: str, destination_file: Path) -> None:
    """Write one task of a published bundle as a self-contained ``.onnx``, checked to answer identically.

    Args:
        bundle_path: The bundle's folder.
        task: The task's name.
        destination_file: The file to write; one that exists is replaced in one step.

    Raises:
        ExportError: If the bundle has no such task, a file is not its own, or the result would be too large.
        ParityError: If the file answers differently from the bundle's graph; nothing is written then.
    """
    path = Path(bundle_path) / MANIFEST
    if not path.is_file():
        raise ExportError(f"{bundle_path} is not a bundle: it has no {MANIFEST}")
    manifest = parse_manifest(path.read_bytes())
    graph = _graph_of(manifest, task)
    folder = Path(bundle_path)
    check_files(folder, {name: manifest.files[name] for name in (graph, WEIGHTS)})
    model = ir.load(folder / graph)
    if (
        sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
        > _LARGEST
    ):
        raise ExportError(f"task {task!r} is larger than one ONNX file can be (2 GiB): use the bundle")
    ir.external_data.load_to_model(model)
    content = serialize(model)
    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch) / "task.onnx"
        alone.write_bytes(content)
        _check_identical(folder, graph, alone, manifest.inputs)
    write_file(Path(destination_file), content)


def _graph_of(manifest: Manifest, task: str) -> str:
    for entry in manifest.tasks:
        if entry.task.name == task:
            return entry.graph
    names = ", ".join(repr(entry.task.name) for entry in manifest.tasks[:20])
    raise ExportError(f"the bundle has no task {task!r}; it has {names}")


def _check_identical(folder: Path, graph: str, alone: Path, inputs: Sequence[TensorSpec]) -> None:
    original, copy = GraphSession(folder, graph), GraphSession(alone.parent, alone.name)
    for rows in _ROWS:
        feeds = {spec.name: _values(spec, rows) for spec in inputs}
        wanted, got = original.run(feeds), copy.run(feeds)
        if wanted.keys() != got.keys() or not all(np.array_equal(wanted[key], got[key]) for key in wanted):
            raise ParityError(f"the file made from {graph} answers differently at batch size {rows}")


def _values(spec: TensorSpec, rows: int) -> Array:
    """Return inputs of the right type and shape; ids are 0 and 1, which every vocabulary has."""
    generator = np.random.default_rng(0)
    shape = [rows, *(_LENGTH if size is None else size for size in spec.shape[1:])]
    if spec.dtype == "float32":
        return generator.standard_normal(shape).astype(np.float32)
    return generator.integers(0, 2, shape).astype(spec.dtype)
