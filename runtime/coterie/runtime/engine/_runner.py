"""Which graphs answer a batch of questions, and how their answers become one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from coterie.runtime.bundle import Bundle
from coterie.runtime.engine._asked import Asked
from coterie.runtime.engine._graph import Floats, Graph, RunOptions
from coterie.runtime.engine._large_pages import large_pages
from coterie.runtime.engine._sessions import Sessions
from coterie.runtime.engine._task_graphs import TaskGraphs
from coterie.runtime.engine._trial import own_sessions_pay
from coterie.runtime.errors import BundleError

Mode = Literal["auto", "router", "task"]
Answers = tuple[Floats, Floats | None]
"""Scores and probabilities, [B, C], or [B, L, C] of taggings; None where all tasks are regressions."""

_FEW = 8
"""What the router takes beside its blocks is felt up to about so many questions."""
_TRIED = 4

Array = npt.NDArray[Any]


class Runner:
    """Runs a bundle's graphs.

    Args:
        bundle: The bundle.
        sessions: Its sessions.
        mode: See ``Engine``.
        session_bytes: See ``Engine``.
    """

    def __init__(self, bundle: Bundle, sessions: Sessions, mode: Mode, session_bytes: int) -> None:
        self._tasks = bundle.tasks
        self._sessions = sessions
        self._graphs = TaskGraphs(sessions.make_task, sessions.task_bytes, limit=session_bytes)
        self._mode = mode
        self._own_pay = False
        self._width = max(task.width for task in bundle.tasks)
        self._tagging = bundle.tasks[0].kind == "tagging"
        self._has_probabilities = any(task.kind != "regression" for task in bundle.tasks)
        if mode != "task":
            # Its weights are all that a batch reads; of tasks' sessions each reads little.
            with large_pages():
                sessions.router()

    def run(self, asked: Asked, stop: RunOptions | None) -> Answers:
        """Answer questions; see ``Engine.run``."""
        if not len(asked):
            empty = np.zeros(self._shape(asked.inputs, 0), dtype=np.float32)
            return empty, empty if self._has_probabilities else None
        if self._mode == "task":
            return self._run_tasks(asked, stop)
        if self._own_pay and len(asked) <= _FEW and asked.of_one_task():
            graph = self._graphs.get_if_kept(int(asked.task[0]))
            if graph is not None:
                return self._run_one(graph, int(asked.task[0]), asked.inputs, asked.row, stop)
        return self._run_router(asked, stop)

    def choose(self, inputs: Mapping[str, Array]) -> None:
        """Find out whether a few questions to one task are better answered by a session of its own.

        Args:
            inputs: One input.
        """
        if self._mode != "auto":
            return
        graphs, row = self._graphs, np.zeros(1, dtype=np.int64)
        spread = np.linspace(0, len(self._tasks) - 1, min(_TRIED, len(self._tasks)), dtype=np.int64)
        self._own_pay = own_sessions_pay(
            graphs.fitting(spread.tolist()),
            own=lambda task: self._run_one(graphs.get(task), task, inputs, row, None),
            router=lambda task: self._run_router(Asked(inputs, row, row + task), None),
        )
        if not self._own_pay:
            graphs.clear()

    def _run_router(self, asked: Asked, stop: RunOptions | None) -> Answers:
        feeds = {**asked.inputs, "row": asked.row, "task": asked.task}
        scores, probabilities = self._sessions.router().run(feeds, stop)
        _check_answer(scores, probabilities, self._shape(asked.inputs, len(asked)), self._has_probabilities)
        return scores, probabilities

    def _run_tasks(self, asked: Asked, stop: RunOptions | None) -> Answers:
        """Answer each task's questions by its own graph."""
        scores = np.zeros(self._shape(asked.inputs, len(asked)), dtype=np.float32)
        probabilities = np.zeros_like(scores) if self._has_probabilities else None
        for index in np.unique(asked.task).tolist():
            graph, own = self._graphs.get(index), np.flatnonzero(asked.task == index)
            answers = self._run_one(graph, index, asked.inputs, asked.row[own], stop)
            if len(own) == len(asked):
                return answers
            scores[own] = answers[0]
            if probabilities is not None and answers[1] is not None:
                probabilities[own] = answers[1]
        return scores, probabilities

    def _run_one(
        self, graph: Graph, task: int, inputs: Mapping[str, Array], row: Array, stop: RunOptions | None
    ) -> Answers:
        """Answer questions that all ask one task, by its own graph."""
        spec, shape = self._tasks[task], self._shape(inputs, len(row))
        if not _every_input_once(row, len(next(iter(inputs.values())))):
            inputs = {name: values[row] for name, values in inputs.items()}
        scores, probabilities = graph.run(inputs, stop)
        _check_answer(scores, probabilities, (*shape[:-1], spec.width), spec.kind != "regression")
        if probabilities is None and self._has_probabilities:
            return _widen(scores, self._width), np.zeros(shape, dtype=np.float32)
        return _widen(scores, self._width), None if probabilities is None else _widen(
            probabilities, self._width
        )

    def _shape(self, inputs: Mapping[str, Array], questions: int) -> tuple[int, ...]:
        words = next(iter(inputs.values())).shape[1:2] if self._tagging else ()
        return (questions, *words, self._width)


def _every_input_once(row: Array, inputs: int) -> bool:
    """Return whether question b is about input b, and so about the inputs as they lie."""
    return len(row) == inputs and (inputs == 1 or np.array_equal(row, np.arange(inputs)))


def _widen(values: Floats, width: int) -> Floats:
    """Return values with columns of zeros up to a width; the same where there are none to add."""
    missing = width - values.shape[-1]
    if not missing:
        return values
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])


def _check_answer(
    scores: Array, probabilities: Array | None, shape: tuple[int, ...], has_probabilities: bool
) -> None:
    """Check that a graph has answered every question, with as many numbers as its tasks have labels."""
    shapes = [scores.shape, *([] if probabilities is None else [probabilities.shape])]
    if len(shapes) != 1 + has_probabilities or any(each != shape for each in shapes):
        raise BundleError(
            f"a graph answered with {shapes} where {1 + has_probabilities} x {shape} was expected: its "
            "manifest is not its own; export the bundle again"
        )
