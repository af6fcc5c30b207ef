"""Every task, and the router, as a model: named tensors in, named tensors out, on no particular transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from coterie.runtime._prediction import Prediction
from coterie.runtime.batching import Batcher
from coterie.runtime.errors import InvalidInputError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.serving._classification import classify
from coterie.runtime.serving._failures import TooLargeError
from coterie.runtime.serving._statistics import Statistics
from coterie.runtime.serving._tensors import Array, Tensor, as_bytes, as_texts
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

_DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}


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


@dataclass(frozen=True)
class Question:
    """A request: a model, its inputs, and which outputs to give (all, if none is named).

    ``timeout`` is after how many seconds nobody wants the answer any more; ``classes`` says of which outputs
    only so many of the likeliest classes are wanted.
    """

    model: str
    inputs: Mapping[str, Tensor]
    version: str = ""
    outputs: tuple[str, ...] = ()
    timeout: float | None = None
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The tensors that a model gives."""

    model: str
    outputs: dict[str, Tensor] = field(default_factory=dict)
    version: str = VERSION
    """The version that gave them."""


class Version:
    """The models of one version of a bundle, over the batcher that all transports share.

    Args:
        batcher: Where the questions go.
        max_rows: Most inputs, and most questions, of one request.
        number: What clients call the version.
    """

    def __init__(self, batcher: Batcher, *, max_rows: int, number: str = VERSION) -> None:
        self.batcher = batcher
        self.number = number
        self._max_rows = max_rows
        bundle = batcher.engine.bundle
        self.bundle = bundle
        self._input = _input_info(bundle.manifest.inputs[0], text=bundle.text is not None)
        self._models = {task.name: self._task_model(task) for task in bundle.tasks}
        self._models[ROUTER] = self._router_model(bundle.tasks)
        self.statistics = Statistics(self._models, number)
        self._holders = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def names(self) -> list[str]:
        """The models: every task, and the router."""
        return list(self._models)

    def __contains__(self, model: str) -> bool:
        """Return whether there is a model of that name."""
        return model in self._models

    def info(self, model: str) -> ModelInfo:
        """Return a model's metadata.

        Raises:
            UnknownTaskError: If there is no such model; the message suggests close names.
        """
        if model not in self._models:
            self.bundle.task_index(model)  # raises
        return self._models[model]

    def check_rows(self, *counts: int) -> None:
        """Check how many inputs and questions a request has.

        Raises:
            TooLargeError: If there are more than the server takes.
        """
        if max(counts) > self._max_rows:
            raise TooLargeError(
                f"{max(counts)} rows in one request: this server takes {self._max_rows}, split it"
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the version from being unloaded while something of it is asked."""
        self._holders += 1
        self._free.clear()
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._free.set()

    async def close(self) -> None:
        """Return when nobody holds the version any more, and all that it was asked is answered."""
        await self._free.wait()
        await self.batcher.close()

    async def answer(self, question: Question) -> tuple[Answer, Prediction]:
        """Answer a question; return also the prediction that the answer was made of.

        Raises:
            RequestError: If the question is wrong, or its answer too late; see ``Models.answer``.
            UnavailableError: If as much waits as may wait.
        """
        info = self.info(question.model)
        wanted = _wanted(info, question.outputs)
        _check_classes(info, question.classes)
        tensors = _checked(info, question.inputs)
        array = tensors[self._input.name]
        inputs = as_texts(TEXT, array) if self._input.datatype == "BYTES" else array
        if info.name == ROUTER:
            task = _task_argument(tensors["task"])
            row = tensors.get("row")
            self.check_rows(_rows(inputs), _rows(task))
            prediction = await self.batcher.predict_many(inputs, row, task, timeout=question.timeout)
        else:
            self.check_rows(_rows(inputs))
            prediction = await self.batcher.predict(info.name, inputs, timeout=question.timeout)
        outputs = {}
        for spec in wanted:
            tensor = Tensor(spec.datatype, _output(info, spec.name, prediction))
            count = question.classes.get(spec.name, 0)
            if count:
                tensor = Tensor("BYTES", classify(prediction, tensor.array, count))
            outputs[spec.name] = tensor
        return Answer(info.name, outputs, self.number), prediction

    def _task_model(self, task: TaskSpec) -> ModelInfo:
        each = _each(task)
        outputs = [TensorInfo("scores", "FP32", (*each, task.width))]
        if task.kind != "regression":
            outputs.append(TensorInfo("probabilities", "FP32", (*each, task.width)))
        if task.kind in ("classification", "tagging"):
            outputs.append(TensorInfo("label", "BYTES", each))
        if task.kind == "multilabel":
            outputs.append(TensorInfo("label", "UINT8", (-1, task.width)))
        return ModelInfo(task.name, (self._input,), tuple(outputs))

    def _router_model(self, tasks: tuple[TaskSpec, ...]) -> ModelInfo:
        width = max(task.width for task in tasks)
        each = _each(tasks[0])
        outputs = [TensorInfo("scores", "FP32", (*each, width))]
        if any(task.kind != "regression" for task in tasks):
            outputs.append(TensorInfo("probabilities", "FP32", (*each, width)))
            outputs.append(TensorInfo("label", "BYTES", each))
        inputs = (self._input, TensorInfo("row", "INT64", (-1,)), TensorInfo("task", "BYTES", (-1,)))
        return ModelInfo(ROUTER, inputs, tuple(outputs), optional=("row",))


def _each(task: TaskSpec) -> tuple[int, ...]:
    """Return the dimensions of what is answered: a question's; for a tagging each word of it."""
    return (-1, -1) if task.kind == "tagging" else (-1,)


def _input_info(spec: TensorSpec, *, text: bool) -> TensorInfo:
    if text:
        return TensorInfo(TEXT, "BYTES", (-1,))
    return TensorInfo(
        spec.name, _DATATYPES[spec.dtype], tuple(-1 if dim is None else dim for dim in spec.shape)
    )


def _wanted(info: ModelInfo, outputs: tuple[str, ...]) -> tuple[TensorInfo, ...]:
    if not outputs:
        return info.outputs
    known = {spec.name: spec for spec in info.outputs}
    for name in outputs:
        if name not in known:
            raise InvalidInputError(
                f"model {info.name!r} has no output {name[:80]!r}: it has {', '.join(known)}"
            )
    return tuple(known[name] for name in dict.fromkeys(outputs))


def _check_classes(info: ModelInfo, classes: Mapping[str, int]) -> None:
    for spec in info.outputs:
        if classes.get(spec.name) and spec.datatype != "FP32":
            raise InvalidInputError(
                f"output {spec.name!r} of model {info.name!r} has no classes to choose from: "
                "ask for those of 'scores' or 'probabilities'"
            )


def _checked(info: ModelInfo, inputs: Mapping[str, Tensor]) -> dict[str, Array]:
    known = {spec.name: spec for spec in info.inputs}
    for name, tensor in inputs.items():
        if name not in known:
            raise InvalidInputError(
                f"model {info.name!r} has no input {name[:80]!r}: it has {', '.join(known)}"
            )
        allowed = ("BYTES", "INT64") if info.name == ROUTER and name == "task" else (known[name].datatype,)
        if tensor.datatype not in allowed:
            raise InvalidInputError(f"input {name!r} is {tensor.datatype}: it must be {' or '.join(allowed)}")
    missing = [name for name in known if name not in inputs and name not in info.optional]
    if missing:
        raise InvalidInputError(f"model {info.name!r} needs input {', '.join(map(repr, missing))}")
    return {name: tensor.array for name, tensor in inputs.items()}


def _rows(values: Array | list[str]) -> int:
    """Return how many rows there are, of whatever shape: the engine is who refuses a shape."""
    return max(np.shape(values)[:1], default=1) if isinstance(values, np.ndarray) else len(values)


def _task_argument(array: Array) -> Array | list[str]:
    return as_texts("task", array) if array.dtype == object else array


def _output(info: ModelInfo, name: str, prediction: Prediction) -> Array:
    if name == "scores":
        return prediction.scores
    if name == "probabilities" and prediction.probabilities is not None:
        return prediction.probabilities
    if info.name == ROUTER or prediction.specs[0].kind in ("classification", "tagging"):
        texts = np.array(prediction.label_texts(), dtype=object)
        return as_bytes(texts.reshape(-1).tolist()).reshape(prediction.scores.shape[:-1])
    label = prediction.label
    if label is None:  # the metadata lists no label for a regression, so none was asked for
        raise InvalidInputError(f"model {info.name!r} has no output {name!r}")
    return label
