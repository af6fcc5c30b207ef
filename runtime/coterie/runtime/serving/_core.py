"""Every task, and the router, as a model: named tensors in, named tensors out, on no particular transport."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from coterie.runtime._prediction import Prediction
from coterie.runtime.batching import Batcher
from coterie.runtime.errors import InvalidInputError, UnavailableError, UnknownTaskError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.serving._classification import classify
from coterie.runtime.serving._failures import TooLargeError, failure_of
from coterie.runtime.serving._statistics import Statistics
from coterie.runtime.serving._tensors import Array, Tensor, as_bytes, as_texts
from coterie.runtime.tasks import ROUTER, TaskSpec

VERSION = "1"
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

T = TypeVar("T")

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


@dataclass(frozen=True)
class Question:
    """A request: a model, its inputs, and which outputs to give (all, if none is named).

    ``timeout`` is after how many seconds nobody wants the answer any more; ``classes`` is of which outputs only
    so many of the likeliest classes are wanted.
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


class Observer(Protocol):
    """Is told of every request, for metrics."""

    def observe(self, *, model: str, transport: str, outcome: str, questions: int, seconds: float) -> None:
        """Take note of one request; ``model`` is one of the bundle's, or ``unknown``."""


class Models:
    """The models of one bundle, over the batcher that all transports share.

    Args:
        batcher: Where the questions go.
        max_rows: Most inputs, and most questions, of one request.
        observer: Told of every request.
    """

    def __init__(self, batcher: Batcher, *, max_rows: int, observer: Observer | None = None) -> None:
        self.batcher = batcher
        self.ready = False
        self._max_rows = max_rows
        self._observer = observer
        bundle = batcher.engine.bundle
        self.bundle = bundle
        self._input = _input_info(bundle.manifest.inputs[0], text=bundle.text is not None)
        self._models = {task.name: self._task_model(task) for task in bundle.tasks}
        self._models[ROUTER] = self._router_model(bundle.tasks)
        self.statistics = Statistics(self._models, VERSION)

    @property
    def names(self) -> list[str]:
        """The models: every task, and the router."""
        return list(self._models)

    def info(self, model: str, version: str = "") -> ModelInfo:
        """Return a model's metadata.

        Raises:
            UnknownTaskError: If there is no such model, or not in that version.
        """
        if model not in self._models:
            self.bundle.task_index(model)  # raises, and suggests close names
        info = self._models[model]
        if version not in ("", VERSION):
            raise UnknownTaskError(f"model {model!r} has no version {version[:40]!r}, only {VERSION!r}")
        return info

    async def answer(self, question: Question, *, transport: str) -> Answer:
        """Answer a question.

        Raises:
            UnknownTaskError: If there is no such model or task.
            InvalidInputError: If an input or output is wrong.
            TooLargeError: If there are too many inputs or questions.
            DeadlineError: If the answer takes longer than the question's timeout.
            OverloadedError: If as much waits as may wait.
            UnavailableError: If the server is not ready, or is shutting down.
        """
        return await self.observed(question.model, transport, self._answer(question))

    async def observed(self, model: str, transport: str, work: Awaitable[tuple[T, Prediction]]) -> T:
        """Await an answer and the prediction behind it; count them, and return the answer."""
        start = time.perf_counter()
        outcome, asked = "cancelled", 0
        try:
            answer, prediction = await work
            outcome, asked = "ok", len(prediction)
            self.statistics.answered(model, prediction, start)
        except Exception as error:
            outcome = failure_of(error).outcome
            raise
        finally:
            self.observe(model, transport, outcome, asked, time.perf_counter() - start)
        return answer

    def observe(self, model: str, transport: str, outcome: str, questions: int, seconds: float) -> None:
        """Count a request that failed, and tell the observer of any."""
        if outcome != "ok" and model in self._models:
            self.statistics.failed(model, seconds)
        if self._observer is not None:
            known = model if model in self._models else "unknown"
            self._observer.observe(
                model=known, transport=transport, outcome=outcome, questions=questions, seconds=seconds
            )

    def check_rows(self, *counts: int) -> None:
        """Check how many inputs and questions a request has.

        Raises:
            TooLargeError: If there are more than the server takes.
            UnavailableError: If the server is not ready.
        """
        if not self.ready:
            raise UnavailableError("the server is not ready yet: try again in a second")
        if max(counts) > self._max_rows:
            raise TooLargeError(
                f"{max(counts)} rows in one request: this server takes {self._max_rows}, split it"
            )

    async def _answer(self, question: Question) -> tuple[Answer, Prediction]:
        info = self.info(question.model, question.version)
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
        return Answer(info.name, outputs), prediction

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
        return ModelInfo(ROUTER, inputs, tuple(outputs))


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
    missing = [name for name in known if name not in inputs and name != "row"]
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
