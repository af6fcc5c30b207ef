"""What is told of a model: its tensors, by the names and datatypes of the Open Inference Protocol."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.runtime.bundle import Bundle
from coterie.runtime.engine._inputs import takes_text
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import ROUTER, TaskSpec

VERSION = "1"
"""Of a bundle that is served by itself, and not from a store."""
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository(index)",
    "statistics",
)
"""What the server can do beyond the protocol itself, by Triton's names; of the repository only its index."""
TEXT = "text"

DATATYPE_OF = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelInfo:
    """A model's metadata."""

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    optional: tuple[str, ...] = ()
    """Inputs that may be left out."""
    versions: tuple[str, ...] = (VERSION,)
    """The versions that are loaded and have the model, the one last added last."""


def input_infos(bundle: Bundle) -> tuple[TensorInfo, ...]:
    """Return what every model of a bundle is asked about."""
    return tuple(_input_info(bundle, spec) for spec in bundle.manifest.inputs)


def model_infos(bundle: Bundle) -> dict[str, ModelInfo]:
    """Return the models of a bundle by their names: every task, and the router."""
    inputs = input_infos(bundle)
    models = {task.name: _task_model(task, inputs) for task in bundle.tasks}
    return models | {ROUTER: _router_model(bundle.tasks, inputs)}


def _task_model(task: TaskSpec, inputs: tuple[TensorInfo, ...]) -> ModelInfo:
    each = _each(task)
    outputs = [TensorInfo("scores", "FP32", (*each, task.width))]
    if task.kind != "regression":
        outputs.append(TensorInfo("probabilities", "FP32", (*each, task.width)))
    if task.kind in ("classification", "tagging"):
        outputs.append(TensorInfo("label", "BYTES", each))
    if task.kind == "multilabel":
        outputs.append(TensorInfo("label", "UINT8", (-1, task.width)))
    return ModelInfo(task.name, inputs, tuple(outputs))


def _router_model(tasks: tuple[TaskSpec, ...], inputs: tuple[TensorInfo, ...]) -> ModelInfo:
    width = max(task.width for task in tasks)
    each = _each(tasks[0])
    outputs = [TensorInfo("scores", "FP32", (*each, width))]
    if any(task.kind != "regression" for task in tasks):
        outputs.append(TensorInfo("probabilities", "FP32", (*each, width)))
        outputs.append(TensorInfo("label", "BYTES", each))
    asked = (*inputs, TensorInfo("row", "INT64", (-1,)), TensorInfo("task", "BYTES", (-1,)))
    return ModelInfo(ROUTER, asked, tuple(outputs), optional=("row",))


def _each(task: TaskSpec) -> tuple[int, ...]:
    """Return the dimensions of what is answered: a question's; for a tagging each word of it."""
    return (-1, -1) if task.kind == "tagging" else (-1,)


def _input_info(bundle: Bundle, spec: TensorSpec) -> TensorInfo:
    if takes_text(bundle, spec):
        alone = len(bundle.manifest.inputs) == 1
        return TensorInfo(TEXT if alone else spec.name, "BYTES", (-1,))
    return TensorInfo(
        spec.name, DATATYPE_OF[spec.dtype], tuple(-1 if dim is None else dim for dim in spec.shape)
    )
