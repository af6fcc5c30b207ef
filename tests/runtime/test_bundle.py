from __future__ import annotations

import json
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
        (b'{"schema_version": 3}', "upgrade coterie"),
        (b'{"schema_version": 1}', "not valid"),
        (b"[" * 200_000, "nested too deeply|not JSON"),
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
