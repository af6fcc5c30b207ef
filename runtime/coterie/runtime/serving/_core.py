"""Every task, and the router, as a model: named tensors in, named tensors out, on no particular transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coterie.runtime._bundle import Bundle
from coterie.runtime._inputs import takes_text
from coterie.runtime._prediction import Prediction
from coterie.runtime.batching import Batcher
from coterie.runtime.errors import InvalidInputError, UnknownTaskError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.serving._access import ANYBODY, Caller
from coterie.runtime.serving._classification import classify
from coterie.runtime.serving._failures import TooLargeError
from coterie.runtime.serving._sizes import LONGEST_TEXT, longest_text, rows_of
from coterie.runtime.serving._tensors import Array, Tensor, as_bytes, as_texts
from coterie.runtime.serving.observing._statistics import Statistics
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
PRIORITY = 2
"""Of a question that names none."""

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

    ``timeout`` is after how many seconds nobody wants the answer any more; ``priority`` is who goes first, 1
    before 2 before 3; ``classes`` says of which outputs only so many of the likeliest classes are wanted;
    ``caller`` is who asks.
    """

    model: str
    inputs: Mapping[str, Tensor]
    version: str = ""
    outputs: tuple[str, ...] = ()
    timeout: float | None = None
    priority: int = PRIORITY
    classes: Mapping[str, int] = field(default_factory=dict)
    caller: Caller = ANYBODY


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
        max_text: Most characters of one text.
        number: What clients call the version.
    """

    def __init__(
        self, batcher: Batcher, *, max_rows: int, max_text: int = LONGEST_TEXT, number: str = VERSION
    ) -> None:
        self.batcher = batcher
        self.number = number
        self._max_rows = max_rows
        self._max_text = max_text
        bundle = batcher.engine.bundle
        self.bundle = bundle
        self._inputs = tuple(_input_info(bundle, spec) for spec in bundle.manifest.inputs)
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

    def info(self, model: str, caller: Caller = ANYBODY) -> ModelInfo:
        """Return the metadata of a model that somebody asks for.

        Raises:
            RefusedError: If they may not.
            UnknownTaskError: If there is no such model; the message suggests close names.
        """
        caller.check(model)
        if model not in self._models:
            if not caller.may_ask_all:  # whom close names are nothing to
                raise UnknownTaskError(f"there is no task {model[:80]!r}")
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

    def check_texts(self, inputs: Any) -> None:
        """Check how long the texts among a request's inputs are.

        Raises:
            TooLargeError: If one is longer than the server takes.
        """
        longest = longest_text(inputs)
        if longest > self._max_text:
            raise TooLargeError(
                f"a text of {longest} characters: this server takes {self._max_text}, cut it or divide it"
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
        info = self.info(question.model, question.caller)
        wanted = _wanted(info, question.outputs)
        _check_classes(info, question.classes)
        tensors = _checked(info, question.inputs)
        inputs = self._given(tensors)
        self.check_texts(inputs)
        if info.name == ROUTER:
            task = _task_argument(tensors["task"])
            self._check_tasks(question.caller, task)
            row = tensors.get("row")
            self.check_rows(rows_of(inputs), rows_of(task))
            prediction = await self.batcher.predict_many(
                inputs, row, task, timeout=question.timeout, priority=question.priority
            )
        else:
            self.check_rows(rows_of(inputs))
            prediction = await self.batcher.predict(
                info.name, inputs, timeout=question.timeout, priority=question.priority
            )
        outputs = {}
        for spec in wanted:
            tensor = Tensor(spec.datatype, _output(info, spec.name, prediction))
            count = question.classes.get(spec.name, 0)
            if count:
                tensor = Tensor("BYTES", classify(prediction, tensor.array, count))
            outputs[spec.name] = tensor
        return Answer(info.name, outputs, self.number), prediction

    def _check_tasks(self, caller: Caller, task: Array | list[str]) -> None:
        """Check that somebody may ask all of the tasks that a question to the router names."""
        if caller.may_ask_all:
            return
        names = task if isinstance(task, list) else []
        if isinstance(task, np.ndarray):
            tasks = self.bundle.tasks
            # What is out of range the engine refuses.
            names = [tasks[index].name for index in np.unique(task).tolist() if 0 <= index < len(tasks)]
        for name in set(names):
            self.info(name, caller)

    def _given(self, tensors: Mapping[str, Array]) -> Any:
        """Return the inputs as an engine takes them."""
        given = {
            spec.name: as_texts(spec.name, tensors[spec.name])
            if spec.datatype == "BYTES"
            else tensors[spec.name]
            for spec in self._inputs
        }
        # An only input of texts has another name than the tensor of their tokens.
        return given if len(given) > 1 else next(iter(given.values()))

    def _task_model(self, task: TaskSpec) -> ModelInfo:
        each = _each(task)
        outputs = [TensorInfo("scores", "FP32", (*each, task.width))]
        if task.kind != "regression":
            outputs.append(TensorInfo("probabilities", "FP32", (*each, task.width)))
        if task.kind in ("classification", "tagging"):
            outputs.append(TensorInfo("label", "BYTES", each))
        if task.kind == "multilabel":
            outputs.append(TensorInfo("label", "UINT8", (-1, task.width)))
        return ModelInfo(task.name, self._inputs, tuple(outputs))

    def _router_model(self, tasks: tuple[TaskSpec, ...]) -> ModelInfo:
        width = max(task.width for task in tasks)
        each = _each(tasks[0])
        outputs = [TensorInfo("scores", "FP32", (*each, width))]
        if any(task.kind != "regression" for task in tasks):
            outputs.append(TensorInfo("probabilities", "FP32", (*each, width)))
            outputs.append(TensorInfo("label", "BYTES", each))
        inputs = (*self._inputs, TensorInfo("row", "INT64", (-1,)), TensorInfo("task", "BYTES", (-1,)))
        return ModelInfo(ROUTER, inputs, tuple(outputs), optional=("row",))


def _each(task: TaskSpec) -> tuple[int, ...]:
    """Return the dimensions of what is answered: a question's; for a tagging each word of it."""
    return (-1, -1) if task.kind == "tagging" else (-1,)


def _input_info(bundle: Bundle, spec: TensorSpec) -> TensorInfo:
    if takes_text(bundle, spec):
        alone = len(bundle.manifest.inputs) == 1
        return TensorInfo(TEXT if alone else spec.name, "BYTES", (-1,))
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
