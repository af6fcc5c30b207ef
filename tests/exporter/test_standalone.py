"""One task as one file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.exporter.conftest import Exported
from tests.exporter.models import MODELS

from coterie.exporter import export_standalone
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import WEIGHTS

Get = Callable[[str], Exported]


@pytest.mark.parametrize("name", list(MODELS))
def test_a_standalone_file_answers_alone_in_another_folder(exported: Get, tmp_path: Path, name: str) -> None:
    bundle = exported(name)
    entry = bundle.manifest.tasks[-1]
    export_standalone(bundle.folder, entry.task.name, tmp_path / "alone.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["alone.onnx"]
    model = onnx.load(tmp_path / "alone.onnx", load_external_data=False)
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    session = bundle.session("alone.onnx", tmp_path)
    (scores,) = session.run(["scores"], {bundle.model.input.name: bundle.samples})
    wanted = bundle.model.scores(len(bundle.manifest.tasks) - 1, torch.from_numpy(bundle.samples)).numpy()
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)


def test_the_manifest_s_standalone_size_is_that_of_the_files(exported: Get, tmp_path: Path) -> None:
    bundle = exported("features")
    total = 0
    for entry in bundle.manifest.tasks:
        export_standalone(bundle.folder, entry.task.name, tmp_path / "alone.onnx")
        total += (tmp_path / "alone.onnx").stat().st_size
    assert total == pytest.approx(bundle.manifest.sizes["standalone"], rel=0.01)


def test_an_unknown_task_is_refused_with_the_names_there_are(exported: Get, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no task 'nobody'; it has 'a', 'b'"):
        export_standalone(exported("features").folder, "nobody", tmp_path / "alone.onnx")
    with pytest.raises(ExportError, match="not a bundle"):
        export_standalone(tmp_path, "a", tmp_path / "alone.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_altered_bundle_is_refused(exported: Get, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported("features").folder, folder)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ExportError, match="not as it was written"):
        export_standalone(folder, "a", tmp_path / "alone.onnx")
    assert not (tmp_path / "alone.onnx").exists()
