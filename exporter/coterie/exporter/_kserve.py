"""A bundle for KServe: what lies in storage, and the resources that serve it.

destination/
  model/                    goes to the storage URI; KServe brings its content to /mnt/models
  serving-runtime.yaml      how to serve the format "coterie", once a namespace; not for Triton
  inference-service.yaml    this bundle as a service

With the runtime ``coterie``, ``model/`` is the bundle; one process answers for every task. With ``triton`` it
is a model repository, for the runtime that KServe brings along.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Literal

import yaml

from coterie.exporter._publish import staged_folder
from coterie.exporter._triton import export_triton
from coterie.runtime.bundle import Bundle, load_bundle
from coterie.runtime.errors import ExportError
from coterie.runtime.manifest import MANIFEST, SIGNATURE

Runtime = Literal["coterie", "triton"]

MODEL = "model"
SERVING_RUNTIME = "serving-runtime.yaml"
INFERENCE_SERVICE = "inference-service.yaml"

_MOUNT = "/mnt/models"
"""Where KServe puts what lies at the storage URI."""
_HTTP_PORT, _GRPC_PORT = 8080, 9000
_LONGEST_NAME = 50
"""KServe puts endings such as -predictor behind it, and a label of a host name has at most 63 characters."""
_RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}


def export_kserve(
    bundle: Bundle | Path,
    destination: Path,
    *,
    storage_uri: str,
    image: str | None = None,
    runtime: Runtime = "coterie",
) -> str:
    """Write what KServe needs to serve a bundle.

    Args:
        bundle: The bundle, or its folder.
        destination: The folder to write, which must not exist. It appears whole or not at all.
        storage_uri: Where the content of ``model/`` will lie, such as ``s3://models/digits`` or
            ``pvc://models/digits``.
        image: Container image with ``coterie[serve]`` in it; for the runtime ``coterie``.
        runtime: ``coterie``, or ``triton`` for KServe's Triton Inference Server.

    Returns:
        The name of the service.

    Raises:
        BundleError: If the folder holds no bundle, or one that is damaged or forged.
        ExportError: If an option is missing, or the folder cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", storage_uri):
        raise ExportError(f"{storage_uri!r} is no storage URI: give one such as s3://models/digits")
    if runtime == "coterie" and not image:
        raise ExportError("KServe needs a container image with coterie[serve] in it: name it, or use Triton")
    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle)
    name = service_name(bundle.manifest.name)
    with staged_folder(Path(destination), overwrite=False) as folder:
        if runtime == "coterie":
            (folder / MODEL).mkdir()
            for file in (*bundle.manifest.files, MANIFEST, SIGNATURE):
                if file != SIGNATURE or (bundle.path / file).is_file():
                    shutil.copyfile(bundle.path / file, folder / MODEL / file)
            _write(folder / SERVING_RUNTIME, _serving_runtime(image or ""))
        else:
            export_triton(bundle, folder / MODEL)
        _write(folder / INFERENCE_SERVICE, _inference_service(name, storage_uri, runtime))
    return name


def service_name(name: str) -> str:
    """Return a bundle's name as Kubernetes takes it: small letters, digits and hyphens, a letter first."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not safe[:1].isalpha():
        safe = f"bundle-{safe}".rstrip("-")
    return safe[:_LONGEST_NAME].rstrip("-")


def _inference_service(name: str, storage_uri: str, runtime: Runtime) -> dict[str, Any]:
    model: dict[str, Any] = {
        "modelFormat": {"name": runtime},
        "protocolVersion": "v2",
        "storageUri": storage_uri,
    }
    if runtime == "coterie":
        model["runtime"] = "coterie"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"model": model}},
    }


def _serving_runtime(image: str) -> dict[str, Any]:
    ports = [f"--http-port={_HTTP_PORT}", f"--grpc-port={_GRPC_PORT}"]
    container = {
        "name": "kserve-container",
        "image": image,
        "command": ["coterie"],
        "args": ["serve", _MOUNT, "--host=0.0.0.0", *ports],
        "ports": [{"name": "http1", "containerPort": _HTTP_PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": _HTTP_PORT}},
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": _HTTP_PORT}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
        },
        "resources": _RESOURCES,
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "coterie"},
        "spec": {
            "annotations": {
                "prometheus.kserve.io/path": "/metrics",
                "prometheus.kserve.io/port": str(_HTTP_PORT),
            },
            "supportedModelFormats": [{"name": "coterie", "version": "1", "autoSelect": True}],
            "protocolVersions": ["v2", "grpc-v2"],
            "containers": [container],
        },
    }


def _write(file: Path, resource: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(resource, sort_keys=False), encoding="utf-8")
