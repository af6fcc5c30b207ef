"""Questions and answers as typed JSON, by the names of tasks and labels: the API for people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, Field

from coterie.runtime.bundle import Bundle
from coterie.runtime.engine._inputs import takes_text
from coterie.runtime.engine._prediction import Named, Prediction, Result
from coterie.runtime.errors import InvalidInputError
from coterie.runtime.manifest import TensorSpec
from coterie.runtime.serving.access._callers import ANYBODY, Caller
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._version import Version
from coterie.runtime.tasks import ROUTER, TaskKind

T = TypeVar("T")

TRANSPORT = "json"


class LabelledAnswer(BaseModel):
    """One task's answer about one input."""

    label: str | list[str] | None = Field(
        description="The likeliest class; for a multilabel task the labels that hold; for a tagging each "
        "word's tag; null for a regression.",
        examples=["positive"],
    )
    probabilities: Named | None = Field(
        description="By label, for a tagging of each word; null for a regression.",
        examples=[{"negative": 0.04, "positive": 0.96}],
    )
    scores: Named = Field(
        description="The model's raw outputs, by label; for a tagging of each word.",
        examples=[{"negative": -1.6, "positive": 1.6}],
    )


class TaskAnswers(BaseModel):
    """One task's answers, one for each input, in their order."""

    task: str = Field(examples=["sentiment"])
    answers: list[LabelledAnswer]


class InputAnswers(BaseModel):
    """For each input, in their order, the answer of every task that was asked."""

    answers: list[dict[str, LabelledAnswer]]


class TaskDescription(BaseModel):
    """What one task answers."""

    name: str = Field(examples=["sentiment"])
    kind: TaskKind
    labels: list[str] = Field(examples=[["negative", "positive"]])


class InputDescription(BaseModel):
    """One of the tensors that the tasks are asked about."""

    name: str = Field(examples=["review"])
    text: bool = Field(description="Whether it is a text; if not, it is an array of numbers.")
    shape: list[int] = Field(
        description="Shape of one input, -1 for any size; empty for a text.", examples=[[64]]
    )


class TaskList(BaseModel):
    """The tasks, and what they are asked about."""

    tasks: list[TaskDescription]
    text: bool = Field(description="Whether the inputs are texts; if not, they are arrays of numbers.")
    shape: list[int] = Field(
        description="Shape of one input, -1 for any size; empty for a text, or where there are several.",
        examples=[[64]],
    )
    inputs: list[InputDescription] = Field(
        description="Where it is more than one, an entry of 'inputs' is an object with each by its name."
    )


class VersionList(BaseModel):
    """The versions of the bundle in one server process."""

    current: str = Field(description="The version that answers whoever names none.", examples=["2"])
    loaded: list[str] = Field(description="Those that can be asked by name.", examples=[["1", "2"]])
    failed: dict[str, str] = Field(
        description="Those that the store serves but that could not be loaded, and why.", examples=[{}]
    )


class TypedApi:
    """The typed questions over the models that all transports share."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def tasks(self, caller: Caller = ANYBODY) -> TaskList:
        """Return the tasks that somebody may ask."""
        bundle = self._models.bundle
        tasks = [
            TaskDescription(name=task.name, kind=task.kind, labels=list(task.labels))
            for task in bundle.tasks
            if caller.may_ask(task.name)
        ]
        inputs = [_described(bundle, spec) for spec in bundle.manifest.inputs]
        only = inputs[0] if len(inputs) == 1 else InputDescription(name="", text=False, shape=[])
        return TaskList(tasks=tasks, text=only.text, shape=only.shape, inputs=inputs)

    def versions(self) -> VersionList:
        """Return the versions."""
        models = self._models
        return VersionList(
            current=models.current.number, loaded=list(models.loaded), failed=dict(models.failed)
        )

    async def predict(
        self,
        task: str,
        inputs: list[Any],
        *,
        caller: Caller = ANYBODY,
        version: str = "",
        nbytes: int = 0,
    ) -> TaskAnswers:
        """Ask one task about each of R inputs, sent as so many bytes; raises as ``Models.answer`` does."""

        async def work(chosen: Version) -> tuple[TaskAnswers, Prediction]:
            chosen.info(task, caller)
            return await _predict(chosen, task, inputs)

        return await self._in_turn(task, work, version, nbytes)

    async def ask(
        self,
        inputs: list[Any],
        tasks: list[str] | None,
        *,
        caller: Caller = ANYBODY,
        version: str = "",
        nbytes: int = 0,
    ) -> InputAnswers:
        """Ask several tasks, or all that the caller may, about each of R inputs; see ``predict``."""

        async def work(chosen: Version) -> tuple[InputAnswers, Prediction]:
            if tasks is None:
                return await _ask(chosen, inputs, [name for name in _names(chosen) if caller.may_ask(name)])
            for name in tasks:
                chosen.info(name, caller)
            return await _ask(chosen, inputs, tasks)

        return await self._in_turn(ROUTER, work, version, nbytes)

    async def _in_turn(
        self,
        model: str,
        work: Callable[[Version], Awaitable[tuple[T, Prediction]]],
        version: str,
        nbytes: int,
    ) -> T:
        """Ask when it is the model's turn; the question is read already, its answer is not yet written."""
        models = self._models
        with models.counting_refusals(model, TRANSPORT):
            models.turns.check(model, nbytes)
        async with models.turns.of(model, nbytes) as since:
            return await models.ask(model, TRANSPORT, work, number=version, since=since)


def _described(bundle: Bundle, spec: TensorSpec) -> InputDescription:
    text = takes_text(bundle, spec)
    dims = [] if text else [-1 if dim is None else dim for dim in spec.shape[1:]]
    return InputDescription(name=spec.name, text=text, shape=dims)


def _names(version: Version) -> list[str]:
    return [task.name for task in version.bundle.tasks]


async def _predict(version: Version, task: str, inputs: list[Any]) -> tuple[TaskAnswers, Prediction]:
    version.bundle.task_index(task)
    version.check_rows(len(inputs))
    version.check_texts(inputs)
    prediction = await version.batcher.predict(task, inputs)
    return TaskAnswers(task=task, answers=[_labelled(result) for result in prediction]), prediction


async def _ask(version: Version, inputs: list[Any], names: list[str]) -> tuple[InputAnswers, Prediction]:
    bundle = version.bundle
    if not names or len(set(names)) != len(names):
        raise InvalidInputError("'tasks' names each task once; leave it out to ask all of them")
    indices = np.array([bundle.task_index(name) for name in names], dtype=np.int64)
    version.check_rows(len(inputs), len(inputs) * len(names))
    version.check_texts(inputs)
    row = np.repeat(np.arange(len(inputs), dtype=np.int64), len(names))
    prediction = await version.batcher.predict_many(inputs, row, np.tile(indices, len(inputs)))
    results = iter(prediction)
    answers = [{name: _labelled(next(results)) for name in names} for _ in inputs]
    return InputAnswers(answers=answers), prediction


def _labelled(result: Result) -> LabelledAnswer:
    label = list(result.label) if isinstance(result.label, tuple) else result.label
    return LabelledAnswer(label=label, probabilities=result.probabilities, scores=result.scores)
