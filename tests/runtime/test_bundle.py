from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coterie.runtime import BundleError, CoterieError, IntegrityError, load, load_bundle
from coterie.runtime.manifest import MANIFEST, WEIGHTS

from .handmade import HandMade, edit_manifest, write_bundle, write_manifest


@pytest.fixture
def bundle(features: HandMade, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(features.path, tmp_path / "bundle"))


def test_a_whole_bundle_loads(features: HandMade, texts: HandMade) -> None:
    bundle = load_bundle(str(features.path))
    assert [task.name for task in bundle.tasks] == list(features.names)
    assert bundle.text is None
    assert load_bundle(texts.path).text is not None


def truncate(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-4])


def lengthen(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as stream:
        stream.write(b"\0")


def alter(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-3] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def swap_for_foreign(folder: Path) -> None:
    other = write_bundle(folder.parent / "other", seed=1)
    shutil.copy(other.path / WEIGHTS, folder / WEIGHTS)


def remove(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def link(folder: Path) -> None:
    shutil.move(folder / WEIGHTS, folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def link_inside(folder: Path) -> None:
    shutil.move(folder / WEIGHTS, folder / "other")
    (folder / WEIGHTS).symlink_to("other")


def make_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "truncated"),
        (lengthen, "too long"),
        (alter, "altered"),
        (swap_for_foreign, "altered or is of another bundle"),
        (remove, "missing"),
        (link, "link"),
        (link_inside, "link"),
        (make_folder, "not a regular file"),
    ],
)
def test_a_damaged_weight_file_is_refused_by_name(
    bundle: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(bundle)
    with pytest.raises(IntegrityError, match=says) as caught:
        load(bundle)
    assert WEIGHTS in str(caught.value)
    assert str(bundle.parent) not in str(caught.value)


def test_an_altered_graph_is_refused_by_name(bundle: Path) -> None:
    data = (bundle / "mood.onnx").read_bytes()
    (bundle / "mood.onnx").write_bytes(data.replace(b"Relu", b"Tanh"))
    with pytest.raises(IntegrityError, match=r"mood\.onnx.*altered"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "a\\b", "a\0b", MANIFEST])
def test_a_manifest_that_names_files_elsewhere_is_refused(bundle: Path, name: str) -> None:
    raw = json.loads((bundle / MANIFEST).read_text())
    raw["files"][name] = {"length": 1, "sha256": "0" * 64}
    edit_manifest(bundle, files=raw["files"])
    with pytest.raises(IntegrityError, match="not a file of the bundle"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["C:x", "nul\u200b.onnx", "caf\u00e9", "-rf", ".hidden", "x" * 300])
def test_a_name_that_some_file_system_reads_otherwise_is_refused(bundle: Path, name: str) -> None:
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    edit_manifest(bundle, files={**files, name: {"length": 1, "sha256": "0" * 64}})
    with pytest.raises(IntegrityError, match="not a file of the bundle"):
        load_bundle(bundle)


def test_a_graph_of_another_format_is_refused(bundle: Path) -> None:
    """ONNX Runtime takes a file of that ending for a format of its own, which nothing has looked into."""
    (bundle / "router.onnx").rename(bundle / "router.ort")
    raw = json.loads((bundle / MANIFEST).read_text())
    raw["files"]["router.ort"] = raw["files"].pop("router.onnx")
    edit_manifest(bundle, files=raw["files"], router="router.ort")
    with pytest.raises(IntegrityError, match=r"ends in \.onnx"):
        load_bundle(bundle)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_what_is_no_file_is_neither_waited_for_nor_read(
    bundle: Path, make: Callable[[Path], None], name: str
) -> None:
    (bundle / name).unlink()
    make(bundle / name)
    with pytest.raises(IntegrityError, match="not a regular file"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [WEIGHTS, "router.onnx", "tags.onnx"])
def test_a_file_that_is_needed_must_be_listed(bundle: Path, name: str) -> None:
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    del files[name]
    edit_manifest(bundle, files=files)
    with pytest.raises(IntegrityError, match=f"does not list '{name}'"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a coterie bundle"),
        (b"{}", "schema_version"),
        (b'{"schema_version": 99}', "upgrade coterie"),
        (b'{"schema_version": 1}', "not valid"),
        (b"[" * 200_000, "nested too deeply|not JSON"),
        (b'{"schema_version": 2, "schema_version": 2}', "'schema_version' stands twice"),
        (b'{"schema_version": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_broken_or_newer_manifest_is_refused(bundle: Path, content: bytes, says: str) -> None:
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=says):
        load_bundle(bundle)


def test_a_bundle_of_an_older_schema_still_loads(bundle: Path) -> None:
    stages = json.loads((bundle / MANIFEST).read_text())["plan"]["stages"]
    for stage in stages:
        # What version 2 added.
        del stage["combine"], stage["columns"]
    tasks = json.loads((bundle / MANIFEST).read_text())["plan"]["tasks"]
    edit_manifest(bundle, schema_version=1, plan={"tasks": tasks, "stages": stages})
    assert load_bundle(bundle).manifest.schema_version == 1


def test_a_manifest_that_was_damaged_is_refused(bundle: Path) -> None:
    """A label's letters are in no file's checksum."""
    file = bundle / MANIFEST
    file.write_text(file.read_text().replace('"sport"', '"spork"'))
    with pytest.raises(BundleError, match="checksum differs"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "shape", [[None, 1 << 40], [None, -1], [None, 0], [4, 4], [], [None] * 40, [None, 1 << 15, 1 << 15]]
)
def test_sizes_that_no_input_has_are_refused(bundle: Path, shape: list[int | None]) -> None:
    edit_manifest(bundle, inputs=[{"name": "features", "dtype": "float32", "shape": shape}])
    with pytest.raises(BundleError, match="is of no input"):
        load_bundle(bundle)


FEATURES = {"name": "features", "dtype": "float32", "shape": [None, 4]}


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([FEATURES, FEATURES], "have one name"),
        ([FEATURES, FEATURES | {"name": "task"}], "have one name"),
        ([FEATURES, FEATURES | {"name": "ids", "dtype": "int64"}], None),
    ],
)
def test_inputs_that_could_not_be_told_apart_are_refused(
    bundle: Path, inputs: list[dict[str, Any]], says: str | None
) -> None:
    edit_manifest(bundle, inputs=inputs)
    if says is None:
        assert len(load_bundle(bundle).manifest.inputs) == len(inputs)
    else:
        with pytest.raises(BundleError, match=says):
            load_bundle(bundle)


