"""What is let into ONNX Runtime: graphs as an export writes them, and weights of their own bundle."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.fuzz import graphs

from coterie.runtime import IntegrityError, load
from coterie.runtime.bundle._protobuf import WireError, fields
from coterie.runtime.manifest import WEIGHTS

from .handmade import HandMade, write_manifest

Change = Callable[[onnx.ModelProto, Path], None]


@pytest.fixture
def bundle(features: HandMade, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(features.path, tmp_path / "bundle"))


def change(folder: Path, make: Change, graph: str = "router.onnx") -> None:
    model = onnx.load(folder / graph, load_external_data=False)
    others = {path.name for path in folder.iterdir()}
    make(model, folder)
    (folder / graph).write_bytes(model.SerializeToString())
    beside = [path for path in folder.iterdir() if path.name not in others]
    moved = [(path, path.rename(folder.parent / path.name)) for path in beside]
    write_manifest(folder, text=False)
    for path, away in moved:  # not in the manifest: nothing has checked them
        away.rename(path)


def outside(model: onnx.ModelProto, **place: str) -> None:
    (tensor,) = [each for each in model.graph.initializer if each.name == "trunk.bias"]
    for entry in tensor.external_data:
        entry.value = place.get(entry.key, entry.value)


def beside(model: onnx.ModelProto, folder: Path) -> None:
    (folder / "extra").write_bytes(np.ones(64, dtype=np.float32).tobytes())
    outside(model, location="extra", offset="0")


def hard_link(model: onnx.ModelProto, folder: Path) -> None:
    (folder.parent / "secret").write_bytes(np.ones(64, dtype=np.float32).tobytes())
    (folder / "linked").hardlink_to(folder.parent / "secret")
    outside(model, location="linked", offset="0")


def custom(model: onnx.ModelProto, folder: Path) -> None:
    node = helper.make_node("EPContext", [], ["c"], domain="com.microsoft", ep_cache_context="/etc/passwd")
    model.graph.node.append(node)


def function(model: onnx.ModelProto, folder: Path) -> None:
    model.functions.add(name="Relu", domain="", input=["a"], output=["b"])


def loop(model: onnx.ModelProto, seed: int) -> None:
    """A loop in the graph, or one that is hidden in a branch."""
    graphs.loop(model, random.Random(seed), Path(), Path())  # noqa: S311 - not a secret


def sparse(model: onnx.ModelProto, folder: Path) -> None:
    model.graph.sparse_initializer.add().values.name = "sparse"


@pytest.mark.parametrize("graph", ["router.onnx", "topic.onnx"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (beside, "refers to a file"),
        (hard_link, "refers to a file"),
        (lambda model, _: outside(model, location="../x"), "refers to a file"),
        (lambda model, _: outside(model, location=f"./{WEIGHTS}"), "refers to a file"),
        (lambda model, _: outside(model, location=f"{WEIGHTS}\0"), "refers to a file"),
        (lambda model, _: outside(model, offset="0"), "outside of the tensors"),
        (lambda model, _: outside(model, length="1000000"), "outside of the tensors"),
        (lambda model, _: outside(model, offset="-4"), "no number"),
        (lambda model, _: outside(model, offset=" 8"), "no number"),
        (custom, "operator 'EPContext'"),
        (function, "defines operators"),
        (sparse, "sparse"),
        (lambda model, _: loop(model, 0), "Loop"),
        (lambda model, _: loop(model, 1), "Loop"),
    ],
)
def test_a_graph_that_an_export_would_not_write_is_refused(
    bundle: Path, make: Change, says: str, graph: str
) -> None:
    change(bundle, make, graph)
    with pytest.raises(IntegrityError, match=says) as caught:
        load(bundle, mode="task").predict("topic", [[0.0] * 4]) if graph != "router.onnx" else load(bundle)
    assert f"'{graph}'" in str(caught.value)


def test_onnx_runtime_itself_would_read_the_file_beside(bundle: Path) -> None:
    """The check is there for a reason; when this fails, ONNX Runtime has become strict itself."""
    change(bundle, hard_link)
    ort.InferenceSession(str(bundle / "router.onnx"), providers=["CPUExecutionProvider"])


def test_both_loops_of_the_refused_are_different_ones(bundle: Path) -> None:
    kinds = set()
    for seed in (0, 1):
        model = onnx.load(bundle / "router.onnx", load_external_data=False)
        loop(model, seed)
        kinds.add(any(node.op_type == "Loop" for node in model.graph.node))
    assert kinds == {True, False}  # plain, and hidden in a branch


def test_a_tensor_of_a_node_is_checked_too(bundle: Path) -> None:
    def hide(model: onnx.ModelProto, _: Path) -> None:
        tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))

    change(bundle, hide)
    with pytest.raises(IntegrityError, match="does not say once"):
        load(bundle)


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x08",
        b"\xff" * 11,
        b"\x0b\x0c",
        b"\x02\x00",
        b"\x0d\x00",
        b"\x09\x00",
        b"\x0a\xff\xff\xff\xff\x0f",
    ],
)
def test_bytes_that_are_no_message_are_refused(message: bytes) -> None:
    with pytest.raises(WireError):
        list(fields(memoryview(message)))


def test_every_kind_of_field_is_read() -> None:
    message = b"\x08\x96\x01" + b"\x12\x02ok" + b"\x1d\x01\x02\x03\x04" + b"\x21" + bytes(range(8))
    read = [
        (number, value if isinstance(value, int) else bytes(value))
        for number, value in fields(memoryview(message))
    ]
    assert read == [(1, 150), (2, b"ok"), (3, b"\1\2\3\4"), (4, bytes(range(8)))]
