"""One task as one file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.exporter.conftest import Exported
from tests.exporter.models import MODELS

from coterie.exporter import export_kserve, export_standalone, export_triton
from coterie.runtime.errors import BundleError, IntegrityError, UnknownTaskError
from coterie.runtime.manifest import MANIFEST, WEIGHTS, Manifest
from coterie.training.several import apply

Get = Callable[[str], Exported]

NODE_PACKAGE = "onnxruntime-node@1.30.0"
NODE_PROGRAM = Path(__file__).with_name("ask.cjs")


@pytest.mark.parametrize("name", list(MODELS))
def test_a_standalone_file_answers_alone_in_another_folder(exported: Get, tmp_path: Path, name: str) -> None:
    bundle = exported(name)
    entry = bundle.manifest.tasks[-1]
    export_standalone(bundle.folder, entry.task.name, tmp_path / "alone.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["alone.onnx"]
    model = onnx.load(tmp_path / "alone.onnx", load_external_data=False)
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    session = bundle.session("alone.onnx", tmp_path)
    (scores,) = session.run(["scores"], bundle.feeds())
    wanted = bundle.model.scores(
        len(bundle.manifest.tasks) - 1, apply(torch.from_numpy, bundle.samples)
    ).numpy()
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)


def test_the_manifest_s_standalone_size_is_that_of_the_files(exported: Get, tmp_path: Path) -> None:
    bundle = exported("features")
    total = 0
    for entry in bundle.manifest.tasks:
        export_standalone(bundle.folder, entry.task.name, tmp_path / "alone.onnx")
        total += (tmp_path / "alone.onnx").stat().st_size
    assert total == pytest.approx(bundle.manifest.sizes["standalone"], rel=0.01)


def test_an_unknown_task_is_refused_with_the_names_there_are(exported: Get, tmp_path: Path) -> None:
    with pytest.raises(UnknownTaskError, match="no task 'nobody': there are 'a', 'b'"):
        export_standalone(exported("features").folder, "nobody", tmp_path / "alone.onnx")
    with pytest.raises(BundleError, match="not a coterie bundle"):
        export_standalone(tmp_path, "a", tmp_path / "alone.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_altered_bundle_is_refused(exported: Get, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported("features").folder, folder)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(IntegrityError, match="altered"):
        export_standalone(folder, "a", tmp_path / "alone.onnx")
    assert not (tmp_path / "alone.onnx").exists()


@pytest.mark.parametrize(
    "door",
    [
        lambda folder, place: export_standalone(folder, "a", place / "alone.onnx"),
        lambda folder, place: export_triton(folder, place / "repository"),
        lambda folder, place: export_kserve(folder, place / "service", storage_uri="s3://m/f", image="c:1"),
    ],
)
def test_a_stranger_s_bundle_that_names_a_file_outside_is_refused(
    exported: Get, tmp_path: Path, door: Callable[[Path, Path], object]
) -> None:
    folder, place = tmp_path / "bundle", tmp_path / "place"
    shutil.copytree(exported("features").folder, folder)
    place.mkdir()
    (tmp_path / "evil.txt").write_text("evil")
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    raw["files"]["../evil.txt"] = {"length": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
    forged = Manifest.model_validate({key: value for key, value in raw.items() if key != "checksum"})
    (folder / MANIFEST).write_text(forged.dumps(), encoding="utf-8")
    with pytest.raises(IntegrityError, match="evil"):
        door(folder, place)
    assert list(place.iterdir()) == []


@pytest.fixture(scope="session")
def node_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ONNX Runtime for Node.js."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("there is no Node.js with npm here")
    folder = tmp_path_factory.mktemp("node")
    quiet = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
    command = [npm, "install", *quiet, "--prefix", str(folder), NODE_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {NODE_PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"


@pytest.mark.slow
def test_node_answers_as_python_does(exported: Get, node_packages: Path, tmp_path: Path) -> None:
    questions, wanted = [], []
    for name in MODELS:
        bundle = exported(name)
        file = tmp_path / f"{name}.onnx"
        export_standalone(bundle.folder, bundle.manifest.tasks[0].task.name, file)
        feeds = bundle.feeds()
        inputs = [
            {"name": name, "type": array.dtype.name, "shape": array.shape, "data": array.ravel().tolist()}
            for name, array in feeds.items()
        ]
        questions.append({"file": str(file), "inputs": inputs})
        session = bundle.session(file.name, tmp_path)
        names = [output.name for output in session.get_outputs()]
        wanted.append(dict(zip(names, session.run(names, feeds), strict=True)))
    done = subprocess.run(
        [shutil.which("node") or "node", str(NODE_PROGRAM)],
        input=json.dumps(questions),
        env={**os.environ, "NODE_PATH": str(node_packages)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert len(answers) == len(MODELS)
    for answer, outputs in zip(answers, wanted, strict=True):
        assert answer.keys() == outputs.keys()
        for key, values in outputs.items():
            assert answer[key]["shape"] == list(values.shape)
            got = np.array(answer[key]["data"], dtype=np.float32).reshape(values.shape)
            np.testing.assert_allclose(got, values, rtol=1e-5, atol=1e-5)