def test_a_text_goes_into_one_input_of_tokens(texts: HandMade, tmp_path: Path) -> None:
    text_bundle = Path(shutil.copytree(texts.path, tmp_path / "bundle"))
    inputs = json.loads((text_bundle / MANIFEST).read_text())["inputs"]
    for wrong in ([FEATURES], [*inputs, inputs[0] | {"name": "more"}]):
        edit_manifest(text_bundle, inputs=wrong)
        with pytest.raises(BundleError, match="text needs one int64 token input"):
            load_bundle(text_bundle)


def test_an_answer_of_another_width_is_refused(bundle: Path) -> None:
    """The graphs and the manifest may each be well made, and not belong together."""
    tasks = json.loads((bundle / MANIFEST).read_text())["tasks"]
    tasks[0]["task"]["labels"].append("weather")
    edit_manifest(bundle, tasks=tasks)
    for mode in ("router", "task"):
        with pytest.raises(BundleError, match="a graph answered with"):
            load(bundle, mode=mode).predict("topic", [[0.0] * 4])


def test_probabilities_past_a_task_s_width_are_refused(bundle: Path) -> None:
    tasks = json.loads((bundle / MANIFEST).read_text())["tasks"]
    # The router's widest task stays as wide; this one becomes narrower than its head is.
    tasks[2]["task"]["labels"].pop()
    edit_manifest(bundle, tasks=tasks)
    with pytest.raises(BundleError, match="probabilities that are none"):
        load(bundle).predict("tags", [[0.0] * 4])


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        load_bundle(tmp_path)
    with pytest.raises(BundleError, match="there is no bundle"):
        load_bundle(tmp_path / "nowhere")


def test_a_plan_of_other_tasks_is_refused(bundle: Path) -> None:
    plan = json.loads((bundle / MANIFEST).read_text())["plan"]
    plan["tasks"] = plan["tasks"][::-1]
    edit_manifest(bundle, plan=plan)
    with pytest.raises(BundleError, match="other tasks"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tensor": "nowhere"}, "no tensor"),
        ({"offset": 4}, "past its tensor"),
        ({"shape": [1 << 40, 1 << 40]}, "past its tensor"),
        ({"shape": [-1, 6]}, "past its tensor"),
    ],
)
def test_a_tensor_outside_the_weight_file_is_refused(bundle: Path, change: dict[str, Any], says: str) -> None:
    tensors = json.loads((bundle / MANIFEST).read_text())["tensors"]
    tensors["trunk/0"][0] |= change
    edit_manifest(bundle, tensors=tensors)
    with pytest.raises(IntegrityError, match=says):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10\0\0\0\0\0\0\0{}",
        b"\xff" * 64,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0\xff\xff",
        b"\x09\0\0\0\0\0\0\0" + b'{"a": {}}',
        *(
            len(header).to_bytes(8, "little") + header + bytes(8)
            for header in (
                b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 16]}}',
                b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}',
                b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [false, 8]}}',
                b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": {}}',
                b'{"a": {"dtype": "F32", "shape": ['
                + b"9223372036854775807," * 50_000
                + b'1], "data_offsets": [0, 8]}}',
                b"[" * 100_000,
            )
        ),
    ],
)
def test_a_weight_file_that_is_no_safetensors_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / WEIGHTS).write_bytes(content)
    write_manifest(bundle, text=False)
    with pytest.raises(IntegrityError, match="not a safetensors file"):
        load_bundle(bundle)


@pytest.mark.parametrize("graph", [b"", b"nonsense", b"\0" * 100])
def test_a_graph_that_onnx_runtime_refuses_names_no_path(bundle: Path, graph: bytes) -> None:
    (bundle / "router.onnx").write_bytes(graph)
    write_manifest(bundle, text=False)
    with pytest.raises(CoterieError, match=r"router\.onnx") as caught:
        load(bundle)
    assert str(bundle) not in str(caught.value)


def test_a_graph_of_another_kind_is_refused(bundle: Path) -> None:
    write_manifest(bundle, text=False, inputs=[{"name": "pixels", "dtype": "uint8", "shape": [None, 4]}])
    with pytest.raises(BundleError, match="a bundle's graph takes"):
        load(bundle)
