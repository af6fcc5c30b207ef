"""The models of one version: every task, and the router; named tensors in, named tensors out."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from coterie.runtime.batching import Batcher
from coterie.runtime.engine import Prediction
from coterie.runtime.errors import InvalidInputError, UnknownTaskError
from coterie.runtime.serving._failures import TooLargeError
from coterie.runtime.serving.access._callers import ANYBODY, Caller
from coterie.runtime.serving.models._classification import classify
from coterie.runtime.serving.models._metadata import VERSION, ModelInfo, TensorInfo, input_infos, model_infos
from coterie.runtime.serving.models._questions import Answer, Question
from coterie.runtime.serving.models._sizes import LONGEST_TEXT, longest_text, rows_of
from coterie.runtime.serving.models._tensors import Array, Tensor, as_bytes, as_texts
from coterie.runtime.serving.observing._statistics import Statistics
from coterie.runtime.tasks import ROUTER

_ODD = re.compile(r"/versions/|/(?:infer|config|stats|ready)$")
"""What a name has that an address under ``/v2/models`` could mean otherwise."""


class Version:
    """The models of one version of a bundle, over the batcher that all transports share.

    Args:
        batcher: Where the questions go.
        max_rows: Most inputs, and most questions, of one request.
        max_text: Most characters of one text.
        number: What clients call the version.

    Attributes:
        odd: Models whose names look like more than a name where they are a part of an address.
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
        self._inputs = input_infos(bundle)
        self._models = model_infos(bundle)
        self.odd = frozenset(name for name in self._models if _ODD.search(name))
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

    def check_room(self, model: str) -> None:
        """Refuse a question to a model that could not be taken, before it is read.

        Raises:
            OverloadedError: If as much waits as may wait.
        """
        self.batcher.check_room(None if model == ROUTER else model)

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
                inputs, row, task, timeout=question.timeout, priority=question.priority, since=question.since
            )
        else:
            self.check_rows(rows_of(inputs))
            prediction = await self.batcher.predict(
                info.name,
                inputs,
                timeout=question.timeout,
                priority=question.priority,
                since=question.since,
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
