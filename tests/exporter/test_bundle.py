"""What is in a bundle: the right weights, once; small graphs that point at them; always the same bytes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx.external_data_helper import ExternalDataInfo
from safetensors.numpy import load_file
from tests.exporter.conftest import Exported, publish
from tests.exporter.models import MODELS
from tests.fuzz import graphs

from coterie.exporter._builder import constant_nodes
from coterie.exporter._export import _write_graph
from coterie.exporter._files import ROUTER_FILE
from coterie.exporter._weights import content_hash
from coterie.runtime.bundle._safetensors import read_index
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import MANIFEST, WEIGHTS, TextSpec, parse_manifest

Get = Callable[[str], Exported]


def external(folder: Path, graph: str) -> dict[str, tuple[int, int]]:
    """Return the spans of the weight file that a graph refers to, by name."""
    spans = {}
    for tensor in onnx.load(folder / graph, load_external_data=False).graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            info = ExternalDataInfo(tensor)
            assert info.location == WEIGHTS
            spans[tensor.name] = (info.offset, info.length)
    return spans


@pytest.mark.parametrize("name", list(MODELS))
def test_every_file_is_in_the_manifest_with_its_checksum(exported: Get, name: str) -> None:
    bundle = exported(name)
    assert parse_manifest((bundle.folder / MANIFEST).read_bytes()) == bundle.manifest
    files = {path.name: path for path in bundle.folder.iterdir() if path.name != MANIFEST}
    assert files.keys() == bundle.manifest.files.keys()
    assert all(bundle.manifest.files[key].length == path.stat().st_size for key, path in files.items())


def test_only_blocks_that_a_task_uses_are_in_the_weight_file(exported: Get) -> None:
    bundle = exported("features")
    stored = load_file(bundle.folder / WEIGHTS)
    experts = bundle.model.banks[2].tensors
    used = {0, 1, 2, 3, 5}
    for index, tensors in enumerate(experts):
        for tensor in tensors.values():
            assert (content_hash(tensor.numpy()) in stored) == (index in used)
    stage = bundle.manifest.plan.stage("experts")
    assert [block.name for block in stage.blocks] == [f"experts/{index}" for index in sorted(used)]
    assert stage.trained_blocks == 8
    assert stage.uses[3] == (2, 4)
    assert "experts/4" not in bundle.manifest.tensors


@pytest.mark.parametrize("name", list(MODELS))
def test_every_stored_tensor_is_used_and_keyed_by_its_content(exported: Get, name: str) -> None:
    bundle = exported(name)
    stored = load_file(bundle.folder / WEIGHTS)
    assert all(content_hash(array) == key for key, array in stored.items())
    used = {use.tensor for uses in bundle.manifest.tensors.values() for use in uses}
    assert used == stored.keys()


def test_the_manifest_says_where_each_blocks_tensors_lie(exported: Get) -> None:
    bundle = exported("features")
    stored = load_file(bundle.folder / WEIGHTS)
    plan = bundle.manifest.plan
    for stage, bank in zip(plan.stages, bundle.model.banks, strict=True):
        for block in stage.blocks:
            for use in bundle.manifest.tensors[block.name]:
                wanted = bank.tensors[block.source][use.name].numpy()
                data = stored[use.tensor].tobytes()[use.offset : use.offset + wanted.nbytes]
                assert data == wanted.tobytes()
                assert use.shape == wanted.shape


def test_a_task_graph_and_the_router_point_at_the_same_bytes(exported: Get) -> None:
    bundle = exported("features")
    router = external(bundle.folder, "router.onnx")
    for entry in bundle.manifest.tasks:
        for name, (offset, length) in external(bundle.folder, entry.graph).items():
            assert any(
                start <= offset and offset + length <= start + size for start, size in router.values()
            ), name


def test_equal_heads_are_stored_once(exported: Get) -> None:
    bundle = exported("shared")
    heads = {name: uses for name, uses in bundle.manifest.tensors.items() if name.startswith("heads/")}
    assert heads["heads/1"] == heads["heads/4"]
    stack = load_file(bundle.folder / WEIGHTS)[heads["heads/0"][0].tensor]
    assert stack.shape == (5, 8, 2)


@pytest.mark.parametrize("name", list(MODELS))
def test_graphs_hold_no_weights_and_compute_no_constants(exported: Get, name: str) -> None:
    bundle = exported(name)
    for file in [*(entry.graph for entry in bundle.manifest.tasks), "router.onnx", "router.device.onnx"]:
        assert constant_nodes(ir.load(bundle.folder / file)) == []
        model = onnx.load(bundle.folder / file, load_external_data=False)
        onnx.checker.check_model(str(bundle.folder / file), full_check=True)
        inline = [
            tensor for tensor in model.graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL
        ]
        assert all(len(tensor.SerializeToString()) < 6000 for tensor in inline)
        assert external(bundle.folder, file)
        assert not model.metadata_props
        assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_task_graph_takes_kilobytes(exported: Get, name: str) -> None:
    bundle = exported(name)
    assert all((bundle.folder / entry.graph).stat().st_size < 20_000 for entry in bundle.manifest.tasks)


@pytest.mark.parametrize("name", list(MODELS))
def test_no_file_names_the_machine_it_was_made_on(exported: Get, name: str) -> None:
    folder = exported(name).folder
    for path in folder.iterdir():
        content = path.read_bytes()
        assert str(folder.parent).encode() not in content
        assert str(Path(__file__).parents[2]).encode() not in content


@pytest.mark.parametrize("name", ["features", "lstm"])
def test_two_exports_of_a_model_are_identical_byte_for_byte(exported: Get, tmp_path: Path, name: str) -> None:
    first = exported(name)
    publish(first.model, tmp_path / "again", name=name)
    for path in first.folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_sizes_add_up(exported: Get) -> None:
    bundle = exported("features")
    sizes = bundle.manifest.sizes
    stored = load_file(bundle.folder / WEIGHTS)
    assert sizes["weights"] == sum(array.nbytes for array in stored.values())
    assert sizes["router"] == (bundle.folder / "router.onnx").stat().st_size
    graphs = [bundle.folder / entry.graph for entry in bundle.manifest.tasks]
    assert sizes["graphs"] == sum(path.stat().st_size for path in graphs)
    weights = sum(length for path in graphs for _, length in external(bundle.folder, path.name).values())
    assert weights < sizes["standalone"] < sizes["graphs"] + weights
    expert = sum(tensor.numel() for tensor in bundle.model.banks[2].tensors[0].values()) * 4
    assert sizes["dense"] == sizes["weights"] + 3 * expert


def test_the_tokenizer_and_the_metrics_come_along(tmp_path: Path) -> None:
    model = MODELS["bag"]()
    (tmp_path / "words.json").write_text('{"a": 1}')
    manifest = publish(
        model,
        tmp_path / "bundle",
        text=(tmp_path / "words.json", TextSpec(tokenizer="tokenizer.json", max_length=50)),
        metrics={"dvd": {"test": {"accuracy": 0.5, "auc": float("nan")}}},
    )
    assert (tmp_path / "bundle" / "tokenizer.json").read_text() == '{"a": 1}'
    assert manifest.text is not None
    assert manifest.text.max_length == 50
    assert manifest.files["tokenizer.json"].length == 8
    assert {entry.task.name: entry.metrics for entry in manifest.tasks}["dvd"] == {"test": {"accuracy": 0.5}}


def test_what_the_runtime_would_refuse_is_not_exported(exported: Get, tmp_path: Path) -> None:
    """A block that traces to a loop fails its export, and not the first load."""
    bundle = exported("features")
    shutil.copy(bundle.folder / WEIGHTS, tmp_path)
    model = onnx.load(bundle.folder / ROUTER_FILE, load_external_data=False)
    graphs.loop(model, random.Random(0), tmp_path, tmp_path)  # noqa: S311 - not a secret
    index = read_index(tmp_path / WEIGHTS)
    with pytest.raises(ExportError, match=r"has a Loop.*change the block's forward"):
        _write_graph(tmp_path / "router.onnx", ir.from_proto(model), index)
    assert not (tmp_path / "router.onnx").exists()
