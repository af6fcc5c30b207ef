"""One task as one file: a graph with its weights inside, for wherever a folder is too much."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from coterie.exporter._builder import serialize
from coterie.exporter._verify import GraphSession
from coterie.exporter._weights import Array
from coterie.runtime.bundle import Bundle, load_bundle
from coterie.runtime.durable import write_file
from coterie.runtime.errors import ExportError, ParityError
from coterie.runtime.manifest import TensorSpec

_LARGEST = (1 << 31) - 1
"""A protobuf message, and so an ONNX file, is at most this long."""

_ROWS = (0, 1, 5)
_LENGTH = 9


def export_standalone(bundle: Bundle | Path, task: str, destination_file: Path) -> None:
    """Write one task of a published bundle as a self-contained ``.onnx``, checked to answer identically.

    Args:
        bundle: The bundle, or its folder; a folder is read and verified whole, for each task anew.
        task: The task's name.
        destination_file: The file to write; one that exists is replaced in one step.

    Raises:
        BundleError: If the folder holds no bundle, or one that is damaged or forged.
        UnknownTaskError: If the bundle has no such task.
        ExportError: If the result would be too large.
        ParityError: If the file answers differently from the bundle's graph; nothing is written then.
    """
    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle)
    graph = bundle.graph(bundle.manifest.tasks[bundle.task_index(task)].graph)
    model = ir.load(graph)
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
        _check_identical(graph, alone, bundle.manifest.inputs)
    write_file(Path(destination_file), content)


def _check_identical(graph: Path, alone: Path, inputs: Sequence[TensorSpec]) -> None:
    original, copy = GraphSession(graph.parent, graph.name), GraphSession(alone.parent, alone.name)
    for rows in _ROWS:
        feeds = {spec.name: _values(spec, rows) for spec in inputs}
        wanted, got = original.run(feeds), copy.run(feeds)
        if wanted.keys() != got.keys() or not all(np.array_equal(wanted[key], got[key]) for key in wanted):
            raise ParityError(f"the file made from {graph.name} answers differently at batch size {rows}")


def _values(spec: TensorSpec, rows: int) -> Array:
    """Return inputs of the right type and shape; ids are 0 and 1, which every vocabulary has."""
    generator = np.random.default_rng(0)
    shape = [rows, *(_LENGTH if size is None else size for size in spec.shape[1:])]
    if spec.dtype == "float32":
        return generator.standard_normal(shape).astype(np.float32)
    return generator.integers(0, 2, shape).astype(spec.dtype)
