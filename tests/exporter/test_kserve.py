"""What KServe gets: resources of the published form, and a model folder that its runtimes can serve."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from tests.exporter.conftest import Exported
from typer.testing import CliRunner

from coterie.cli.main import app
from coterie.exporter import export_kserve
from coterie.exporter._kserve import service_name
from coterie.runtime import load
from coterie.runtime.errors import BundleError, ExportError

# The parts of KServe's resource definitions (serving.kserve.io) that an export uses; a field that is not in
# them is refused.


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _Metadata(_Strict):
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)


class _Format(_Strict):
    name: str


class _Model(_Strict):
    model_format: _Format
    protocol_version: Literal["v1", "v2", "grpc-v1", "grpc-v2"]
    storage_uri: str
    runtime: str | None = None


class _Predictor(_Strict):
    model: _Model


class _ServiceSpec(_Strict):
    predictor: _Predictor


class _InferenceService(_Strict):
    api_version: Literal["serving.kserve.io/v1beta1"]
    kind: Literal["InferenceService"]
    metadata: _Metadata
    spec: _ServiceSpec


class _SupportedFormat(_Strict):
    name: str
    version: str
    auto_select: bool


class _HttpGet(_Strict):
    path: str
    port: int


class _Probe(_Strict):
    http_get: _HttpGet


class _Port(_Strict):
    name: str = Field(max_length=15)
    container_port: int
    protocol: Literal["TCP"]


class _Container(_Strict):
    name: Literal["kserve-container"]
    image: str
    command: list[str]
    args: list[str]
    ports: list[_Port]
    readiness_probe: _Probe
    liveness_probe: _Probe
    security_context: dict[str, Any]
    resources: dict[str, dict[str, str]]


class _RuntimeSpec(_Strict):
    annotations: dict[str, str]
    supported_model_formats: list[_SupportedFormat]
    protocol_versions: list[Literal["v1", "v2", "grpc-v1", "grpc-v2"]]
    containers: list[_Container]


class _ServingRuntime(_Strict):
    api_version: Literal["serving.kserve.io/v1alpha1"]
    kind: Literal["ServingRuntime"]
    metadata: _Metadata
    spec: _RuntimeSpec


def _read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bundle(exported: Callable[[str], Exported]) -> Exported:
    return exported("features")


@pytest.fixture(scope="module")
def service(bundle: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kserve") / "service"
    assert export_kserve(bundle.folder, folder, storage_uri="s3://models/f", image="coterie:1") == "features"
    return folder


def test_the_resources_are_of_the_published_form(service: Path) -> None:
    isvc = _InferenceService.model_validate(_read(service / "inference-service.yaml"))
    runtime = _ServingRuntime.model_validate(_read(service / "serving-runtime.yaml"))
    model = isvc.spec.predictor.model
    assert model.storage_uri == "s3://models/f"
    assert model.runtime == runtime.metadata.name
    assert model.model_format.name in {each.name for each in runtime.spec.supported_model_formats}
    assert model.protocol_version in runtime.spec.protocol_versions
    (container,) = runtime.spec.containers
    assert container.image == "coterie:1"
    assert container.ports[0].container_port == container.readiness_probe.http_get.port
    assert f"--http-port={container.ports[0].container_port}" in container.args


def test_the_container_s_command_is_one_that_coterie_takes(service: Path) -> None:
    """It gets as far as the folder, which is not here: every option was understood."""
    (container,) = _read(service / "serving-runtime.yaml")["spec"]["containers"]
    assert container["command"] == ["coterie"]
    assert container["args"][1] == "/mnt/models"
    done = CliRunner().invoke(
        app, [each.replace("/mnt/models", "/mnt/nowhere") for each in container["args"]]
    )
    assert done.exit_code == 2
    assert "there is no folder /mnt/nowhere" in done.output


def test_what_lies_in_storage_is_the_bundle(bundle: Exported, service: Path) -> None:
    engine = load(service / "model", threads=1)
    task = bundle.manifest.tasks[0].task
    row = np.arange(len(bundle.samples))
    wanted = bundle.wanted(row, np.zeros_like(row))[:, : task.width]
    np.testing.assert_allclose(engine.predict(task.name, bundle.samples).scores, wanted, atol=1e-4)


def test_for_triton_it_is_a_model_repository(bundle: Exported, tmp_path: Path) -> None:
    export_kserve(bundle.folder, tmp_path / "service", storage_uri="pvc://models/f", runtime="triton")
    assert sorted(path.name for path in (tmp_path / "service").iterdir()) == [
        "inference-service.yaml",
        "model",
    ]
    isvc = _InferenceService.model_validate(_read(tmp_path / "service" / "inference-service.yaml"))
    assert isvc.spec.predictor.model.model_format.name == "triton"
    for entry in bundle.manifest.tasks:
        assert (tmp_path / "service" / "model" / Path(entry.graph).stem / "config.pbtxt").is_file()


@pytest.mark.parametrize(
    "name", ["digits", "Digits_v2.1", "0-9", "x" * 100, "a" + "-" * 60 + "b", "...", "A--"]
)
def test_every_bundle_s_name_makes_one_that_kubernetes_takes(name: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", service_name(name))


def test_what_cannot_be_written_is_refused(bundle: Exported, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="container image"):
        export_kserve(bundle.folder, tmp_path / "one", storage_uri="s3://models/f")
    with pytest.raises(ExportError, match="no storage URI"):
        export_kserve(bundle.folder, tmp_path / "two", storage_uri="models/f", image="coterie:1")
    with pytest.raises(BundleError, match="not a coterie bundle"):
        export_kserve(tmp_path, tmp_path / "three", storage_uri="s3://models/f", image="coterie:1")
    assert list(tmp_path.iterdir()) == []
