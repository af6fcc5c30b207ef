"""A Triton model repository: parsed by Triton's own configuration message, its graphs run where they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from tests.exporter.conftest import Exported
from tritonclient.grpc import model_config_pb2

from coterie.exporter import export_triton
from coterie.runtime.errors import BundleError, ExportError, UnknownTaskError

_DTYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8"}


def _config(folder: Path) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), config)
    return config


def _session(folder: Path) -> ort.InferenceSession:
    model = folder / "1" / "model.onnx"
    # A model of several files is a folder of that name, and its graph has the same name in it.
    file = model / "model.onnx" if model.is_dir() else model
    return ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=["features", "several"])
def bundle(request: pytest.FixtureRequest, exported: Callable[[str], Exported]) -> Exported:
    return exported(request.param)


@pytest.fixture(scope="module")
def repository(bundle: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "repository"
    names = export_triton(bundle.folder, folder)
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    assert names[0] == "router"
    return folder


def test_every_model_is_configured_as_its_graph_is(repository: Path) -> None:
    for folder in repository.iterdir():
        config, session = _config(folder), _session(folder)
        assert (config.name, config.backend) == (folder.name, "onnxruntime")
        batched = config.max_batch_size > 0
        assert batched == (folder.name != "router")
        assert config.HasField("dynamic_batching") == batched
        for told, graph in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert [tensor.name for tensor in told] == [value.name for value in graph]
            for tensor, value in zip(told, graph, strict=True):
                assert model_config_pb2.DataType.Name(tensor.data_type) == _DTYPES[value.type]
                dims = [size if isinstance(size, int) else -1 for size in value.shape]
                assert list(tensor.dims) == (dims[1:] if batched else dims)


def test_the_router_answers_from_the_repository(bundle: Exported, repository: Path) -> None:
    files = sorted(
        path.relative_to(repository) for path in (repository / "router").rglob("*") if path.is_file()
    )
    assert [str(path) for path in files] == [
        "router/1/model.onnx/model.onnx",
        "router/1/model.onnx/weights.safetensors",
        "router/config.pbtxt",
    ]
    count = len(next(iter(bundle.feeds().values())))
    row, task = np.arange(count), np.arange(count) % len(bundle.manifest.tasks)
    answer = _session(repository / "router").run(["scores"], {**bundle.feeds(), "row": row, "task": task})[0]
    np.testing.assert_allclose(answer, bundle.wanted(row, task), atol=1e-4)


def test_a_task_stands_alone_and_names_its_labels(bundle: Exported, repository: Path) -> None:
    for number, entry in enumerate(bundle.manifest.tasks):
        folder = repository / Path(entry.graph).stem
        assert [path.name for path in (folder / "1").iterdir()] == ["model.onnx"]
        answer = _session(folder).run(["scores"], bundle.feeds())[0]
        row = np.arange(21)
        wanted = bundle.wanted(row, np.full_like(row, number))[:, : entry.task.width]
        np.testing.assert_allclose(answer, wanted, atol=1e-4)
        files = {tensor.label_filename for tensor in _config(folder).output}
        if entry.task.kind == "regression":
            assert files == {""}
        else:
            assert files == {"labels.txt"}
            lines = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
            assert lines == list(entry.task.labels)


def test_only_the_tasks_asked_for(bundle: Exported, tmp_path: Path) -> None:
    task = bundle.manifest.tasks[1].task.name
    names = export_triton(bundle.folder, tmp_path / "repository", tasks=[task], max_batch_size=8)
    assert names == ["router", Path(bundle.graph(task)).stem]
    assert _config(tmp_path / "repository" / names[1]).max_batch_size == 8


def test_what_cannot_be_written_is_refused(bundle: Exported, tmp_path: Path) -> None:
    with pytest.raises(UnknownTaskError, match="no task 'nobody'"):
        export_triton(bundle.folder, tmp_path / "one", tasks=["nobody"])
    with pytest.raises(BundleError, match="not a coterie bundle"):
        export_triton(tmp_path, tmp_path / "two")
    (tmp_path / "three").mkdir()
    with pytest.raises(ExportError, match="exists"):
        export_triton(bundle.folder, tmp_path / "three")
    assert not (tmp_path / "one").exists()
