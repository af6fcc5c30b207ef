"""What both transports tell of the models beside their metadata: Triton's configuration, and the index."""

from __future__ import annotations

from typing import Any, NoReturn

from coterie.runtime.serving._failures import RefusedError
from coterie.runtime.serving.models._metadata import PLATFORM, ModelInfo
from coterie.runtime.serving.models._models import Models

_BACKEND = "onnxruntime"


def config(info: ModelInfo) -> dict[str, Any]:
    """Return a model's inputs and outputs, by the names of Triton's ``ModelConfig``.

    ``max_batch_size`` is 0: the shapes are whole, and rows are bounded by the server and not by the model.
    """
    inputs = [_tensor(spec.name, spec.datatype, spec.shape) for spec in info.inputs]
    for tensor in inputs:
        if tensor["name"] in info.optional:
            tensor["optional"] = True
    return {
        "name": info.name,
        "platform": PLATFORM,
        "backend": _BACKEND,
        "max_batch_size": 0,
        "input": inputs,
        "output": [_tensor(spec.name, spec.datatype, spec.shape) for spec in info.outputs],
    }


def index(models: Models, *, ready: bool) -> list[dict[str, str]]:
    """Return every model of every loaded version with its state; with ``ready``, only those that can answer.

    Of a version that could not be loaded, every model that the served one has is said to be unavailable.
    """
    if ready and not models.ready:
        return []
    state = {"state": "READY", "reason": ""} if models.ready else {"state": "LOADING", "reason": "warming up"}
    entries = [
        {"name": name, "version": number, **state}
        for number, version in models.loaded.items()
        for name in version.names
    ]
    failed = [] if ready else models.failed.items()
    return entries + [
        {"name": name, "version": number, "state": "UNAVAILABLE", "reason": why}
        for number, why in failed
        for name in models.names
    ]


def refuse_to_load() -> NoReturn:
    """Refuse to load or unload a model at a client's word.

    Raises:
        RefusedError: Always.
    """
    raise RefusedError(
        "this server loads and unloads no models for clients: what it serves is for whoever runs it to change"
    )


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, Any]:
    kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    return {"name": name, "data_type": kind, "dims": list(shape)}
